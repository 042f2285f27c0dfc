package kfac

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Save writes the whole state of the solver and the weights: a training that is loaded from it goes
// on as if it had never stopped, to the last bit, in the same process or in another. It is for the
// program to bring its own state along, such as the order of its batches, and random numbers that
// Gorgonia draws.
//
// The file is in the format safetensors, which other tools can read. The factors A and G of the
// layer with the weight w are blocks/w/A and blocks/w/G, weights are weights/w, and lambda and the
// like are texts in the metadata.
//
// Save waits for inverses in the background, and changes nothing. Parameters are known by their
// names. The errors are *StateError, with ErrInUpdate between Accumulate and Step, ErrAveraged
// within UseAverage and ErrInner with WithInner or GroupSolver, and *ParamError with ErrSameName,
// or for weights that can't be read.
//
// With WithCommunicator all ranks call Save, or SaveFile, and rank 0 writes; what the others give
// is not used. The file can be loaded by any number of ranks, and by a solver without them.
func (s *Solver) Save(w io.Writer, opts ...StateOption) (err error) {
	defer recovered("Save", &err)
	return s.saving(opts, func() error {
		if w == nil { // on other ranks it is not used
			return &ConfigError{"Save", "nil", "an io.Writer"}
		}
		return s.save(w, opts)
	})
}

// saving has all ranks save, by the given way on rank 0.
func (s *Solver) saving(opts []StateOption, write func() error) error {
	return s.onState("Save", func() error {
		if err := s.savable(); err != nil {
			return err
		}
		on := s.cfg.ranks
		return on.together("Save", func() error {
			if !on.first() {
				write = func() error { return s.save(io.Discard, opts) }
			}
			if err := write(); err != nil {
				return err
			}
			return on.meet(atCommit, nil) // when the file is there
		})
	})
}

// save is Save without its checks.
func (s *Solver) save(w io.Writer, opts []StateOption) (err error) {
	defer recovered("Save", &err)
	if s.pending != nil {
		if !s.cfg.ranks.first() {
			return nil
		}
		_, err := w.Write(s.pending.file)
		return stateError("Save", err)
	}
	a := newArchive()
	if err := s.engine.save(a, stateOptionsOf(opts)); err != nil {
		return stateError("Save", err)
	}
	if !s.cfg.ranks.first() {
		return nil
	}
	return stateError("Save", a.write(w))
}

// Load puts the solver, and the weights of its graph, in the state that Save has written, and
// zeroes the gradients. RunAll comes next. The solver is that of the same model, by names and
// shapes of parameters, with the same settings; its graph may be another one, and a first Step of
// its own is not needed. Stats().Step is then the number of steps that had been done; its other
// fields are zero.
//
// A solver of [New] that has no graph yet keeps the state for its first one, which it is compared
// with then: by [Solver.VM] or [Solver.Attach], whose RunAll is that of the state's weights, or by
// the first Step or Accumulate. That gives the graph the weights, and computes the gradients of its
// RunAll again, so that the training goes on as if it had not stopped but for rounding. Errors are
// then those of these calls.
//
// With WithCommunicator all ranks call Load, or LoadFile. Rank 0 reads, and sends the others what
// it has read.
//
// Parameters that the graph lacks, as after Attach, get their state when a graph brings them. Their
// weights then have to be those that they had; Load can be called again with that graph to write
// them.
//
// An error leaves everything as it was. It is a *StateError with ErrTruncated, ErrDamaged,
// ErrForeignFile, ErrNewerFile, ErrOlderFile, ErrOtherModel, ErrOtherSettings, ErrInUpdate,
// ErrAveraged or what r has returned, or a *ParamError for weights that can't be written. Load
// reads r to its end.
func (s *Solver) Load(r io.Reader, opts ...StateOption) (err error) {
	defer recovered("Load", &err)
	return s.load(func() ([]byte, error) {
		if r == nil {
			return nil, &ConfigError{"Load", "nil", "an io.Reader"}
		}
		return io.ReadAll(r)
	}, opts)
}

// load loads a file that is read on rank 0.
func (s *Solver) load(read func() ([]byte, error), opts []StateOption) error {
	return s.onState("Load", func() error {
		on := s.cfg.ranks
		return on.together("Load", func() (err error) {
			defer recovered("Load", &err)
			var file []byte
			if on.first() {
				file, err = read()
			}
			if file, err = on.file(file, stateError("Load", err)); err != nil {
				return err
			}
			return s.loadBytes(file, opts)
		})
	})
}

func (s *Solver) loadBytes(file []byte, opts []StateOption) error {
	a, err := readArchive(file)
	if err != nil {
		return stateError("Load", err)
	}
	if s.engine == nil {
		p := &pending{file: file, archive: a, stateOptions: stateOptionsOf(opts)}
		from := newReader[float64](a)
		var steps int
		if from.Count("steps", &steps); from.err() != nil {
			return stateError("Load", from.err())
		}
		s.pending, s.stats = p, Stats{Step: steps}
		return nil
	}
	if _, err := s.engine.load(a, stateOptionsOf(opts), false); err != nil {
		return stateError("Load", err)
	}
	s.plan, s.stats = s.engine.describe(), Stats{Step: s.engine.done()}
	return nil
}

// savable reports a solver that has nothing to save.
func (s *Solver) savable() error {
	if s.pending != nil {
		return nil
	}
	return s.attached("Save")
}

// SaveFile saves to a file, which it replaces when all is written: whatever happens, there is the
// file before or the new one. It is written as path.tmp first. What is at path has to be a file, if
// there is anything: no folder and no device.
func (s *Solver) SaveFile(path string, opts ...StateOption) (err error) {
	defer recovered("Save", &err)
	return s.saving(opts, func() error { return s.replace(path, opts) })
}

// replace replaces a file by what Save writes.
func (s *Solver) replace(path string, opts []StateOption) error {
	if at, err := os.Stat(path); path == "" || err == nil && !at.Mode().IsRegular() {
		return stateError("Save", &fs.PathError{Op: "replace", Path: path, Err: errNoFile})
	}
	temporary := path + ".tmp"
	if err := s.saveTo(temporary, opts); err != nil {
		os.Remove(temporary)
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return stateError("Save", err)
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() // so that the new name lasts; some systems can't
		dir.Close()
	}
	return nil
}

var errNoFile = errors.New("it is no file that can be replaced: give the name of a file")

func (s *Solver) saveTo(path string, opts []StateOption) error {
	f, err := os.Create(path)
	if err != nil {
		return stateError("Save", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = s.save(w, opts)
	if err == nil {
		err = stateError("Save", errors.Join(w.Flush(), f.Sync()))
	}
	if closed := f.Close(); err == nil {
		err = stateError("Save", closed)
	}
	return err
}

// LoadFile loads what SaveFile has saved.
func (s *Solver) LoadFile(path string, opts ...StateOption) (err error) {
	defer recovered("Load", &err)
	return s.load(func() ([]byte, error) { return os.ReadFile(path) }, opts)
}

package kfac

import (
	"fmt"
	"net/url"
	"strings"
)

// saved says what the block is in a file.
func (b *block[T]) saved(factors bool) savedBlock {
	s := savedBlock{Signature: b.signature(), Factors: factors}
	for i, g := range b.groups {
		for _, p := range g.params {
			s.Params = append(s.Params, p.name)
		}
		if g.coords != nil {
			s.Coordinates = append(s.Coordinates, i)
		}
	}
	s.Path = "blocks/" + url.PathEscape(s.Params[0]) + "/"
	return s
}

// state shows a block: its coordinates, and, with factors, averages, inverse and the pending job,
// if there is one. It returns the job that a reader has found.
func (b *block[T]) state(to ledger[T], j *job[T], factors bool) *job[T] {
	for i, g := range b.groups {
		if g.coords != nil {
			g.coords.state(to, fmt.Sprintf("coordinates %d", i), g.shape.In)
		}
	}
	if !factors {
		return nil
	}
	b.Block.State(to)
	if b.Immediate() {
		return nil
	}
	there := b.inverse != nil
	to.Flag("inverse", &there)
	if there {
		if b.inverse == nil {
			b.inverse = b.NewInverse()
		}
		b.inverse.State(to)
		if to.Reads() {
			rebase([]*block[T]{b}, true)
		}
	}
	return b.pending(to.under("pending/"), j)
}

// pending shows a job. A writer waits for it.
func (b *block[T]) pending(to ledger[T], j *job[T]) *job[T] {
	there := j != nil
	to.Flag("there", &there)
	if !there {
		return nil
	}
	if j == nil {
		j = &job[T]{done: make(chan struct{}), collected: true, inverse: b.NewInverse(), err: ErrNotPosDef}
		close(j.done)
	}
	inverse, err := j.collect()
	failed := err != nil
	to.Count("due", &j.due)
	to.Flag("failed", &failed)
	if !failed {
		j.err = nil
		inverse.State(to)
	}
	return j
}

// state shows the coordinates of a layer with so many inputs.
func (c *coordinates[T]) state(to ledger[T], name string, inputs int) {
	to = to.under(name + "/")
	shifted := c.shift != nil
	to.Flag("settled", &c.settled)
	to.Number("scale", &c.scale)
	to.Number("unit", &c.unit)
	to.Flag("shifted", &shifted)
	if !shifted {
		return
	}
	if c.shift == nil {
		c.shift = make([]float64, inputs)
	}
	to.Wide("shift", c.shift)
}

// forgetShare leaves nothing of the averages but how many updates they are of.
func (b *block[T]) forgetShare() {
	share := b.Copy()
	for _, m := range share.Moments {
		clear(m)
	}
	b.Keep(share)
}

// copyTo copies what belongs to the block.
func (s *storedBlock) copyTo(a *archive, path string) {
	texts, tensors := s.from.under(s.Path)
	for _, name := range texts {
		a.texts[path+strings.TrimPrefix(name, s.Path)] = s.from.texts[name]
	}
	for _, name := range tensors {
		a.tensors[path+strings.TrimPrefix(name, s.Path)] = s.from.tensors[name]
	}
}

// revive gives the blocks of a plan, where they are new, the states that are stored for them.
func (p *planned[T]) revive(stored []storedBlock, on *ranks) error {
	bySignature := map[string]*block[T]{}
	if len(stored) > 0 {
		for _, b := range p.blocks {
			bySignature[b.signature()] = b
		}
	}
	for _, s := range stored {
		b := bySignature[s.Signature]
		if b == nil {
			p.stored = append(p.stored, s)
			continue
		}
		from := newReader[T](s.from)
		j := b.state(from.under(s.Path), nil, s.Factors)
		if err := from.err(); err != nil {
			return err
		}
		if s.elsewhere {
			b.forgetShare()
		}
		b.vacate(j, on)
		if j != nil {
			if p.jobs == nil {
				p.jobs = map[*block[T]]*job[T]{}
			}
			p.jobs[b] = j
		}
	}
	return nil
}

// vacate leaves the inverses of a block that was loaded to its home, where that is another rank. j
// is its job, or nil.
func (b *block[T]) vacate(j *job[T], on *ranks) {
	if j != nil {
		j.exchanged = true
	}
	if b.home.has(on) {
		return
	}
	if b.inverse != nil {
		b.inverse = abroadOf(b.inverse)
	}
	if j != nil && j.err == nil {
		j.inverse = abroadOf(j.inverse)
	}
}

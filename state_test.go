package kfac

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// resumable are trainings of all kinds of blocks and rules. Each build makes the same net, in a new
// graph.
var resumable = map[string]struct {
	build func() *testnet.Net
	opts  []Option
}{
	"default": {testnet.FourLayers, nil},
	"paper":   {testnet.FourLayers, []Option{WithPaperRules()}},
	"rate":    {testnet.FourLayers, []Option{WithLearningRate(0.05)}},
	"inner": {testnet.FourLayers, []Option{WithLearningRate(0.05),
		WithInner(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.05)))}},
	"groups": {testnet.FourLayers, []Option{WithGroup("?0", GroupFrozen()), WithL2Reg(1e-3),
		WithGroup("?1", GroupLambda(3), GroupRate(2), GroupL2(0)), WithGroup("w2", GroupTreatment(Diagonal)),
		WithGroup("?3", GroupSolver(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.05)))),
		WithIterateAveraging(0.9, 3)}},
	"groups, background": {testnet.FourLayers, []Option{WithGroup("?1", GroupLambda(3), GroupRate(2)),
		WithInverseUpdatePeriod(5), WithBackgroundInverses(4)}},
	"L2":         {testnet.FourLayers, []Option{WithL2Reg(1e-3), WithDamping(1)}},
	"averaging":  {testnet.FourLayers, []Option{WithIterateAveraging(0.9, 3), WithStepRejection()}},
	"background": {testnet.FourLayers, []Option{WithInverseUpdatePeriod(5), WithBackgroundInverses(4)}},
	"background rate": {testnet.FourLayers, []Option{WithInverseUpdatePeriod(4), WithBackgroundInverses(4),
		WithLearningRate(0.05)}},
	"tridiagonal": {testnet.FourLayers, []Option{WithBlockTridiagonal(), WithInverseUpdatePeriod(6),
		WithBackgroundInverses(5)}},
	"EKFAC":         {testnet.FourLayers, []Option{WithEKFAC(), WithInverseUpdatePeriod(3)}},
	"exact damping": {testnet.FourLayers, []Option{WithExactDamping(), WithLearningRate(0.05)}},
	"EKFAC in the background": {func() *testnet.Net { return testnet.Images(3, true, false) }, []Option{WithEKFAC(),
		WithInverseUpdatePeriod(6), WithBackgroundInverses(5)}},
	"EKFAC float32": {func() *testnet.Net { return float32MLP() }, []Option{WithEKFAC(), WithMaxDim(6)}},
	"diagonal":      {testnet.FourLayers, []Option{WithMaxDim(2)}},
	"float32":       {func() *testnet.Net { return float32MLP() }, nil},
	"float32 chain": {func() *testnet.Net { return float32MLP() }, []Option{WithBlockTridiagonal(),
		WithInverseUpdatePeriod(6), WithBackgroundInverses(5)}},
	"convolution": {func() *testnet.Net { return testnet.Images(3, true, false) }, nil},
	"uncorrelated": {func() *testnet.Net { return testnet.Images(3, true, false) }, []Option{
		WithSpatiallyUncorrelated(), WithInverseUpdatePeriod(6), WithBackgroundInverses(5)}},
	"tied":  {func() *testnet.Net { return testnet.TiedLayers(8) }, nil},
	"words": {func() *testnet.Net { return testnet.Lookup(300, false, testnet.WordsOf(300, 8)) }, nil},
	"symmetric": {func() *testnet.Net { return testnet.Recurrent(5, 3, true) },
		[]Option{WithTimeCorrelation(TimeSymmetric)}},
	"stationary": {func() *testnet.Net { return testnet.Recurrent(5, 3, false) },
		[]Option{WithTimeCorrelation(TimeStationary)}},
	"symmetric, background": {func() *testnet.Net { return testnet.Recurrent(5, 3, true) }, []Option{
		WithTimeCorrelation(TimeSymmetric), WithInverseUpdatePeriod(6), WithBackgroundInverses(5)}},
	"stationary, background": {func() *testnet.Net { return testnet.Recurrent(5, 3, false) }, []Option{
		WithTimeCorrelation(TimeStationary), WithInverseUpdatePeriod(6), WithBackgroundInverses(5)}},
	"elementwise": {func() *testnet.Net { return testnet.ScaledOutputs[float64]() }, nil},
	"wide scales": {func() *testnet.Net { return testnet.WideScales(8) }, []Option{WithInverseUpdatePeriod(5),
		WithBackgroundInverses(4)}},
	"offsets": {testnet.Offsets, nil},
	"parts":   {func() *testnet.Net { return testnet.Parts(8) }, nil},
	"parts, EKFAC": {func() *testnet.Net { return testnet.Parts(8) }, []Option{WithEKFAC(), WithInverseUpdatePeriod(3),
		WithBackgroundInverses(2)}},
	"cases":         {func() *testnet.Net { return testnet.ScaledCases(6, testnet.SquaredError) }, nil},
	"cases float32": {testnet.ScaledOutputs[float32], []Option{WithStepRejection()}},
	"low rank":      {func() *testnet.Net { return wideNet(false) }, nil},
	"Dropout":       {func() *testnet.Net { return wideNet(true) }, nil},
	"joint":         {jointNet, []Option{WithFisherSamples(2)}},
	"reduce": {func() *testnet.Net { return testnet.Sequence(8, gorgonia.Tanh) }, []Option{WithWeightSharing(Reduce),
		WithFisherEstimate(CurvaturePropagation)}},
	"exact":       {testnet.FourLayers, []Option{WithFisherEstimate(ExactFisher), WithoutMomentum()}},
	"table, tied": {func() *testnet.Net { return testnet.Language(3, 9, 4, testnet.WordsOf(8, 9)) }, nil},
	"schedules": {testnet.FourLayers, []Option{WithLearningRate(0.1), WithWeightDecay(1e-3), WithClipNorm(0.2),
		WithSchedule(LearningRate, WarmUp(3, CosineDecay(0.1, 0.01, 30))), WithSchedule(Momentum, Constant(0.5)),
		WithSchedule(Damping, ExponentialDecay(1, 0.1, 20)), WithSkipNotFinite(2)}},
	"inner and groups": {testnet.FourLayers, []Option{WithLearningRate(0.05), WithIterateAveraging(0.9, 2),
		WithInner(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.05))), WithGroup("?0", GroupFrozen()),
		WithGroup("?3", GroupSolver(gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.01)))), WithBlockTridiagonal()}},
}

func float32MLP() *testnet.Net {
	return testnet.NewMLP[float32](7, testnet.Shape{Cases: 12, Widths: []int{5, 7, 6, 4}}, testnet.CrossEntropy)
}

// weightsOf are the weights of a net, in order.
func weightsOf(n *testnet.Net) (all []float64) {
	for _, p := range n.Params {
		all = append(all, testnet.Numbers(p.Value())...)
	}
	return all
}

// sameTraining demands that two loops are at the same weights, by the same last step.
func sameTraining(t *testing.T, got, want *Trainer) {
	t.Helper()
	if !slices.Equal(weightsOf(got.Net), weightsOf(want.Net)) {
		t.Fatalf("weights off by %g of their norm", testnet.Distance(weightsOf(got.Net), weightsOf(want.Net)))
	}
	if a, b := statsOf(got), statsOf(want); !SameStats(a, b) {
		t.Fatalf("step %+v, want %+v", a, b)
	}
}

// saved is what Save writes.
func saved(t testing.TB, s *Solver, opts ...StateOption) []byte {
	t.Helper()
	var file bytes.Buffer
	testnet.Check(t, s.Save(&file, opts...))
	return file.Bytes()
}

// resumedOn are the machines of TestResume.
var resumedOn = map[string]func(t testing.TB, n *testnet.Net, opts ...Option) *Trainer{
	"a tape machine":   NewTrainer,
	"the solver's own": newTrainerOnOwnVM,
	"Accumulate":       newChunkTrainer,
}

func newTrainerOnOwnVM(t testing.TB, n *testnet.Net, opts ...Option) *Trainer {
	t.Helper()
	n.Grad(t)
	s := NewSolverOf(t, n, opts...)
	vm, err := s.VM()
	testnet.Check(t, err)
	return &Trainer{Net: n, Run: vm.RunAll, Solver: s}
}

// newChunkTrainer makes updates of two chunks.
func newChunkTrainer(t testing.TB, n *testnet.Net, opts ...Option) *Trainer {
	t.Helper()
	tr := newTrainerOnOwnVM(t, n, opts...)
	run := tr.Run
	tr.Run = func() error {
		if err := errors.Join(run(), tr.Solver.Accumulate(tr.ValueGrads())); err != nil {
			return err
		}
		return run()
	}
	return tr
}

// A training that is saved and loaded, in a rebuilt graph of other weights, goes on with the bits
// of one that was not interrupted, on any machine; and saving changes nothing.
func TestResume(t *testing.T) {
	for name, of := range resumable {
		for machine, trainer := range resumedOn {
			if name == "Dropout" && machine == "a tape machine" {
				continue // Gorgonia draws the numbers, and no state has where it is
			}
			t.Run(name+" on "+machine, func(t *testing.T) {
				t.Parallel()
				resume(t, func() *Trainer {
					return trainer(t, of.build(), append(slices.Clone(of.opts), WithLayerStats(1))...)
				})
			})
		}
	}
}

// resume trains with and without interruptions.
func resume(t *testing.T, build func() *Trainer) {
	const steps = 24
	want, source := build(), build()
	for at, n := range []int{0, 1, 1, 3, 6, 7} {
		source.Steps(t, n)
		file := saved(t, source.Solver)
		again := build()
		for _, p := range again.Params {
			spoilWeights(p)
		}
		testnet.Check(t, again.Solver.Load(bytes.NewReader(file)))
		if got := saved(t, again.Solver); !bytes.Equal(got, file) {
			t.Fatal("a state that was just loaded is saved as another")
		}
		if at == 2 || at == 5 { // the others' steps are those of the source
			again.Steps(t, 3)
			source.Steps(t, 3)
			sameTraining(t, again, source)
		}
		source = again
	}
	want.Steps(t, steps)
	source.Steps(t, 0)
	sameTraining(t, source, want)
}

func spoilWeights(p *gorgonia.Node) {
	switch v := p.Value().Data().(type) {
	case []float64:
		for i := range v {
			v[i] = 3
		}
	case []float32:
		for i := range v {
			v[i] = 3
		}
	}
}

// An error of Save or Load says what is wrong with the file or with the moment.
func TestStateErrors(t *testing.T) {
	source := NewTrainer(t, testnet.FourLayers())
	source.Steps(t, 4)
	file := saved(t, source.Solver)
	flipped := func(at int) []byte {
		other := slices.Clone(file)
		other[at] ^= 4
		return other
	}
	replaced := func(old, new string) []byte { return resealed(t, bytes.Replace(file, []byte(old), []byte(new), 1)) }
	narrow := testnet.MLP{Widths: []int{4, 6, 5, 3, 1}, Cases: 6, Loss: testnet.SquaredError}
	four := func(opts ...Option) *Trainer { return NewTrainer(t, testnet.FourLayers(), opts...) }
	for name, test := range map[string]struct {
		into  *Trainer
		file  []byte
		is    error
		words string
	}{
		"empty":          {four(), nil, ErrTruncated, "empty"},
		"torn length":    {four(), file[:5], ErrTruncated, "5 bytes"},
		"torn header":    {four(), file[:2000], ErrTruncated, "header"},
		"torn numbers":   {four(), file[:len(file)-1], ErrTruncated, "bytes of numbers"},
		"longer":         {four(), append(slices.Clone(file), 0), ErrDamaged, "checksum"},
		"flipped number": {four(), flipped(len(file) - 3), ErrDamaged, "checksum"},
		"flipped header": {four(), flipped(bytes.Index(file, []byte("lambda")) + 10), ErrDamaged, ""},
		"a picture":      {four(), []byte("\x89PNG\r\n\x1a\nand more of it"), ErrForeignFile, ""},
		"another's":      {four(), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), ErrForeignFile, ""},
		"newer":          {four(), replaced(`"version":"1"`, `"version":"2"`), ErrNewerFile, `version "2"`},
		"older":          {four(), replaced(`"version":"1"`, `"version":"0"`), ErrOlderFile, `version "0"`},
		"no number":      {four(), replaced(`"version":"1"`, `"version":"x"`), ErrNewerFile, `version "x"`},
		"no lambda":      {four(), replaced(`"lambda":`, `"lambdb":`), ErrOtherModel, "lambda"},
		"negative count": {four(), replaced(`"steps":"4"`, `"steps":"-4"`), ErrOtherModel, "steps"},
		"other dtype":    {NewTrainer(t, float32MLP()), file, ErrOtherModel, "float64"},
		"other model":    {NewTrainer(t, testnet.TiedLayers(8)), file, ErrOtherModel, ""},
		"other widths":   {NewTrainer(t, narrow.Build(1)), file, ErrOtherModel, ""},
		"other settings": {four(WithCurvatureEMA(0.5), WithSeed(7)), file, ErrOtherSettings,
			"WithCurvatureEMA: 0.95 in the file, 0.5 here; WithSeed: 1 in the file, 7 here"},
		"other form":      {four(WithMaxDim(2)), file, ErrOtherSettings, "WithMaxDim: 4096 in the file, 2 here"},
		"without weights": {four(), saved(t, source.Solver, WithoutWeights()), ErrOtherModel, "no weights"},
	} {
		test.into.Steps(t, 2)
		before := saved(t, test.into.Solver)
		err := test.into.Solver.Load(bytes.NewReader(test.file))
		var state *StateError
		if !errors.As(err, &state) || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.words) ||
			state.Call != "Load" {
			t.Errorf("%s: %v; want one that is %q and says %q", name, err, test.is, test.words)
		}
		if !bytes.Equal(saved(t, test.into.Solver), before) {
			t.Errorf("%s: Load has changed something", name)
		}
	}
}

// resealed gives a file whose header was changed the length and the checksum that it should have.
func resealed(t testing.TB, file []byte) []byte {
	t.Helper()
	const name = `"checksum":"`
	end := bytes.Index(file, []byte("}}")) + 2 // of the header, but for blanks
	rest := bytes.TrimLeft(file[end:], " ")
	header := bytes.Clone(file[lengthBytes:end])
	for len(header)%8 > 0 {
		header = append(header, ' ')
	}
	file = append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), append(header, rest...)...)
	return sealed(file, bytes.Index(file, []byte(name))+len(name))
}

// sealed gives a file the right checksum, which is at this place.
func sealed(file []byte, at int) []byte {
	copy(file[at:], noChecksum)
	sum := sha256.Sum256(file)
	copy(file[at:], hex.EncodeToString(sum[:]))
	return file
}

// Neither Save nor Load is possible in the middle of an update, or with the averaged weights.
func TestStateAtABadMoment(t *testing.T) {
	tr := NewTrainer(t, testnet.FourLayers(), WithIterateAveraging(0.9, 1))
	tr.Steps(t, 3)
	file := saved(t, tr.Solver)
	demand := func(is error) {
		t.Helper()
		for _, err := range []error{tr.Solver.Save(new(bytes.Buffer)), tr.Solver.Load(bytes.NewReader(file))} {
			var state *StateError
			if !errors.As(err, &state) || !errors.Is(err, is) {
				t.Fatalf("%v, want %q", err, is)
			}
		}
	}
	restore, err := tr.Solver.UseAverage()
	testnet.Check(t, err)
	demand(ErrAveraged)
	restore()
	testnet.Check(t, tr.Run())
	testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
	demand(ErrInUpdate)
	tr.Steps(t, 1)
	testnet.Check(t, tr.Solver.Load(bytes.NewReader(file)))
}

// Whichever bit of a file is flipped, and wherever it is torn, Load says so and changes nothing.
func TestEveryByteCounts(t *testing.T) {
	tr := NewTrainer(t, testnet.ScaledCases(3, testnet.SquaredError))
	tr.Steps(t, 2)
	file := saved(t, tr.Solver)
	for at := range file {
		bit := byte(1) << (at % 8)
		flipped := slices.Clone(file)
		flipped[at] ^= bit
		for _, other := range [][]byte{flipped, file[:at]} {
			err := tr.Solver.Load(bytes.NewReader(other))
			var state *StateError
			if !errors.As(err, &state) {
				t.Fatalf("byte %d of %d: %v", at, len(file), err)
			}
		}
	}
	if !bytes.Equal(saved(t, tr.Solver), file) {
		t.Fatal("a bad file has changed something")
	}
}

// FuzzLoad has Load read what is no state, with a right checksum: an error that is typed, or
// another state.
func FuzzLoad(f *testing.F) {
	tr := NewTrainer(f, testnet.ScaledCases(3, testnet.SquaredError))
	tr.Steps(f, 2)
	file := saved(f, tr.Solver)
	f.Add(10, []byte("x"))
	f.Add(300, []byte(`"`))
	f.Add(len(file)-10, []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, at int, with []byte) {
		if at < lengthBytes || at+len(with) > len(file) {
			t.Skip()
		}
		other := slices.Clone(file)
		copy(other[at:], with)
		if name := bytes.Index(other, []byte(`"checksum":"`)); name > 0 && name < 1000 {
			other = sealed(other, name+len(`"checksum":"`))
		}
		var state *StateError
		if err := tr.Solver.Load(bytes.NewReader(other)); err != nil {
			var param *ParamError
			if !errors.As(err, &state) && !errors.As(err, &param) {
				t.Fatal(err)
			}
		} else {
			saved(t, tr.Solver, WithoutWeights())
		}
		testnet.Check(t, tr.Solver.Load(bytes.NewReader(file)))
	})
}

// Options of Save and Load leave parts out.
func TestStateOptions(t *testing.T) {
	source := NewTrainer(t, testnet.FourLayers())
	source.Steps(t, 6)
	whole, small := saved(t, source.Solver), saved(t, source.Solver, WithoutFactors(), WithoutWeights())
	if len(small) >= len(whole) {
		t.Fatal("nothing was left out")
	}
	other := NewTrainer(t, testnet.FourLayers())
	other.CopyParams(source.Net)
	testnet.Check(t, other.Solver.Load(bytes.NewReader(small), WithoutWeights()))
	o, s := trainingOf(other), trainingOf(source)
	if o.progress != s.progress {
		t.Fatalf("%+v, want %+v", o.progress, s.progress)
	}
	for _, b := range o.plan.blocks {
		if b.Copy().Updates != 0 || b.inverse != nil {
			t.Fatal("there are factors")
		}
	}
	other.Steps(t, 3)

	third := NewTrainer(t, testnet.FourLayers(), WithMaxDim(2), WithCurvatureEMA(0.9))
	testnet.Check(t, third.Solver.Load(bytes.NewReader(whole), WithOtherSettings(), WithoutFactors()))
	third.Steps(t, 3)
	fourth := NewTrainer(t, testnet.FourLayers(), WithCurvatureEMA(0.9))
	testnet.Check(t, fourth.Solver.Load(bytes.NewReader(whole), WithOtherSettings()))
	fourth.Steps(t, 3)
}

// Parameters and blocks that the graph lacks are kept, and saved again, until a graph brings them.
func TestResumeOverGraphs(t *testing.T) {
	nets := func() (a, b *testnet.Net) {
		m := testnet.MLP{Widths: []int{4, 6, 5, 3, 2}, Cases: 20, Unit: gorgonia.Tanh, Loss: testnet.Squares(0.5)}
		a = m.Build(3)
		m.Widths = m.Widths[:3]
		return a, m.Build(3)
	}
	run := func(interrupt bool) []float64 {
		a, b := nets()
		tr := &Trainer{Net: a, Run: testnet.Machines["BindDualValues"](t, a), Solver: NewSolverOf(t, a)}
		next := func(n *testnet.Net) {
			t.Helper()
			tr.Share(t, n)
			tr.Net = n
			testnet.Check(t, tr.Solver.Attach(n.Cost, Declared(n)))
			tr.Run = testnet.Machines["BindDualValues"](t, n)
		}
		tr.Steps(t, 3)
		next(b)
		tr.Steps(t, 2)
		if interrupt {
			file := saved(t, tr.Solver)
			values := weightsOf(a)
			a2, b2 := nets()
			tr = &Trainer{Net: b2, Run: testnet.Machines["BindDualValues"](t, b2), Solver: NewSolverOf(t, b2)}
			testnet.Check(t, tr.Solver.Load(bytes.NewReader(file)))
			if again := saved(t, tr.Solver); !bytes.Equal(again, file) {
				t.Fatal("what the graph lacks is saved as another state")
			}
			tr.Steps(t, 1)
			tr.Share(t, b2)
			a = a2
			at := 0
			for _, p := range a.Params { // what a program of several graphs has to bring along
				at += copy(testnet.Data(p), values[at:])
			}
		} else {
			tr.Steps(t, 1)
		}
		next(a)
		tr.Steps(t, 3)
		return weightsOf(a)
	}
	testnet.SameBits(t, "weights", run(true), run(false))
}

// A solver goes on from a file whatever it had done, with the VM of its own too.
func TestResumeOnTheSolversVM(t *testing.T) {
	build := func() *Trainer {
		n := testnet.FourLayers()
		n.Grad(t)
		s := NewSolverOf(t, n)
		vm, err := s.VM()
		testnet.Check(t, err)
		return &Trainer{Net: n, Run: vm.RunAll, Solver: s}
	}
	tr, other := build(), build()
	tr.Steps(t, 7)
	file := saved(t, tr.Solver)
	other.Steps(t, 3)
	testnet.Check(t, other.Run())
	testnet.Check(t, other.Solver.Load(bytes.NewReader(file)))
	if err := other.Solver.Step(other.ValueGrads()); !errors.Is(err, ErrStale) {
		t.Fatalf("a step after Load without RunAll: %v", err)
	}
	other.Steps(t, 8)
	tr.Steps(t, 8)
	sameTraining(t, other, tr)
	testnet.Check(t, tr.Solver.Load(bytes.NewReader(file))) // back in the same process
	tr.Steps(t, 8)
	sameTraining(t, tr, other)
}

// A pending inverse is waited for, saved, and used when it is due.
func TestSavePending(t *testing.T) {
	opts := []Option{WithInverseUpdatePeriod(6), WithBackgroundInverses(5), WithLearningRate(0.05)}
	tr, other := NewTrainer(t, testnet.FourLayers(), opts...), NewTrainer(t, testnet.FourLayers(), opts...)
	pending := 0
	for range 12 {
		tr.Steps(t, 1)
		testnet.Check(t, other.Solver.Load(bytes.NewReader(saved(t, tr.Solver))))
		if a, b := len(trainingOf(tr).background.jobs), len(trainingOf(other).background.jobs); a != b {
			t.Fatalf("%d jobs pending, want %d", b, a)
		} else {
			pending += a
		}
	}
	if pending == 0 {
		t.Fatal("nothing was pending")
	}
}

// SaveFile replaces a file at once or not at all.
func TestSaveFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	tr := NewTrainer(t, testnet.FourLayers())
	tr.Steps(t, 2)
	testnet.Check(t, tr.Solver.SaveFile(path))
	first, err := os.ReadFile(path)
	testnet.Check(t, err)
	if !bytes.Equal(first, saved(t, tr.Solver)) {
		t.Fatal("the file is another")
	}
	testnet.Check(t, tr.Run())
	testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()))
	if err := tr.Solver.SaveFile(path); !errors.Is(err, ErrInUpdate) {
		t.Fatal(err)
	}
	names, err := filepath.Glob(path + "*")
	testnet.Check(t, err)
	if now, _ := os.ReadFile(path); !bytes.Equal(now, first) || len(names) != 1 {
		t.Fatalf("a failed save has left another file: %v", names)
	}
	tr.Steps(t, 1)
	testnet.Check(t, tr.Solver.LoadFile(path))
	if !bytes.Equal(saved(t, tr.Solver), first) {
		t.Fatal("the state is another")
	}
	var state *StateError
	if err := tr.Solver.LoadFile(path + "2"); !errors.As(err, &state) || !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, bad := range []string{filepath.Join(path, "in a file"), filepath.Dir(path), ""} {
		if err := tr.Solver.SaveFile(bad); !errors.As(err, &state) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
	var config *ConfigError
	for _, err := range []error{tr.Solver.Save(nil), tr.Solver.Load(nil)} {
		if !errors.As(err, &config) {
			t.Fatal(err)
		}
	}
}

// transient are the fields that are no state: settings, what belongs to a graph, scratch, and what
// a step makes anew. A field that is new has to be saved, or to be named here.
var transient = map[string]string{
	"training": "cfg start graph plan sampler low quadratic background inner aside averaged loadedLate calling " +
		"watcher probes chunks unreached ranks",
	"parameter":   "key place extents own given aside memory weights before accumulated unused",
	"block":       "Block name groups v u rows home",
	"group":       "params names shape at apart places previous picked",
	"coordinates": "",
	"planned": "report model layers places blocks hooks blocksOf unreduced undecided path reach " +
		"inverseOperations iterationOperations allOperations",
	"graph": "cost heads whole costRun models seed machine used saved drawn hessians",
	"job":   "averages inversion done panicked collected exchanged",
	"noise": "", "evidence": "", "control": "", "progress": "", "odd": "", "skipped": "",
	"heading": "",
	"turned":  "",
}

// stateful are the fields that Save writes.
var stateful = map[string]string{
	"training":    "progress",
	"parameter":   "previous heading mean averages",
	"heading":     "apart sum",
	"block":       "inverse",
	"group":       "coords",
	"coordinates": "settled shift scale unit",
	"planned":     "params frozen order absent oneHot divided stored jobs",
	"graph":       "tail loaded units blockForm",
	"job":         "due inverse err",
	"noise":       "evidence factor curvature stretch approximate fresh",
	"evidence":    "gain bend steps fit weight",
	"control":     "lambda gamma noise mismatch doubt trace",
	"progress":    "control steps runs rebuilt odd skipped turned",
	"odd":         "again",
	"skipped":     "all inRow",
	"turned":      "is value",
}

func TestNoStateIsForgotten(t *testing.T) {
	for name, of := range map[string]any{"training": training[float64]{}, "parameter": parameter[float64]{},
		"block": block[float64]{}, "group": group[float64]{}, "coordinates": coordinates[float64]{},
		"planned": planned[float64]{}, "graph": graph[float64]{}, "job": job[float64]{}, "noise": noise{},
		"evidence": evidence{}, "control": control{}, "progress": progress{}, "odd": odd{},
		"skipped": skipped{}, "heading": heading[float64]{}, "turned": turned{}} {
		known := strings.Fields(transient[name] + " " + stateful[name])
		var fields []string
		for i := range reflect.TypeOf(of).NumField() {
			fields = append(fields, reflect.TypeOf(of).Field(i).Name)
		}
		slices.Sort(known)
		slices.Sort(fields)
		if !slices.Equal(known, fields) {
			t.Errorf("%s has the fields %v; the lists of this test have %v: is what is new saved (resume.go)?", name,
				fields, known)
		}
	}
}

// The settings that are compared are all that change a training.
func TestNoSettingIsForgotten(t *testing.T) {
	const others = "rateOptions modelOptions gradientCheck strict unreached onStats logger standardises " +
		"layerStats recorders ranks placement sameWeights"
	n := 0
	for i := range reflect.TypeOf(config{}).NumField() {
		if f := reflect.TypeOf(config{}).Field(i); !slices.Contains(strings.Fields(others), f.Name) {
			changed := defaults()
			alter(reflect.NewAt(f.Type, reflect.ValueOf(&changed).Elem().Field(i).Addr().UnsafePointer()).Elem())
			before := defaults()
			if slices.Equal(before.settings(), changed.settings()) {
				t.Errorf("a state does not tell %s", f.Name)
			}
			n++
		}
	}
	if n < 25 {
		t.Fatal(n)
	}
}

// alter gives a value another one.
func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int:
		v.SetInt(v.Int() + 1)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Float64:
		v.SetFloat(1 / (3 + v.Float()))
	case reflect.String:
		v.SetString(v.String() + " or other")
	case reflect.Array:
		v.Index(0).Set(reflect.ValueOf(Constant(1)))
	case reflect.Slice:
		v.Set(reflect.ValueOf(paramGroups{{option: "WithGroup", own: asAll()}}))
	case reflect.Interface:
		v.Set(reflect.ValueOf(gorgonia.NewVanillaSolver()))
	default:
		panic(fmt.Sprintf("a setting of type %v", v.Type()))
	}
}

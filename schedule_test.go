package kfac_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The sizes of mini-batches are those in the logs of the paper's authors (MNIST, FACES and CURVES
// with the settings of section 13).
func TestGrowingBatchOfTheAuthors(t *testing.T) {
	mnist := kfac.GrowingBatch{First: 1000, All: 60000, FullAt: 500}
	for k, want := range map[int]int{
		1: 1000, 2: 1008, 3: 1016, 5: 1033, 10: 1076, 20: 1168, 40: 1377, 50: 1494, 60: 1622, 80: 1912, 100: 2253,
		120: 2654, 150: 3395, 160: 3686,
		200: 5118, 250: 7714, 300: 11626, 400: 26412, 499: 59509, 500: 60000, 501: 60000, 1500: 60000,
		math.MaxInt: 60000,
	} {
		if got := mnist.Size(k); got != want {
			t.Errorf("MNIST: update %d has %d cases, want %d", k, got, want)
		}
	}
	for _, log := range []struct{ all, cases int }{{60000, 7220935}, {103500, 11076281}, {20000, 3175091}} {
		g := kfac.GrowingBatch{First: 1000, All: log.all, FullAt: 500}
		sum := 0
		for k := 1; k <= 500; k++ {
			sum += g.Size(k)
		}
		if sum != log.cases {
			t.Errorf("%d cases in the first 500 updates of a training set of %d, the log has %d",
				sum, log.all, log.cases)
		}
	}
}

// m_k = First exp((k-1)/b), b = (FullAt-1) / log(All/First), rounded down.
func TestGrowingBatchIsExponential(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := kfac.GrowingBatch{First: rapid.IntRange(1, 5000).Draw(t, "first"),
			FullAt: rapid.IntRange(2, 5000).Draw(t, "full at")}
		g.All = rapid.IntRange(g.First, 1000000).Draw(t, "all")
		k := rapid.IntRange(1, g.FullAt).Draw(t, "update")
		exact := float64(g.First) * math.Exp(float64(k-1)/float64(g.FullAt-1)*math.Log(float64(g.All)/float64(g.First)))
		if got := float64(g.Size(k)); got > exact*(1+1e-12)+1e-6 || got <= exact*(1-1e-12)-1-1e-6 {
			t.Errorf("%+v: update %d has %g cases, want %g rounded down", g, k, got, exact)
		}
		if g.Size(1) != g.First || g.Size(g.FullAt) != g.All {
			t.Errorf("%+v: from %d to %d cases", g, g.Size(1), g.Size(g.FullAt))
		}
		if a, b := g.Size(k), g.Size(k+1); a > b {
			t.Errorf("%+v: update %d has %d cases, the next %d", g, k, a, b)
		}
	})
}

// Whatever the fields are, there is a batch of the training set, and a number of chunks.
func TestOddGrowingBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		extreme := rapid.SampledFrom([]int{0, 1, -1, 2, math.MaxInt, math.MinInt, math.MaxInt - 1, math.MaxInt32})
		odd := rapid.OneOf(extreme, rapid.IntRange(-10, 2000), rapid.Int())
		g := kfac.GrowingBatch{First: odd.Draw(t, "first"), All: odd.Draw(t, "all"), FullAt: odd.Draw(t, "full at")}
		k, size := odd.Draw(t, "update"), odd.Draw(t, "chunk")
		if got := g.Size(k); got < 1 || got > max(g.All, 1) {
			t.Errorf("%+v: update %d has %d cases", g, k, got)
		}
		if got := g.Chunks(k, size); got < 1 {
			t.Errorf("%+v: update %d has %d chunks of %d", g, k, got, size)
		}
	})
	whole := kfac.GrowingBatch{First: 50, All: 300, FullAt: 1}
	if got := whole.Size(1); got != 300 {
		t.Errorf("full from the first update on: %d cases, want 300", got)
	}
	if got := (kfac.GrowingBatch{First: 500, All: 300, FullAt: 10}).Size(1); got != 300 {
		t.Errorf("a first batch larger than the training set: %d cases, want 300", got)
	}
}

// No other number of chunks comes nearer.
func TestChunksOfAGrowingBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := kfac.GrowingBatch{First: rapid.IntRange(1, 500).Draw(t, "first"),
			All: rapid.IntRange(1, 5000).Draw(t, "all")}
		g.FullAt = rapid.IntRange(1, 50).Draw(t, "full at")
		k, size := rapid.IntRange(1, 60).Draw(t, "update"), rapid.IntRange(1, 700).Draw(t, "chunk")
		off := func(n int) int { d := n*size - g.Size(k); return max(d, -d) }
		n := g.Chunks(k, size)
		if n < 1 || off(n) > off(n+1) || n > 1 && off(n) > off(n-1) {
			t.Errorf("%d chunks of %d for %d cases", n, size, g.Size(k))
		}
	})
}

// useAverage is UseAverage without an error.
func useAverage(t *testing.T, s *kfac.Solver) (restore func()) {
	t.Helper()
	restore, err := s.UseAverage()
	if err != nil {
		t.Fatal(err)
	}
	return restore
}

// fadedAverage is the iterate average of the list of iterates, which starts at one of them: the
// plain mean of the first 1/(1-xi), which then fades.
func fadedAverage(iterates [][]float64, xi float64) []float64 {
	mean := make([]float64, len(iterates[0]))
	plain := min(int(math.Round(1/(1-xi))), len(iterates))
	for k, theta := range iterates {
		weight := 1 / float64(plain)
		if k >= plain {
			weight = 1 - xi
		}
		weight *= math.Pow(xi, float64(len(iterates)-max(k+1, plain)))
		for i, v := range theta {
			mean[i] += weight * v
		}
	}
	return mean
}

func TestIterateAverage(t *testing.T) {
	for _, c := range []struct {
		xi   float64
		from int
		opts []kfac.Option
	}{
		{0.9, 1, nil}, {0.99, 1, nil}, {0.5, 4, nil}, {0.8, 7, byRate()},
		{0.9, 3, []kfac.Option{kfac.WithStepRejection(), kfac.WithL2Reg(0.01)}},
	} {
		t.Run(fmt.Sprintf("%g from step %d", c.xi, c.from), func(t *testing.T) {
			tr := classifier(t, append(c.opts, kfac.WithIterateAveraging(c.xi, c.from))...)
			twin := classifier(t, c.opts...)
			solver := tr.Solver
			var iterates [][]float64
			for k := 1; k <= 30; k++ {
				tr.Steps(t, 1)
				twin.Steps(t, 1)
				testnet.SameBits(t, "with and without the average, weights", testnet.Weights(tr.Params),
					testnet.Weights(twin.Params))
				if k < c.from {
					continue
				}
				now := testnet.Weights(tr.Params)
				iterates = append(iterates, now)
				restore := useAverage(t, solver)
				testnet.Near(t, fmt.Sprintf("average at step %d",
					k), testnet.Weights(tr.Params), fadedAverage(iterates, c.xi), 1e-13)
				restore()
				testnet.SameBits(t, "weights that were restored", testnet.Weights(tr.Params), now)
			}
			if d := testnet.Distance(fadedAverage(iterates, c.xi), iterates[len(iterates)-1]); d < 1e-3 {
				t.Errorf("the average is the last iterate but for %g", d)
			}
		})
	}
}

// Tensors and scalars of both dtypes: the model runs with the average and, once restored, with what
// it had.
func TestAverageOfTensorsAndScalars(t *testing.T) {
	t.Run("float64", testAverage[float64])
	t.Run("float32", testAverage[float32])
}

func testAverage[T testnet.Float](t *testing.T) {
	const xi = 0.9
	m := testnet.ScaledOutputs[T]()
	tr := kfac.NewTrainer(t, m, kfac.WithIterateAveraging(xi, 1))
	evaluate := func() float64 {
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			g, err := p.Grad()
			if err != nil {
				t.Fatal(err)
			}
			switch g := g.(type) {
			case *gorgonia.F64:
				*g = 0
			case *gorgonia.F32:
				*g = 0
			case *tensor.Dense:
				g.Zero()
			}
		}
		return testnet.Numbers(m.Cost.Value())[0]
	}
	var iterates [][]float64
	for range 15 {
		tr.Steps(t, 1)
		iterates = append(iterates, testnet.Weights(m.Params))
	}
	trained := evaluate()
	tol := 1e-13
	if testnet.Dtype[T]() == tensor.Float32 {
		tol = 1e-6
	}
	for range 2 {
		restore := useAverage(t, tr.Solver)
		testnet.Near(t, "average", testnet.Weights(m.Params), fadedAverage(iterates, xi), tol)
		if averaged := evaluate(); averaged == trained {
			t.Errorf("the model costs %g with the average too", averaged)
		}
		restore()
		testnet.SameBits(t, "weights that were restored", testnet.Weights(m.Params), iterates[len(iterates)-1])
		if again := evaluate(); again != trained {
			t.Errorf("the model costs %g with the weights that were restored, before %g", again, trained)
		}
	}
	tr.Steps(t, 2)
}

// While the average is in use there is no step and no chunk; afterwards the training goes on as if
// nothing had been. To restore twice is harmless.
func TestNoStepsWithTheAverage(t *testing.T) {
	option := kfac.WithIterateAveraging(0.9, 2)
	tr, twin := classifier(t, option), classifier(t, option)
	solver := tr.Solver
	tr.Steps(t, 4)
	twin.Steps(t, 4)
	for range 3 {
		restore := useAverage(t, solver)
		if err := tr.Run(); err != nil {
			t.Fatal(err)
		}
		before := stateOf(twin.Params, tr, solver)
		refused(t, attempt(t, func() error { return solver.Step(tr.ValueGrads()) }), kfac.ErrAveraged, "UseAverage")
		refused(t, attempt(t, func() error {
			return solver.Accumulate(tr.ValueGrads())
		}), kfac.ErrAveraged, "UseAverage")
		again, err := solver.UseAverage()
		var ce *kfac.ConfigError
		if again != nil || !errors.As(err, &ce) {
			t.Errorf("a second UseAverage: %v", err)
		}
		before.unchanged(t, twin.Params, tr, solver)
		restore()
		restore()
		testnet.SameBits(t, "weights that were restored", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
		testnet.ZeroGradients(tr.Params)
		for range 3 {
			tr.Steps(t, 1)
			restore() // of before
			twin.Steps(t, 1)
			testnet.SameBits(t, "afterwards, weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
		}
		a, b := solver.Stats(), twin.Solver.Stats()
		if !kfac.SameStats(a, b) {
			t.Errorf("afterwards: %+v, want %+v", a, b)
		}
	}
}

// The average may be used between the chunks of an update.
func TestAverageBetweenChunks(t *testing.T) {
	option := kfac.WithIterateAveraging(0.9, 1)
	tr, twin := classifier(t, option), classifier(t, option)
	for _, use := range []*kfac.Trainer{tr, twin} {
		solver := use.Solver
		use.Steps(t, 3)
		if err := use.Run(); err != nil {
			t.Fatal(err)
		}
		if err := solver.Accumulate(use.ValueGrads()); err != nil {
			t.Fatal(err)
		}
		if use == tr {
			useAverage(t, solver)()
		}
		use.Steps(t, 2)
	}
	testnet.SameBits(t, "weights", testnet.Weights(tr.Params), testnet.Weights(twin.Params))
}

// Without the option, or before the average has begun, there is none to use, and nothing changes.
func TestNoAverage(t *testing.T) {
	for name, opts := range map[string][]kfac.Option{"no option": nil,
		"before it begins": {kfac.WithIterateAveraging(0.9, 5)}} {
		tr := classifier(t, opts...)
		for range 4 {
			tr.Steps(t, 1)
			before := testnet.Weights(tr.Params)
			restore, err := tr.Solver.UseAverage()
			var ce *kfac.ConfigError
			if restore != nil || !errors.As(err, &ce) || ce.Setting != "UseAverage" || ce.Got == "" || ce.Want == "" {
				t.Errorf("%s: error %v", name, err)
			}
			testnet.SameBits(t, name+", weights", testnet.Weights(tr.Params), before)
		}
	}
}

// A parameter that a step is not given stays where it is, and so it enters its average.
func TestAverageOfAParameterThatIsLeftOut(t *testing.T) {
	const xi = 0.8
	tr := classifier(t, kfac.WithIterateAveraging(xi, 1))
	all := tr.Params
	var iterates [][]float64
	for k := range 14 {
		tr.Params = all
		if k%3 == 1 {
			tr.Params = all[:2]
		}
		tr.Steps(t, 1)
		testnet.ZeroGradients(all)
		iterates = append(iterates, testnet.Weights(all))
	}
	useAverage(t, tr.Solver)
	testnet.Near(t, "average", testnet.Weights(all), fadedAverage(iterates, xi), 1e-13)
}

// What was never trained has no average: it stays as it is.
func TestAverageLeavesTheOthersAlone(t *testing.T) {
	tr := classifier(t, kfac.WithIterateAveraging(0.9, 1))
	others := append(gorgonia.Nodes(nil), tr.Params[2:]...)
	tr.Params = tr.Params[:2]
	tr.Steps(t, 5)
	before := testnet.Weights(others)
	restore := useAverage(t, tr.Solver)
	testnet.SameBits(t, "weights that are not trained", testnet.Weights(others), before)
	restore()
	testnet.SameBits(t, "weights that are not trained", testnet.Weights(others), before)
}

// A parameter that joins the list later has the average of its iterates from then on.
func TestAverageOfAParameterThatJoinsLater(t *testing.T) {
	const xi = 0.8
	tr := classifier(t, kfac.WithIterateAveraging(xi, 1))
	all := tr.Params
	tr.Params = all[:2]
	tr.Steps(t, 6)
	testnet.ZeroGradients(all)
	tr.Params = all
	var iterates [][]float64
	for range 4 {
		tr.Steps(t, 1)
		iterates = append(iterates, testnet.Weights(all[2:]))
	}
	useAverage(t, tr.Solver)
	testnet.Near(t, "average", testnet.Weights(all[2:]), fadedAverage(iterates, xi), 1e-13)
}

// The average of a parameter that a step is not given follows the user's tensor too.
func TestAverageFollowsTheTensorsLeftOut(t *testing.T) {
	tr := classifier(t, kfac.WithIterateAveraging(0.5, 1))
	all := tr.Params
	tr.Steps(t, 3)
	other := tensor.New(tensor.WithShape(all[2].Shape()...),
		tensor.WithBacking(tensor.Range(tensor.Float64, 0, all[2].Shape().TotalSize())))
	if err := gorgonia.Let(all[2], other); err != nil {
		t.Fatal(err)
	}
	tr.Params = all[:2]
	tr.Steps(t, 60) // of what was before, nothing is left
	useAverage(t, tr.Solver)
	testnet.Near(t, "average", testnet.Weights(all[2:3]), testnet.Numbers(other), 1e-13)
}

// What an earlier UseAverage returned does nothing while a later one is in use.
func TestRestoreOfAnEarlierAverage(t *testing.T) {
	tr := classifier(t, kfac.WithIterateAveraging(0.9, 1))
	solver := tr.Solver
	tr.Steps(t, 3)
	earlier := useAverage(t, solver)
	earlier()
	tr.Steps(t, 3)
	before := testnet.Weights(tr.Params)
	later := useAverage(t, solver)
	averaged := testnet.Weights(tr.Params)
	earlier()
	testnet.SameBits(t, "weights in use", testnet.Weights(tr.Params), averaged)
	later()
	testnet.SameBits(t, "weights that were restored", testnet.Weights(tr.Params), before)
}

// Weights in other tensors, which the user has given to the graph between the steps, and in a view
// and in column-major order.
func TestAverageFollowsTheTensors(t *testing.T) {
	const xi, cases, out, wide = 0.9, 12, 2, 5
	surroundings := tensor.New(tensor.WithShape(cases, wide),
		tensor.WithBacking(tensor.Range(tensor.Float64, 0, cases*wide)))
	view, err := surroundings.Slice(nil, gorgonia.S(1, 1+out))
	if err != nil {
		t.Fatal(err)
	}
	m := testnet.Offsets()
	tr := kfac.NewTrainer(t, m, kfac.WithIterateAveraging(xi, 1))
	move := func(name string, storage *tensor.Dense, by float64) {
		p := m.Input(name)
		contents := testnet.Numbers(p.Value())
		testnet.EachElement(storage, func(at, i int) { storage.Set(at, contents[i]+by) })
		if err := gorgonia.Let(p, storage); err != nil {
			t.Fatal(err)
		}
	}
	var iterates [][]float64
	step := func() {
		tr.Steps(t, 1)
		iterates = append(iterates, testnet.Weights(m.Params))
	}
	step()
	move("a", view.(*tensor.Dense), 0)
	step()
	old := m.Input("w").Value()
	move("w", tensor.New(tensor.WithShape(3, out), tensor.Of(tensor.Float64)), 0.5)
	move("b", tensor.New(tensor.WithShape(cases, out), tensor.Of(tensor.Float64), tensor.AsFortran(nil)), -0.5)
	before := testnet.Numbers(old)
	step()
	step()
	restore := useAverage(t, tr.Solver)
	testnet.Near(t, "average", testnet.Weights(m.Params), fadedAverage(iterates, xi), 1e-12)
	restore()
	testnet.SameBits(t, "weights that were restored", testnet.Weights(m.Params), iterates[len(iterates)-1])
	testnet.SameBits(t, "the tensor that was replaced", testnet.Numbers(old), before)
	move("w", tensor.New(tensor.WithShape(3, out), tensor.Of(tensor.Float64)), 1) // after the last step
	last := testnet.Weights(m.Params)
	restore = useAverage(t, tr.Solver)
	testnet.Near(t, "average", testnet.Weights(m.Params), fadedAverage(iterates, xi), 1e-12)
	restore()
	testnet.SameBits(t, "weights that were restored", testnet.Weights(m.Params), last)
	for i, v := range testnet.Numbers(surroundings) {
		if col := i % wide; (col < 1 || col >= 1+out) && v != float64(i) {
			t.Errorf("element %d beside the view is %g, was %d", i, v, i)
		}
	}
}

// Averages of noisy iterates are nearer to the optimum than the iterates: the least squares
// solution that small batches jump around.
func TestAverageIsBetterThanTheIterates(t *testing.T) {
	const in, out, batch = 4, 2, 8
	rng := rand.New(rand.NewPCG(6, 6))
	m := testnet.NewMLP[float64](1, testnet.Shape{Cases: batch, Widths: []int{in, out}}, testnet.SquaredError)
	opts := byRate(kfac.WithMomentum(0), kfac.WithIterateAveraging(0.99, 60), kfac.WithNormConstraint(math.Inf(1)))
	tr := kfac.NewTrainer(t, m, opts...)
	optimum := make([]float64, in*out+out) // y is noise
	for range 300 {
		copy(m.X.Value().Data().([]float64), testnet.Normals(rng, batch*in, 1))
		copy(m.Y.Value().Data().([]float64), testnet.Normals(rng, batch*out, 1))
		tr.Steps(t, 1)
	}
	last := norm(minus(testnet.Weights(m.Params), optimum))
	useAverage(t, tr.Solver)
	if mean := norm(minus(testnet.Weights(m.Params), optimum)); !(mean < 0.6*last) {
		t.Errorf("the average is %g from the optimum, the last iterate %g", mean, last)
	}
}

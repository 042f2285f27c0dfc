package program

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

func TestOps(t *testing.T) {
	for _, c := range opCases {
		h := fnv.New64a()
		h.Write([]byte(c.name))
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { checkOp[float64](t, c, h.Sum64()) })
			t.Run("float32", func(t *testing.T) { checkOp[float32](t, c, h.Sum64()) })
		})
	}
}

func checkOp[T Float](t *testing.T, c opCase, seed uint64) {
	b := newBuilder(dtypeOf[T](), seed)
	s := prepare[T](t, b, c.graph(b))
	for _, n := range s.p.Nodes {
		if _, opaque := n.Op.(Opaque); opaque {
			t.Errorf("%v (%T) was not recognised", n.Op, n.Src.Op())
		}
	}
	for range 2 { // the second time with other values in the same buffers
		got := s.forward(nil)
		compare(t, "value", got, s.wantValue(c, b, seed), 4*precisionOf[T]().value)
		s.checkDerivatives(b.rng)
		b.redraw()
	}
}

// wantValue is the value by other means than the program.
func (s *prepared[T]) wantValue(c opCase, b *builder, seed uint64, opts ...gorgonia.VMOpt) []float64 {
	s.Helper()
	x := make([][]float64, len(b.vars))
	for i, v := range b.vars {
		x[i] = slices.Clone(float64s(v.node.Value().Data()))
	}
	if c.naive != nil {
		return c.naive(x)
	}
	fresh := newBuilder(b.dt, seed)
	out := c.graph(fresh)
	for i, v := range fresh.vars {
		fresh.set(v.node, x[i])
	}
	return tapeValue(s.T, fresh.g, out, opts...)
}

func TestDropout(t *testing.T) {
	const n, p = 10000, 0.3
	b := newBuilder(tensor.Float64, 1)
	out := must(gorgonia.Dropout(b.positive(n), p))
	s := prepare[float64](t, b, out)
	y := s.forward(nil)
	x := s.r.Value(s.vars[0]).Data
	g := random[float64](b.rng, n)
	grad, tan := s.reverse(g)[0], s.tangent([][]float64{g})
	kept := 0
	for i := range y {
		want := 0.0
		if y[i] != 0 {
			kept++
			want = 1 / (1 - p)
		}
		if !near(y[i], want*x[i], 1e-12) || !near(grad[i], want*g[i], 1e-12) || tan[i] != grad[i] {
			t.Fatalf("element %d: value %v of %v, gradient %v and tangent %v of %v",
				i, y[i], x[i], grad[i], tan[i], g[i])
		}
	}
	if sd := math.Sqrt(n * p * (1 - p)); math.Abs(float64(kept)-n*(1-p)) > 5*sd {
		t.Errorf("%d of %d elements were kept, want about %v", kept, n, n*(1-p))
	}
	s.r.Reseed(8)
	if slices.Equal(y, s.forward(nil)) {
		t.Error("two seeds draw the same mask")
	}
	s.r.Reseed(7)
	if !slices.Equal(y, s.forward(nil)) {
		t.Error("one seed draws different masks")
	}
	if again := prepare[float64](t, b, out); !slices.Equal(y, again.forward(nil)) {
		t.Error("two runs with the same seed draw different masks")
	}
	out.Op().(gorgonia.TrainModeOp).SetTraining(false)
	if !slices.Equal(s.forward(nil), x) || !slices.Equal(s.reverse(g)[0], g) ||
		!slices.Equal(s.tangent([][]float64{g}), g) {
		t.Error("not the identity when not training")
	}

	b = newBuilder(tensor.Float32, 1)
	none := prepare[float32](t, b, must(gorgonia.Dropout(b.x(5), 0)))
	if !slices.Equal(none.forward(nil), none.r.Value(none.vars[0]).Data) {
		t.Error("not the identity with probability 0")
	}
}

func TestRandom(t *testing.T) {
	const n = 20000
	graph := gorgonia.NewGraph // one each, since Gorgonia makes one node of several random nodes of the same shape
	for _, c := range []struct {
		node         *gorgonia.Node
		mean, sd     float64
		lowest, most float64
	}{
		{gorgonia.UniformRandomNode(graph(), tensor.Float64, 2, 5, n), 3.5, 3 / math.Sqrt(12), 2, 5},
		{gorgonia.GaussianRandomNode(graph(), tensor.Float64, -1, 2, n), -1, 2, math.Inf(-1), math.Inf(1)},
		{gorgonia.BinomialRandomNode(graph(), tensor.Float64, 7, 0.4, n), 2.8, math.Sqrt(7 * 0.4 * 0.6), 0, 7},
	} {
		out := must(gorgonia.Square(c.node))
		s := prepare[float64](t, &builder{}, out)
		s.forward(nil)
		x := slices.Clone(s.r.Value(s.p.Node(c.node)).Data)
		m := mean(x)
		var v float64
		for _, x := range x {
			v += (x - m) * (x - m) / n
		}
		name := s.p.Node(c.node).Op.String()
		low, high := slices.Min(x), slices.Max(x)
		if !near(m, c.mean, 5*c.sd/math.Sqrt(n)) || !near(math.Sqrt(v), c.sd, 0.05*c.sd) ||
			low < c.lowest || high > c.most {
			t.Errorf("%s: mean %v, standard deviation %v, from %v to %v", name, m, math.Sqrt(v), low, high)
		}
		s.r.Reseed(8)
		s.forward(nil)
		if slices.Equal(x, s.r.Value(s.p.Node(c.node)).Data) {
			t.Errorf("%s: two seeds draw the same", name)
		}
	}
}

// Some of the cases draw what they draw in the whole batch, in another program of the node too.
func TestDrawsOfCases(t *testing.T) {
	const cases, width, p = 6, 50, 0.4
	b := newBuilder(tensor.Float64, 1)
	x := b.positive(cases, width)
	dropped := must(gorgonia.Dropout(x, p))
	out := must(gorgonia.Add(dropped, gorgonia.GaussianRandomNode(b.g, tensor.Float64, 0, 1, cases, width)))
	s := prepare[float64](t, b, out)
	all := slices.Clone(s.forward(nil))
	rows := []int{4, 0, 5}
	some := s.forward(rows)
	for i, row := range rows {
		if !slices.Equal(some[i*width:(i+1)*width], all[row*width:(row+1)*width]) {
			t.Errorf("case %d draws otherwise than in the whole batch", row)
		}
	}
	other := prepare[float64](t, b, must(gorgonia.Sum(out)))
	other.forward(nil)
	if !slices.Equal(other.r.Value(other.p.Node(out)).Data, all) {
		t.Error("another program draws otherwise")
	}
}

// Modes stand in for the settings of the ops, which stay as they are.
func TestModes(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	dropped := must(gorgonia.Dropout(b.positive(40), 0.5))
	s := prepare[float64](t, b, dropped)
	s.r.SetMode(Evaluation)
	if y := s.forward(nil); !slices.Equal(y, s.r.Value(s.vars[0]).Data) {
		t.Error("Dropout drops in an evaluation")
	}
	dropped.Op().(gorgonia.TrainModeOp).SetTraining(false)
	s.r.SetMode(Training)
	if !slices.Contains(s.forward(nil), 0) {
		t.Error("Dropout does not drop while training")
	}
}

// MoveStatistics moves running statistics as Gorgonia's tape machine does.
func TestMoveStatistics(t *testing.T) {
	t.Run("float64", testMoveStatistics[float64])
	t.Run("float32", testMoveStatistics[float32])
}

func testMoveStatistics[T Float](t *testing.T) {
	for _, shape := range [][]int{{4, 3}, {3, 2, 2, 3}} {
		build := func() (*builder, *gorgonia.Node, *gorgonia.BatchNormOp) {
			b := newBuilder(dtypeOf[T](), 3)
			scale := []int{1, shape[1], 1, 1}[:len(shape)]
			out, _, _, op, err := gorgonia.BatchNorm(b.x(shape...), b.x(scale...), b.x(scale...), 0.3, 1e-3)
			return b, must(out, err), op
		}
		b, _, want := build()
		vm := gorgonia.NewTapeMachine(b.g)
		b2, out, got := build()
		if err := got.SetTraining(true); err != nil { // which resets them, as making the machine does
			t.Fatal(err)
		}
		s := prepare[T](t, b2, out)
		for range 3 {
			if err := vm.RunAll(); err != nil {
				t.Fatal(err)
			}
			vm.Reset()
			s.forward(nil)
			if err := s.r.MoveStatistics(); err != nil {
				t.Fatal(err)
			}
		}
		wantMean, wantVariance := want.Stats()
		mean, variance := got.Stats()
		tolerance := 10 * precisionOf[T]().value
		compare(t, "mean", float64s(mean.Data()), float64s(wantMean.Data()), tolerance)
		compare(t, "variance", float64s(variance.Data()), float64s(wantVariance.Data()), tolerance)
		s.r.SetMode(Evaluation)
		s.forward(nil)
		before := slices.Clone(float64s(mean.Data()))
		if err := s.r.MoveStatistics(); err != nil || !slices.Equal(before, float64s(mean.Data())) {
			t.Errorf("an evaluation moves the running statistics (%v)", err)
		}
	}
}

func TestBatchNormRunningStatistics(t *testing.T) {
	t.Run("float64", testBatchNormRunning[float64])
	t.Run("float32", testBatchNormRunning[float32])
}

func testBatchNormRunning[T Float](t *testing.T) {
	for _, shape := range [][]int{{4, 3}, {3, 2, 2, 3}} {
		b := newBuilder(dtypeOf[T](), 3)
		scale := []int{1, shape[1], 1, 1}[:len(shape)]
		out, _, _, op, err := gorgonia.BatchNorm(b.x(shape...), b.x(scale...), b.x(scale...), 0.9, 1e-3)
		must(out, err)
		// Running statistics that are not those of the batch.
		rng := rand.New(rand.NewPCG(1, 2))
		mean := tensor.New(tensor.WithBacking(b.values(between(-0.5, 0.5)(rng, shape[1]))))
		variance := tensor.New(tensor.WithBacking(b.values(between(0.5, 2)(rng, shape[1]))))
		if err := op.SetTraining(false); err != nil {
			t.Fatal(err)
		}
		if err := op.SetStats(mean, variance); err != nil {
			t.Fatal(err)
		}
		s := prepare[T](t, b, out)
		got := s.forward(nil)
		s.checkDerivatives(b.rng)
		x, y := b.vars[0].node.Value().Data(), make([]float64, size(shape))
		gamma, beta := float64s(b.vars[1].node.Value().Data()), float64s(b.vars[2].node.Value().Data())
		for i, v := range float64s(x) {
			ch := i / size(shape[2:]) % shape[1]
			y[i] = gamma[ch]*(v-float64s(mean.Data())[ch])/math.Sqrt(float64s(variance.Data())[ch]+1e-3) + beta[ch]
		}
		compare(t, "value", got, y, 4*precisionOf[T]().value)
	}
}

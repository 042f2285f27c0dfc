package program

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A node without a name is known by its shape, and a computed one by what computes it.
func TestNameOf(t *testing.T) {
	g := gorgonia.NewGraph()
	named := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(2, 4), gorgonia.WithName("w"))
	matrix := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(2, 4))
	vector := gorgonia.NewVector(g, tensor.Float64, gorgonia.WithShape(3))
	scalar := gorgonia.NewScalar(g, tensor.Float64)
	sum := gorgonia.Must(gorgonia.Add(named, matrix))
	for want, n := range map[string]*gorgonia.Node{
		"w": named, "unnamed (2, 4)": matrix, "unnamed (3)": vector, "unnamed scalar": scalar,
		"the sum of w and unnamed (2, 4)": sum,
	} {
		if got := NameOf(n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	p, err := New([]*gorgonia.Node{sum})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Node(matrix).Name(); got != "unnamed (2, 4)" {
		t.Errorf("in a program: %q", got)
	}
}

func TestNewErrors(t *testing.T) {
	b, other := newBuilder(tensor.Float64, 1), newBuilder(tensor.Float64, 1)
	x, y := b.x(2, 3), other.x(2, 3)
	for _, c := range []struct {
		outputs []*gorgonia.Node
		want    string
	}{
		{nil, "no output node"},
		{[]*gorgonia.Node{nil}, "no output node"},
		{[]*gorgonia.Node{x, nil}, "one graph"},
		{[]*gorgonia.Node{x, y}, "one graph"},
		{[]*gorgonia.Node{b.ints(1, 2)}, "dtype int"},
		{[]*gorgonia.Node{gorgonia.NewConstant(1.0)}, "in no graph"},
	} {
		if _, err := New(c.outputs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%v): %v, want an error with %q", c.outputs, err, c.want)
		}
	}
	p, err := New([]*gorgonia.Node{x})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRun[float32](p, 0); err == nil {
		t.Error("a run in float32 of a program of float64")
	}
}

// TestCut replaces a hidden layer by a given value.
func TestCut(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	h := must(gorgonia.Tanh(must(gorgonia.Mul(b.x(4, 3), b.x(3, 2)))))
	w := b.x(2, 2)
	out := must(gorgonia.Mul(h, w))
	p, err := New([]*gorgonia.Node{out}, h)
	if err != nil {
		t.Fatal(err)
	}
	if p.Node(b.vars[0].node) != nil || !p.Node(h).IsLeaf() || len(p.Nodes) != 3 {
		t.Fatalf("the program has %d nodes, want h, w and their product", len(p.Nodes))
	}
	r, err := NewRun[float64](p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Forward(nil); err == nil {
		t.Error("no error although the cut has no value")
	}
	hidden := []float64{1, 2, 3, 4, 5, 6, 7, 8}
	if err := r.Bind(p.Node(h), hidden); err != nil {
		t.Fatal(err)
	}
	for _, rows := range [][]int{nil, {3, 1}} {
		if err := r.Forward(rows); err != nil {
			t.Fatal(err)
		}
		wv := float64s(w.Value().Data())
		var want []float64
		for i := range 4 {
			for j := range 2 {
				want = append(want, hidden[2*i]*wv[j]+hidden[2*i+1]*wv[2+j])
			}
		}
		if rows != nil {
			want = slices.Concat(want[6:8], want[2:4])
		}
		compare(t, "value", r.Value(p.Outputs[0]).Data, want, 1e-15)
	}
	if err := r.Bind(p.Node(h), hidden[:3]); err == nil {
		t.Error("a value of the wrong size was bound")
	}
	if err := r.Bind(p.Outputs[0], make([]float64, 8)); err == nil {
		t.Error("a value was bound to a node that is computed")
	}
}

// TestCases looks at the case axes that the inputs get, or at the reason why the batch can only be
// run as a whole.
func TestCases(t *testing.T) {
	type node = *gorgonia.Node
	for _, c := range []struct {
		name  string
		graph func(b *builder) node
		axes  []int // of the inputs
		whole string
	}{
		{"dense", func(b *builder) node { return dense(b, b.x(4, 3), 2, 1, 2) }, []int{0, -1, -1}, ""},
		{"weights first", func(b *builder) node {
			return must(gorgonia.Transpose(must(gorgonia.Mul(b.x(2, 3), b.x(3, 4)))))
		}, []int{-1, 1}, ""},
		{"transposed input", func(b *builder) node {
			return must(gorgonia.Mul(must(gorgonia.Transpose(b.x(3, 4))), b.x(3, 2)))
		}, []int{1, -1}, ""},
		{"bias of the whole batch", func(b *builder) node {
			return must(gorgonia.Add(b.x(4, 2), b.x(4, 2)))
		}, []int{0, 0}, ""},
		{"one column per case", func(b *builder) node {
			return must(gorgonia.BroadcastHadamardProd(b.x(4, 3), b.x(4, 1), nil, []byte{1}))
		}, []int{0, 0}, ""},
		{"steps after cases", func(b *builder) node {
			h := must(gorgonia.Mul(b.x(4*5, 3), b.x(3, 2)))
			return must(gorgonia.Reshape(h, tensor.Shape{4, 10}))
		}, []int{0, -1}, ""},
		{"cases after steps", func(b *builder) node {
			h := must(gorgonia.Reshape(must(gorgonia.Mul(b.x(5*4, 3), b.x(3, 2))), tensor.Shape{5, 4, 2}))
			return must(gorgonia.Reshape(must(gorgonia.Transpose(h, 1, 0, 2)), tensor.Shape{4, 10}))
		}, nil, "takes the cases apart"},
		{"sum of features", func(b *builder) node {
			return must(gorgonia.Reshape(must(gorgonia.Sum(b.x(4, 3, 2), 1, 2)), tensor.Shape{4, 1}))
		}, []int{0}, ""},
		{"sum of steps before cases", func(b *builder) node {
			return must(gorgonia.Sum(b.x(5, 4, 3), 0))
		}, []int{1}, ""},
		{"maximum of steps before cases", func(b *builder) node {
			return must(gorgonia.Max(b.input(kinked, 5, 4, 3), 0))
		}, []int{1}, ""},
		{"outer product", func(b *builder) node { return must(gorgonia.OuterProd(b.x(4), b.x(3))) }, []int{0, -1}, ""},
		{"batched product, cases as rows", func(b *builder) node {
			return must(gorgonia.Reshape(must(gorgonia.BatchedMatMul(b.x(1, 4, 3), b.x(1, 3, 2))), tensor.Shape{4, 2}))
		}, []int{1, -1}, ""},
		{"batched product, cases as columns", func(b *builder) node {
			y := must(gorgonia.BatchedMatMul(b.x(2, 3, 5), b.x(2, 4, 5), false, true)) // (2,3,4)
			return must(gorgonia.Transpose(y, 2, 0, 1))
		}, []int{-1, 1}, ""},
		{"scalar output", func(b *builder) node { return must(gorgonia.Sum(b.x(4, 3))) }, nil, "one case"},
		{"vector output", func(b *builder) node { return must(gorgonia.Mul(b.x(4, 3), b.x(3))) }, nil, "one case"},
		{"mean over the cases", func(b *builder) node {
			x := b.x(4, 3)
			m := must(gorgonia.Reshape(must(gorgonia.Mean(x, 0)), tensor.Shape{1, 3}))
			return must(gorgonia.BroadcastSub(x, m, nil, []byte{0}))
		}, nil, "mixes cases"},
		{"softmax over the cases", func(b *builder) node {
			return must(gorgonia.SoftMax(b.x(4, 3), 0))
		}, nil, "normalises over the cases"},
		{"slice of the cases", func(b *builder) node {
			return must(gorgonia.Slice(b.x(6, 3), s(1, 5)))
		}, nil, "slices along the cases"},
		{"end of the cases", func(b *builder) node {
			return must(gorgonia.Slice(b.x(8, 3), s(4, 8)))
		}, nil, "slices along the cases"},
		{"size of a weight", func(b *builder) node {
			return must(gorgonia.HadamardProd(b.x(4, 3), must(gorgonia.SizeOf(0, b.x(5, 2)))))
		}, []int{0, -1}, ""},
		{"all cases sliced", func(b *builder) node {
			return must(gorgonia.Slice(b.x(4, 3), s(0, 4), s(1, 3)))
		}, []int{0}, ""},
		{"concat of cases", func(b *builder) node {
			return must(gorgonia.Concat(0, b.x(2, 3), b.x(2, 3)))
		}, nil, "joins along the cases"},
		{"rows against rows", func(b *builder) node {
			x := b.x(4, 3)
			return must(gorgonia.Mul(x, must(gorgonia.Transpose(x))))
		}, nil, "mixes cases"},
		{"image", func(b *builder) node {
			h := must(gorgonia.MaxPool2D(b.x(4, 2, 4, 4), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
			return must(gorgonia.Reshape(h, tensor.Shape{4, 8}))
		}, []int{0}, ""},
		{"cases as channels", func(b *builder) node {
			h := must(gorgonia.MaxPool2D(b.x(1, 4, 2, 2), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
			return must(gorgonia.Reshape(h, tensor.Shape{4, 1}))
		}, nil, "wants the cases along axis 0"},
		{"custom op", func(b *builder) node { return must(gorgonia.ApplyOp(cubeOp, b.x(4, 3))) }, nil, "no rule"},
		{"custom op of weights", func(b *builder) node {
			return must(gorgonia.Mul(b.x(4, 3), must(gorgonia.ApplyOp(cubeOp, b.x(3, 2)))))
		}, []int{0, -1}, ""},
		{"noise", func(b *builder) node {
			return must(gorgonia.Add(b.x(4, 3), gorgonia.GaussianRandomNode(b.g, b.dt, 0, 1, 4, 3)))
		}, []int{0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(tensor.Float64, 1)
			p, err := New([]node{c.graph(b)})
			if err != nil {
				t.Fatal(err)
			}
			if c.whole == "" && p.Whole != "" || !strings.Contains(p.Whole, c.whole) {
				t.Fatalf("Whole is %q, want %q", p.Whole, c.whole)
			}
			for i, want := range c.axes {
				if got := p.Node(b.vars[i].node).CaseAxis; got != want {
					t.Errorf("cases of input %d lie along %d, want %d", i, got, want)
				}
			}
			if c.name == "vector output" { // one number for each case?
				if p, err = p.WithVectorCases(true); err != nil {
					t.Fatal(err)
				}
				c.whole = ""
				x, theta := p.Node(b.vars[0].node), p.Node(b.vars[1].node)
				if p.Whole != "" || p.Cases != 4 || x.CaseAxis != 0 || theta.CaseAxis != -1 {
					t.Errorf("vector of %d cases: %q", p.Cases, p.Whole)
				}
			}
			r, err := NewRun[float64](p, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Forward([]int{0}); (err != nil) != (c.whole != "") {
				t.Errorf("run of one case: %v", err)
			}
			if c.whole == "" && c.name != "noise" {
				s := prepared[float64]{t, p, r, nil, p.Outputs[0]}
				s.findInputs(b)
				s.checkRows(b.rng, []int{2, 0, 3})
			}
			if err := r.Forward([]int{4}); err == nil {
				t.Error("a case was run that is not there")
			}
		})
	}
}

// TestViews gives inputs tensors that are not contiguous.
func TestViews(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	x := b.x(2, 3)
	out := must(gorgonia.Square(x))
	s := prepare[float64](t, b, out)

	transposed := tensor.New(tensor.WithShape(3, 2), tensor.WithBacking([]float64{1, 4, 2, 5, 3, 6}))
	if err := transposed.T(); err != nil {
		t.Fatal(err)
	}
	big := tensor.New(tensor.WithShape(4, 5), tensor.WithBacking(tensor.Range(tensor.Float64, 0, 20)))
	view, err := big.Slice(gorgonia.S(1, 3), gorgonia.S(2, 5))
	if err != nil {
		t.Fatal(err)
	}
	column := tensor.New(tensor.AsFortran([]float64{1, 4, 2, 5, 3, 6}), tensor.WithShape(2, 3))
	for _, c := range []struct {
		name  string
		value tensor.Tensor
		want  []float64
	}{
		{"transposed", transposed, []float64{1, 4, 9, 16, 25, 36}},
		{"view", view, []float64{49, 64, 81, 144, 169, 196}},
		{"column-major", column, []float64{1, 4, 9, 16, 25, 36}},
	} {
		if err := gorgonia.Let(x, c.value); err != nil {
			t.Fatal(err)
		}
		compare(t, c.name, s.forward(nil), c.want, 0)
	}
}

// TestMovedSlice: gorgonia.UnsafeLet changes the slice of a node in place, and the runs follow.
func TestMovedSlice(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	part := must(gorgonia.Slice(b.input(always(0, 1, 2, 3, 4, 5), 6), s(1, 3)))
	s := prepare[float64](t, b, must(gorgonia.Square(part)))
	compare(t, "value", s.forward(nil), []float64{1, 4}, 0)
	if err := gorgonia.UnsafeLet(part, gorgonia.S(4, 6)); err != nil {
		t.Fatal(err)
	}
	compare(t, "value after the move", s.forward(nil), []float64{16, 25}, 0)
	compare(t, "gradient", s.reverse([]float64{1, 1})[0], []float64{0, 0, 0, 0, 8, 10}, 0)
	if err := gorgonia.UnsafeLet(part, gorgonia.S(2, 5)); err != nil {
		t.Fatal(err)
	}
	if err := s.r.Forward(nil); err == nil || !strings.Contains(err.Error(), "does not have the graph's shape") {
		t.Errorf("slice of another length: %v", err)
	}
}

// TestReadErrors: what is wrong with an input is told, with its name.
func TestReadErrors(t *testing.T) {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithShape(2, 3), gorgonia.WithName("pixels"))
	p, err := New([]*gorgonia.Node{must(gorgonia.Tanh(x))})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRun[float64](p, 0)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		err := r.Forward(nil)
		var opErr *OpError
		if !errors.As(err, &opErr) || opErr.Node != "pixels" || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want an OpError of pixels with %q", err, want)
		}
	}
	check("no value")
	bind := func(v *tensor.Dense) { // what Let would refuse
		if err := gorgonia.Let(x, tensor.New(tensor.WithShape(2, 3), tensor.Of(tensor.Float64))); err != nil {
			t.Fatal(err)
		}
		*x.Value().(*tensor.Dense) = *v
	}
	bind(tensor.New(tensor.WithShape(2, 3), tensor.Of(tensor.Float32)))
	check("dtype float32")
	bind(tensor.New(tensor.WithShape(3, 3), tensor.Of(tensor.Float64)))
	check("shape (3, 3)")
}

func TestSeedErrors(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	s := prepare[float64](t, b, must(gorgonia.Tanh(b.x(2, 3))))
	s.forward(nil)
	if err := s.r.Reverse([]Seed[float64]{{s.out, make([]float64, 5)}}, s.p.Path(s.vars...)); err == nil {
		t.Error("a gradient of the wrong size was taken")
	}
	if err := s.r.Tangent([]Seed[float64]{{s.vars[0], make([]float64, 5)}}, s.p.Path(s.vars...)); err == nil {
		t.Error("a direction of the wrong size was taken")
	}
}

// TestLookupErrors looks up what is not there.
func TestLookupErrors(t *testing.T) {
	for _, idx := range []int{3, -1} {
		b := newBuilder(tensor.Float64, 1)
		err := prepare[float64](t, b, must(gorgonia.ByIndices(b.x(3, 2), b.ints(0, idx), 0))).r.Forward(nil)
		var opErr *OpError
		if !errors.As(err, &opErr) || !strings.Contains(err.Error(), "is outside axis 0") {
			t.Errorf("index %d: %v", idx, err)
		}
	}
}

// TestIntegers moves integers about before a lookup, for all cases and for some.
func TestIntegers(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	table := b.input(always(0, 10, 20, 30, 40, 50), 6, 1)
	ids := func(name string, v ...int) *gorgonia.Node {
		return gorgonia.NewMatrix(b.g, tensor.Int, gorgonia.WithShape(3, 2), gorgonia.WithName(name),
			gorgonia.WithValue(tensor.New(tensor.WithShape(3, 2), tensor.WithBacking(v))))
	}
	both := must(gorgonia.Concat(1, ids("a", 0, 1, 2, 3, 4, 5), ids("b", 5, 4, 3, 2, 1, 0))) // (3,4)
	turned := must(gorgonia.Transpose(both))                                                 // (4,3)
	second := must(gorgonia.Slice(turned, s(1)))                                             // 1 3 5
	third := must(gorgonia.Slice(turned, s(2)))                                              // 5 3 1
	squares := must(gorgonia.Square(must(gorgonia.ByIndices(table, third, 0))))
	sum := must(gorgonia.Add(must(gorgonia.ByIndices(table, second, 0)), squares))
	s := prepare[float64](t, b, sum)
	compare(t, "value", s.forward(nil), []float64{10 + 50*50, 30 + 30*30, 50 + 10*10}, 0)
	compare(t, "value of two cases", s.forward([]int{2, 0}), []float64{50 + 10*10, 10 + 50*50}, 0)
	s.checkRows(b.rng, []int{1, 0})
}

// TestSeveralSeeds: gradients given at several nodes add up, also at a node on the way. A cost used
// twice counts twice.
func TestSeveralSeeds(t *testing.T) {
	b := newBuilder(tensor.Float64, 3)
	x := b.x(2, 2)
	h := must(gorgonia.Tanh(x))
	y, z := must(gorgonia.Square(h)), must(gorgonia.Mul(h, b.x(2, 2)))
	p, err := New([]*gorgonia.Node{y, z})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRun[float64](p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Forward(nil); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var seeds []Seed[float64]
	for _, n := range []*gorgonia.Node{y, z, h} {
		seeds = append(seeds, Seed[float64]{p.Node(n), random[float64](rng, 4)})
	}
	gradient := func(seeds ...Seed[float64]) []float64 {
		if err := r.Reverse(seeds, p.Path(p.Node(x))); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(r.Gradient(p.Node(x)))
	}
	sum := make([]float64, 4)
	for _, s := range seeds {
		for i, g := range gradient(s) {
			sum[i] += g
		}
	}
	compare(t, "gradient", gradient(seeds...), sum, 1e-14)
	if g := gradient(); maxAbs(g) != 0 {
		t.Errorf("gradient of nothing is %v", g)
	}
}

// TestSteadyState: once their buffers exist, the sweeps of a net of built-in ops allocate nothing
// but the closures of images and the axes of permutations, whatever the size of the batch. Large
// batches add the closures that are handed to the processors.
func TestSteadyState(t *testing.T) {
	for _, c := range []struct {
		name  string
		graph func(b *builder) *gorgonia.Node
		most  float64
	}{
		{"MLP", mlp, 8},
		{"convnet", convnet, 20},
		{"LSTM", lstm, 45},
	} {
		b := newBuilder(tensor.Float32, 1)
		s := prepare[float32](t, b, c.graph(b))
		path, seed := s.p.Path(s.vars...), []Seed[float32]{{s.out, s.forward(nil)}}
		dirs := []Seed[float32]{{s.vars[1], make([]float32, s.vars[1].Size())}}
		allocs := testing.AllocsPerRun(5, func() {
			if s.r.Forward(nil) != nil || s.r.Reverse(seed, path) != nil || s.r.Tangent(dirs, path) != nil {
				t.Fatal("a sweep failed")
			}
		})
		t.Logf("%s: %v allocations in a forward, a reverse and a tangent sweep of %d nodes",
			c.name, allocs, len(s.p.Nodes))
		if allocs > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, allocs, c.most)
		}
	}
}

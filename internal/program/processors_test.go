package program

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// large are graphs with so many elements that several processors share the work on each of their
// nodes, by what is special in them.
var large = map[string]func(b *builder) *gorgonia.Node{
	"images": func(b *builder) *gorgonia.Node {
		conv := must(gorgonia.Conv2d(b.x(48, 2, 30, 30), b.x(4, 2, 3, 3),
			tensor.Shape{3, 3}, []int{1, 1}, []int{1, 1}, []int{1, 1}))
		conv = must(gorgonia.BroadcastAdd(conv, b.x(1, 4, 1, 1), nil, []byte{0, 2, 3}))
		return must(gorgonia.MaxPool2D(must(gorgonia.Rectify(conv)), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	},
	"norms": func(b *builder) *gorgonia.Node {
		y, _, _, _, err := gorgonia.BatchNorm(b.x(40, 6, 20, 20), b.positive(1, 6, 1, 1), b.x(1, 6, 1, 1), 0.9, 1e-2)
		return must(y, err)
	},
	"rows": func(b *builder) *gorgonia.Node {
		h := must(gorgonia.Tanh(dense(b, b.x(500, 90), 90, 1, 90)))
		scaled := must(gorgonia.BroadcastHadamardProd(h, b.x(500, 1), nil, []byte{1}))
		return must(gorgonia.LogSoftMax(must(gorgonia.Sub(h, scaled))))
	},
	"sparse": func(b *builder) *gorgonia.Node { return must(gorgonia.Sparsemax(b.x(600, 70), 1)) },
	"moved axes": func(b *builder) *gorgonia.Node {
		x := must(gorgonia.Transpose(b.x(30, 20, 10, 8), 0, 2, 3, 1))
		return must(gorgonia.HadamardDiv(must(gorgonia.Sigmoid(x)), b.positive(30, 10, 8, 20)))
	},
}

// TestProcessorsDoNotMatter: however many processors share the work, every sweep has the same bits.
func TestProcessorsDoNotMatter(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for name, graph := range large {
		b := newBuilder(tensor.Float32, 1)
		s := prepare[float32](t, b, graph(b))
		sweeps := func(processors int) (found [][]float32) {
			runtime.GOMAXPROCS(processors)
			out := slices.Clone(s.forward(nil))
			if len(out) < 40000 {
				t.Fatalf("%s: %d elements are too few", name, len(out))
			}
			found = append(found, out)
			for _, g := range s.reverse(out) {
				found = append(found, slices.Clone(g))
			}
			var dirs []Seed[float32]
			for _, v := range s.vars {
				dirs = append(dirs, Seed[float32]{v, s.r.Value(v).Data})
			}
			if err := s.r.Tangent(dirs, s.p.Path(s.vars...)); err != nil {
				t.Fatal(err)
			}
			return append(found, slices.Clone(s.r.Directional(s.out)))
		}
		one, four := sweeps(1), sweeps(4)
		for i := range one {
			if !slices.Equal(one[i], four[i]) {
				t.Errorf("%s: result %d of %d depends on the number of processors", name, i, len(one))
			}
		}
	}
}

// A permutation puts element (i_0, i_1, ...) of the operand where its axes have gone. permuteBack
// brings it back.
func TestPermute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims := rapid.IntRange(1, 5).Draw(t, "dims")
		shape := rapid.SliceOfN(rapid.IntRange(1, 4), dims, dims).Draw(t, "shape")
		perm := rapid.Permutation(freeAxes(nil, dims)).Draw(t, "perm")
		src := make([]float64, size(shape))
		for i := range src {
			src[i] = float64(i)
		}
		permuted := make([]int, dims)
		for i, axis := range perm {
			permuted[i] = shape[axis]
		}
		want := make([]float64, len(src))
		from, to := strides(shape), strides(permuted)
		for i := range src {
			at := 0
			for axis := range dims {
				at += i / from[axis] % shape[axis] * to[slices.Index(perm, axis)]
			}
			want[at] = src[i]
		}
		got, back := make([]float64, len(src)), make([]float64, len(src))
		permute(got, src, shape, perm)
		permuteBack(back, got, shape, perm)
		if !slices.Equal(got, want) || !slices.Equal(back, src) {
			t.Fatalf("axes %v of %v: %v, want %v; and back %v", perm, shape, got, want, back)
		}
	})
}

// A rectifier is one node with the values and slopes of Gorgonia's two, also at zero, at infinity
// and at NaN. Other comparisons and products stay as they are.
func TestRectifierIsOneNode(t *testing.T) {
	x := []float64{-2, math.Copysign(0, -1), 0, 3, math.Inf(-1), math.Inf(1), math.NaN()}
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		b := newBuilder(dt, 1)
		in := b.x(len(x))
		b.set(in, x)
		y := must(gorgonia.Rectify(in))
		p, err := New([]*gorgonia.Node{y})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Nodes) != 2 {
			t.Errorf("%v: %d nodes, want the input and the rectifier", dt, len(p.Nodes))
		}
		want := tapeValue(t, b.g, y)
		if dt == tensor.Float32 {
			checkRectifier[float32](t, p, want)
		} else {
			checkRectifier[float64](t, p, want)
		}
	}
	b := newBuilder(tensor.Float64, 1)
	a, c := b.x(3), b.x(3)
	for name, y := range map[string]*gorgonia.Node{
		"another's comparison": must(gorgonia.HadamardProd(a, must(gorgonia.Gte(c, b.constant(0), true)))),
		"not with zero":        must(gorgonia.HadamardProd(a, must(gorgonia.Gte(a, b.constant(1), true)))),
		"not a constant":       must(gorgonia.HadamardProd(a, must(gorgonia.Gte(a, c, true)))),
	} {
		p, err := New([]*gorgonia.Node{y})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Outputs[0].Op.(Binary); !ok {
			t.Errorf("%s: taken for a rectifier", name)
		}
	}
}

func checkRectifier[T Float](t *testing.T, p *Program, want []float64) {
	t.Helper()
	r, err := NewRun[T](p, 1)
	if err == nil {
		err = r.Forward(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	seed := make([]T, len(want))
	for i, v := range r.Value(p.Outputs[0]).Data {
		seed[i] = 1
		if fmt.Sprint(float64(v)) != fmt.Sprint(want[i]) { // NaN equals NaN, -0 is not 0
			t.Errorf("element %d: %v, Gorgonia has %v", i, v, want[i])
		}
	}
	if err := r.Reverse([]Seed[T]{{p.Outputs[0], seed}}, p.Path(p.Nodes[0])); err != nil {
		t.Fatal(err)
	}
	if got, want := r.Gradient(p.Nodes[0]), []T{0, 1, 1, 1, 0, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("slopes %v, want %v", got, want)
	}
}

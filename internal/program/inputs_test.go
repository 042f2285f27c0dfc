package program

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// mixedInputs is a model with inputs of all kinds: matrices, vectors, scalars, floats and integers.
func mixedInputs(b *builder) *gorgonia.Node {
	ids := b.ints(4, 0, 2, 2, 1, 0)
	rows := must(gorgonia.Reshape(must(gorgonia.ByIndices(b.x(5, 2), ids, 0)), tensor.Shape{3, 4}))
	h := must(gorgonia.Mul(must(gorgonia.Concat(1, rows, b.x(3, 2))), b.x(6, 4)))
	h = must(gorgonia.BroadcastAdd(h, b.x(4), nil, []byte{0}))
	h = must(gorgonia.Tanh(must(gorgonia.Mul(h, b.positive()))))
	return must(gorgonia.Add(h, b.constant(0.25)))
}

// inputCase is a model with its inputs of integers.
type inputCase[T Float] struct {
	*prepared[T]
	b    *builder
	ints []*gorgonia.Node
}

func newInputCase[T Float](t *testing.T) *inputCase[T] {
	t.Helper()
	b := newBuilder(dtypeOf[T](), 3)
	c := &inputCase[T]{prepare[T](t, b, mixedInputs(b)), b, nil}
	for _, n := range c.p.Nodes {
		if n.IsLeaf() && n.Dtype == tensor.Int {
			c.ints = append(c.ints, n.Src)
		}
	}
	if len(c.ints) != 1 {
		t.Fatalf("%d inputs of integers, want 1", len(c.ints))
	}
	return c
}

// change gives all inputs other values: in place, or in other tensors.
func (c *inputCase[T]) change(inPlace bool) {
	rng := c.b.rng
	for _, v := range c.b.vars {
		x := v.draw(rng, size(v.node.Shape()))
		if !inPlace {
			c.b.set(v.node, x)
			continue
		}
		switch value := v.node.Value().(type) {
		case *gorgonia.F64:
			*value = gorgonia.F64(x[0])
		case *gorgonia.F32:
			*value = gorgonia.F32(x[0])
		case *tensor.Dense:
			for i := range x {
				value.Set(i, T(x[i]))
			}
		}
	}
	for _, n := range c.ints {
		ids := make([]int, n.Shape()[0])
		for i := range ids {
			ids[i] = rng.IntN(5)
		}
		if inPlace {
			copy(n.Value().Data().([]int), ids)
		} else if err := gorgonia.Let(n, tensor.New(tensor.WithShape(len(ids)), tensor.WithBacking(ids))); err != nil {
			panic(err)
		}
	}
}

func nothing(*gorgonia.Node) bool { return false }

func (c *inputCase[T]) save(in, like *Inputs[T]) {
	c.Helper()
	if err := in.Save(c.p, nothing, like); err != nil {
		c.Fatal(err)
	}
}

// using runs with saved inputs: values, gradients and tangents, of the listed cases.
func (c *inputCase[T]) using(in *Inputs[T], rows []int) (all []T) {
	c.Helper()
	c.r.Use(in)
	defer c.r.Use(nil)
	f := c.forward(rows)
	all = slices.Clone(f)
	for _, g := range c.reverse(f) {
		all = append(all, g...)
	}
	dirs := make([][]T, len(c.vars))
	for i, v := range c.vars {
		dirs[i] = slices.Clone(c.r.Value(v).Data)
	}
	return append(all, c.tangent(dirs)...)
}

func (c *inputCase[T]) same(what string, got, want []T) {
	c.Helper()
	if len(got) == 0 || !slices.Equal(got, want) {
		c.Errorf("%s: another result\ngot  %v\nwant %v", what, got, want)
	}
}

func inBothTypes(t *testing.T, test32 func(t *testing.T), test64 func(t *testing.T)) {
	t.Run("float32", test32)
	t.Run("float64", test64)
}

// Runs from saved inputs have every bit of those at the time when the inputs were saved, whatever
// has become of the user's tensors. That holds for all cases and for some.
func TestSavedInputs(t *testing.T) {
	inBothTypes(t, testSavedInputs[float32], testSavedInputs[float64])
}

func testSavedInputs[T Float](t *testing.T) {
	for _, inPlace := range []bool{true, false} {
		c := newInputCase[T](t)
		rows := []int{2, 0}
		want, wantRows := c.using(nil, nil), c.using(nil, rows)
		var in Inputs[T]
		c.save(&in, nil)
		c.same("saved", c.using(&in, nil), want)
		for range 3 {
			c.change(inPlace)
			now := c.using(nil, nil)
			if slices.Equal(now, want) {
				t.Fatal("nothing has changed")
			}
			c.same("after a change", c.using(&in, nil), want)
			c.same("some cases after a change", c.using(&in, rows), wantRows)
			c.same("the user's again", c.using(nil, nil), now)
		}
	}
}

// The saved inputs of a program serve its parts too, and those that were skipped are the user's.
func TestSavedInputsOfAPart(t *testing.T) {
	b := newBuilder(tensor.Float64, 4)
	w := b.x(3, 2)
	out := must(gorgonia.Tanh(must(gorgonia.Mul(b.x(4, 3), w))))
	cost := must(gorgonia.Sum(must(gorgonia.Square(must(gorgonia.Sub(out, b.x(4, 2)))))))
	whole, part := prepare[float64](t, b, cost), prepare[float64](t, b, out)
	wantCost, wantOut := whole.forward(nil), part.forward(nil)
	var all, but Inputs[float64]
	isWeight := func(n *gorgonia.Node) bool { return n == w }
	for in, skip := range map[*Inputs[float64]]func(*gorgonia.Node) bool{&all: nothing, &but: isWeight} {
		if err := in.Save(whole.p, skip, nil); err != nil {
			t.Fatal(err)
		}
	}
	old := slices.Clone(float64s(w.Value().Data()))
	b.redraw()
	whole.r.Use(&all)
	part.r.Use(&all)
	if !slices.Equal(whole.forward(nil), wantCost) || !slices.Equal(part.forward(nil), wantOut) {
		t.Error("another result from all that was saved")
	}
	part.r.Use(&but)
	other := part.forward(nil)
	if slices.Equal(other, wantOut) {
		t.Error("what was skipped has been saved")
	}
	b.set(w, old)
	if !slices.Equal(part.forward(nil), wantOut) {
		t.Error("another result from what was saved and the old weights")
	}

	// What a leaf is bound to comes first.
	bound := slices.Clone(old)
	bound[0]++
	part.r.Use(&all)
	if err := part.r.Bind(part.p.Node(w), bound); err != nil {
		t.Fatal(err)
	}
	got := part.forward(nil)
	if err := part.r.Bind(part.p.Node(w), nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(part.forward(nil), wantOut) {
		t.Error("another result after Bind was taken back")
	}
	b.set(w, bound)
	part.r.Use(&but)
	if want := part.forward(nil); !slices.Equal(got, want) {
		t.Errorf("bound %v, want %v", got, want)
	}
}

// Views and column-major tensors are saved by their elements.
func TestSavedViews(t *testing.T) {
	b := newBuilder(tensor.Float64, 5)
	x, w := b.x(3, 2), b.x(2, 4)
	s := prepare[float64](t, b, must(gorgonia.Mul(x, w)))
	backing := tensor.New(tensor.WithShape(4, 5), tensor.WithBacking(tensor.Range(tensor.Float64, 0, 20)))
	view, err := backing.Slice(gorgonia.S(1, 4), gorgonia.S(2, 4))
	if err != nil {
		t.Fatal(err)
	}
	columns := tensor.New(tensor.WithShape(2, 4), tensor.Of(tensor.Float64), tensor.AsFortran(nil))
	for i := range 8 {
		columns.Set(i, float64(i*i))
	}
	for n, v := range map[*gorgonia.Node]gorgonia.Value{x: view, w: columns} {
		if err := gorgonia.Let(n, v); err != nil {
			t.Fatal(err)
		}
	}
	want := s.forward(nil)
	var in Inputs[float64]
	if err := in.Save(s.p, nothing, nil); err != nil {
		t.Fatal(err)
	}
	backing.Zero()
	columns.Zero()
	s.r.Use(&in)
	if got := s.forward(nil); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s.r.Use(nil)
	if got := s.forward(nil); slices.ContainsFunc(got, func(v float64) bool { return v != 0 }) {
		t.Errorf("%v, want the user's zeros", got)
	}
}

// What is the same as in the inputs before shares their memory. What is not has memory of its own,
// whatever it had in the rounds before.
func TestSavedInputsShareMemory(t *testing.T) {
	inBothTypes(t, testSharedMemory[float32], testSharedMemory[float64])
}

func testSharedMemory[T Float](t *testing.T) {
	const sets = 4
	c := newInputCase[T](t)
	saved := make([]*Inputs[T], sets)
	for i := range saved {
		saved[i] = &Inputs[T]{}
	}
	for round := range 6 {
		var want [][]T
		var changed []map[*gorgonia.Node]bool // since the set before
		for i, in := range saved {
			var like *Inputs[T]
			changes := map[*gorgonia.Node]bool{}
			if i > 0 {
				like = saved[i-1]
			}
			for k, v := range c.b.vars { // others in each round
				if i == 0 || (i+k+round)%3 == 0 {
					changes[v.node] = true
					c.b.set(v.node, v.draw(c.b.rng, size(v.node.Shape())))
				}
			}
			for _, n := range c.ints {
				n.Value().Data().([]int)[i] = c.b.rng.IntN(5)
			}
			c.save(in, like)
			want, changed = append(want, c.using(nil, nil)), append(changed, changes)
		}
		c.change(true)
		for i, in := range saved {
			c.same(fmt.Sprintf("round %d, set %d", round, i), c.using(in, nil), want[i])
			if i == 0 {
				continue
			}
			for _, v := range c.b.vars {
				if shared := &in.floats[v.node][0] == &saved[i-1].floats[v.node][0]; shared == changed[i][v.node] {
					t.Errorf("round %d, set %d: %s shares memory: %v, has changed: %v",
						round, i, v.node.Name(), shared, changed[i][v.node])
				}
			}
		}
	}
}

// Memory is kept from one Save to the next.
func TestSaveDoesNotAllocate(t *testing.T) {
	b := newBuilder(tensor.Float64, 7)
	s := prepare[float64](t, b, must(gorgonia.Mul(b.x(300, 40), b.x(40, 30))))
	var in Inputs[float64]
	save := func() {
		if err := in.Save(s.p, nothing, nil); err != nil {
			t.Fatal(err)
		}
	}
	save()
	before := &in.floats[b.vars[0].node][0]
	b.redraw()
	save()
	if before != &in.floats[b.vars[0].node][0] {
		t.Error("other memory")
	}
	if n := testing.AllocsPerRun(5, save); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

// A NaN is saved as it is, and equals nothing.
func TestSavedNaN(t *testing.T) {
	b := newBuilder(tensor.Float64, 8)
	x := b.x(2, 3)
	s := prepare[float64](t, b, must(gorgonia.Tanh(x)))
	b.set(x, []float64{1, math.NaN(), 2, 3, math.Inf(1), 4})
	var first, second Inputs[float64]
	if err := first.Save(s.p, nothing, nil); err != nil {
		t.Fatal(err)
	}
	if err := second.Save(s.p, nothing, &first); err != nil {
		t.Fatal(err)
	}
	b.redraw()
	s.r.Use(&second)
	if got := s.forward(nil); !math.IsNaN(got[1]) || got[4] != 1 || got[0] != math.Tanh(1) {
		t.Errorf("%v", got)
	}
}

// What is skipped the next time is the user's from then on.
func TestSavedThenSkipped(t *testing.T) {
	b := newBuilder(tensor.Float64, 10)
	w := b.x(3, 2)
	s := prepare[float64](t, b, must(gorgonia.Mul(b.x(4, 3), w)))
	var in Inputs[float64]
	if err := in.Save(s.p, nothing, nil); err != nil {
		t.Fatal(err)
	}
	b.redraw()
	if err := in.Save(s.p, func(n *gorgonia.Node) bool { return n == w }, nil); err != nil {
		t.Fatal(err)
	}
	want := s.forward(nil)
	s.r.Use(&in)
	if got := s.forward(nil); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// An input that has no value, or one that is not the graph's, can't be saved: the error names it.
func TestSaveErrors(t *testing.T) {
	other := func(v gorgonia.Value) func(x *gorgonia.Node) error {
		return func(x *gorgonia.Node) error { return gorgonia.Let(x, v) }
	}
	for name, give := range map[string]func(x *gorgonia.Node) error{
		"no value":      func(*gorgonia.Node) error { return nil },
		"another shape": other(tensor.New(tensor.WithShape(2, 2), tensor.Of(tensor.Float64))),
		"another dtype": other(tensor.New(tensor.WithShape(2, 3), tensor.Of(tensor.Float32))),
	} {
		b := newBuilder(tensor.Float64, 9)
		x := gorgonia.NewMatrix(b.g, tensor.Float64, gorgonia.WithShape(2, 3), gorgonia.WithName("culprit"))
		s := prepare[float64](t, b, must(gorgonia.Add(x, b.x(2, 3))))
		if err := give(x); err != nil {
			t.Logf("%s: Gorgonia says %v", name, err)
			continue
		}
		var in Inputs[float64]
		err := in.Save(s.p, nothing, nil)
		var op *OpError
		if !errors.As(err, &op) || op.Node != "culprit" || op.What != "read" {
			t.Errorf("%s: error %v", name, err)
		}
		b.set(x, []float64{1, 2, 3, 4, 5, 6})
		if err := in.Save(s.p, nothing, nil); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		want := s.forward(nil)
		b.redraw()
		b.set(x, make([]float64, 6))
		s.r.Use(&in)
		if got := s.forward(nil); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", name, got, want)
		}
	}
}

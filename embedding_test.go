package kfac

import (
	"math"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"
)

// words makes an input of row numbers.
func (s *sketch) words(name string, ids ...int) *gorgonia.Node {
	value := tensor.New(tensor.WithShape(len(ids)), tensor.WithBacking(ids))
	return gorgonia.NewVector(s.graph, tensor.Int, gorgonia.WithName(name), gorgonia.WithShape(len(ids)), gorgonia.WithValue(value))
}

// textNet looks the words of each case up in a table of the given number of rows, and feeds what it finds to two layers. oneHot writes the lookup as a product.
func textNet(seed uint64, rows, cases int, ids []int, oneHot bool, loss lossFunc) *network {
	const width = 3
	s := newSketch(seed)
	n := &network{sketch: s}
	table, w, b, v := s.random("table", rows, width), s.random("w", len(ids)/cases*width, 4), s.random("b", 1, 4), s.random("v", 4, 2)
	var found *gorgonia.Node
	if oneHot {
		x := s.leaf("words", make([]float64, len(ids)*rows), len(ids), rows)
		for i, id := range ids {
			data(x)[i*rows+id] = 1
		}
		found = mul(x, table)
	} else {
		found = must(gorgonia.ByIndices(table, s.words("words", ids...), 0))
	}
	h := tanh(addRow(mul(reshape(found, cases, len(ids)/cases*width), w), b))
	n.out, n.params = mul(h, v), list(table, w, b, v)
	n.cost, n.dist = loss(s, n.out)
	return n
}

// text draws cases of words.
func text(t *rapid.T) (seed uint64, rows, cases int, ids []int) {
	seed, rows = rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 8).Draw(t, "rows")
	cases = rapid.IntRange(1, 4).Draw(t, "cases")
	n := cases * rapid.IntRange(1, 3).Draw(t, "words per case")
	return seed, rows, cases, rapid.SliceOfN(rapid.IntRange(0, rows-1), n, n).Draw(t, "words")
}

// A is the diagonal of the words' frequencies, over cases and positions.
func TestEmbeddingFrequencies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, rows, cases, ids := text(t)
		c := attach(t, textNet(seed, rows, cases, ids, false, squares(1)))
		observeExactly(t, c, nil)
		want := make([]float64, rows)
		for _, id := range ids {
			want[id] += 1 / float64(len(ids))
		}
		f := layerBlocks(c)[0].factors
		if !f.a.diagonal {
			t.Fatal("A is kept whole")
		}
		checkNear(t, "A", f.a.next, want, identity)
	})
}

// A lookup is the product with one-hot rows: the same block, from a diagonal A in place of a whole one, the same direction, and the same blocks of the layers behind.
func TestEmbeddingIsOneHotProduct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, rows, cases, ids := text(t)
		loss := rapid.SampledFrom([]lossFunc{squares(0.3), binary, classes}).Draw(t, "loss")
		gamma := math.Pow(10, rapid.Float64Range(-2, 1).Draw(t, "log gamma"))
		lookup, product := textNet(seed, rows, cases, ids, false, loss), textNet(seed, rows, cases, ids, true, loss)
		copyParams(product, lookup)
		copy(data(input(product, "y")), data(input(lookup, "y")))
		c, d := attach(t, lookup, WithWeightSharing(Expand)), attach(t, product, WithWeightSharing(Expand))
		for _, c := range []*conductor[float64]{c, d} {
			gradients(t, c)
			observeExactly(t, c, nil)
			directions(t, c, gamma)
		}
		for i, b := range layerBlocks(c) {
			other := layerBlocks(d)[i]
			checkNear(t, "block of "+b.layer.Name(), flatOf(kronecker(b.factors)), flatOf(kronecker(other.factors)), identity)
			checkNear(t, "direction of "+b.layer.Name(), gathered(b, directionOf), gathered(other, directionOf), 1e-9)
		}
	})
}

// The direction is (diag(p) + pi gamma)^-1 V (G + gamma/pi)^-1, by the explicit Kronecker product.
func TestEmbeddingDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, rows, cases, ids := text(t)
		c := attach(t, textNet(seed, rows, cases, ids, false, binary))
		gradients(t, c)
		observeExactly(t, c, nil)
		const gamma = 0.3
		directions(t, c, gamma)
		b := layerBlocks(c)[0]
		a, g := wholeOf(&b.factors.a), square(b.factors.g.next)
		pi := math.Sqrt(1 / float64(rows) / (mat.Trace(g) / 3)) // the frequencies add up to 1
		want := solved(t, flatOf(a), b.factors.g.next, pi*gamma, gamma/pi, gathered(b, gradientOf))
		checkNear(t, "direction", gathered(b, directionOf), want, 1e-10)
	})
}

// In a linear model with the loss a sum over positions the block is exact, several words per case or not.
func TestLinearEmbeddingIsExact(t *testing.T) {
	const cases, rows = 4, 5
	for _, perCase := range []int{1, 3} {
		s := newSketch(1)
		var ids []int
		for range cases * perCase {
			ids = append(ids, s.rng.IntN(rows))
		}
		table, w := s.random("table", rows, 3), s.random("w", 3, 2)
		h := mul(must(gorgonia.ByIndices(table, s.words("words", ids...), 0)), w)
		n := &network{sketch: s, out: reshape(h, cases, perCase*2), params: list(table, w)}
		n.cost, n.dist = squares(0.4)(s, n.out)
		c := attach(t, n)
		observeExactly(t, c, nil)
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	}
}

// What is added to the rows found is no homogeneous coordinate, which would take the diagonal form from A.
func TestEmbeddingHasNoBias(t *testing.T) {
	s := newSketch(1)
	table, b := s.random("table", 5, 3), s.random("b", 1, 3)
	n := &network{sketch: s, out: addRow(must(gorgonia.ByIndices(table, s.words("words", 1, 0, 4, 1), 0)), b), params: list(table, b)}
	n.cost, n.dist = classes(s, n.out)
	want := []ParamPlan{
		{"table", []int{5, 3}, Kronecker, "table: diagonal A 5, G 3", "embedding lookup, 5 rows"},
		{"b", []int{1, 3}, Full, "b: 3 x 3", "offset, element by element"},
	}
	if diff := gocmp.Diff(want, attach(t, n).plan.Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// Statistics of some rows of the batch are those of a batch that holds no others.
func TestEmbeddingOfRows(t *testing.T) {
	ids := []int{3, 1, 4, 1, 5, 2, 6, 5}
	whole, small := textNet(1, 7, 4, ids, false, classes), textNet(1, 7, 2, []int{6, 5, 4, 1}, false, classes)
	c, d := attach(t, whole), attach(t, small)
	checkMoments(t, "cases 3 and 1", momentsOf(t, c, []int{3, 1}), momentsOf(t, d, nil))
}

// Rows of words that have not occurred yet stay in every bit.
func TestEmbeddingLeavesUnseenRows(t *testing.T) {
	n := textNet(2, 6, 4, []int{0, 3, 1, 3, 0, 0, 5, 1}, false, classes)
	tr := newTrainer(t, n)
	table := data(n.params[0])
	before := slices.Clone(table)
	for range 4 {
		tr.step(t)
	}
	changed := func(row int) bool { return !slices.Equal(table[row*3:row*3+3], before[row*3:row*3+3]) }
	for row, seen := range []bool{true, true, false, true, false, true} {
		if changed(row) != seen {
			t.Errorf("row %d changed: %v, want %v", row, changed(row), seen)
		}
	}
	copy(input(n, "words").Value().Data().([]int), []int{0, 2, 1, 2, 0, 0, 2, 1})
	tr.step(t)
	for row, seen := range []bool{true, true, true, true, false, true} {
		if changed(row) != seen {
			t.Errorf("row %d changed in the end: %v, want %v", row, changed(row), seen)
		}
	}
}

func TestEmbeddingTrains(t *testing.T) {
	n := textNet(3, 30, 20, someWords(60, 30), false, classes)
	newTrainer(t, n).falls(t, 15, 0.2)
}

func someWords(n, rows int) (ids []int) {
	rng := newSketch(4).rng
	for range n {
		ids = append(ids, rng.IntN(rows))
	}
	return ids
}

// A large vocabulary takes memory in proportion to its table, not to its square, which would be 10 GB.
func TestEmbeddingOfLargeVocabulary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 400 MB")
	}
	const rows, width, cases = 50_000, 128, 16
	g := gorgonia.NewGraph()
	float := func(name string, shape ...int) *gorgonia.Node {
		values := make([]float32, size(shape))
		rng := newSketch(5).rng
		for i := range values {
			values[i] = float32(rng.NormFloat64()) / 8
		}
		return gorgonia.NewTensor(g, tensor.Float32, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name),
			gorgonia.WithValue(tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))))
	}
	s := &sketch{graph: g}
	table, w, y := float("table", rows, width), float("w", width, 2), float("y", cases, 2)
	out := mul(must(gorgonia.ByIndices(table, s.words("words", someWords(cases, rows)...), 0)), w)
	cost := must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	n := &network{sketch: s, out: out, cost: cost, dist: Gaussian(out, 1), params: list(table, w)}

	var before, after runtime.MemStats
	_, err := gorgonia.Grad(n.cost, n.params...)
	check(t, err)
	runtime.ReadMemStats(&before)
	solver, err := NewSolver(n.cost, n.dist)
	check(t, err)
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(n.params...))
	defer vm.Close()
	for range 2 {
		check(t, vm.RunAll())
		check(t, solver.Step(gorgonia.NodesToValueGrads(n.params)))
		vm.Reset()
	}
	runtime.ReadMemStats(&after)
	const tableBytes = rows * width * 4
	if got := after.TotalAlloc - before.TotalAlloc; got > 24*tableBytes {
		t.Errorf("allocated %d MB for a table of %d MB", got>>20, tableBytes>>20)
	}
}

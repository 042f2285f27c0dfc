package kfac

import (
	"math"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

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
		c := attach(t, testnet.Text(seed, rows, cases, ids, false, testnet.Squares(1)))
		want := make([]float64, rows)
		for _, id := range ids {
			want[id] += 1 / float64(len(ids))
		}
		l := placedLayers(c)[0]
		if !l.DiagonalA {
			t.Fatal("A is kept whole")
		}
		a, _ := l.factors(exactAverages(t, c, nil))
		testnet.Near(t, "A", a, want, identity)
	})
}

// A lookup is the product with one-hot rows: the same block, from a diagonal A in place of a whole
// one, the same direction, and the same blocks of the layers behind.
func TestEmbeddingIsOneHotProduct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, rows, cases, ids := text(t)
		loss := rapid.SampledFrom([]testnet.Likelihood{testnet.Squares(0.3), testnet.Binary, testnet.Classes}).Draw(t,
			"loss")
		gamma := math.Pow(10, rapid.Float64Range(-2, 1).Draw(t, "log gamma"))
		lookup, product := testnet.Text(seed, rows, cases, ids, false, loss),
			testnet.Text(seed, rows, cases, ids, true, loss)
		product.CopyParams(lookup)
		copy(testnet.Data(product.Input("y")), testnet.Data(lookup.Input("y")))
		c, d := attach(t, lookup, WithWeightSharing(Expand)), attach(t, product, WithWeightSharing(Expand))
		var avg [2]averages[float64]
		for i, c := range []*training[float64]{c, d} {
			gradients(t, c)
			avg[i] = exactAverages(t, c, nil)
			directions(t, c, avg[i], gamma)
		}
		for i, l := range placedLayers(c) {
			other := placedLayers(d)[i]
			testnet.Near(t, "block of "+l.Name(), flatOf(l.kronecker(avg[0])), flatOf(other.kronecker(avg[1])),
				identity)
			testnet.Near(t, "direction of "+l.Name(), l.u(), other.u(), 1e-9)
		}
	})
}

// The direction is (diag(p) + pi gamma)^-1 V (G + gamma/pi)^-1, by the explicit Kronecker product.
func TestEmbeddingDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, rows, cases, ids := text(t)
		c := attach(t, testnet.Text(seed, rows, cases, ids, false, testnet.Binary))
		gradients(t, c)
		avg := exactAverages(t, c, nil)
		const gamma = 0.3
		directions(t, c, avg, gamma)
		l := placedLayers(c)[0]
		p, g := l.factors(avg)
		pi := math.Sqrt(1 / float64(rows) / (mat.Trace(square(g)) / 3)) // the frequencies add up to 1
		damped := mat.NewDense(rows, rows, nil)
		for i := range p {
			damped.Set(i, i, p[i]+pi*gamma)
		}
		g = slices.Clone(g)
		for i := range 3 {
			g[i*3+i] += gamma / pi
		}
		var product mat.Dense
		product.Kronecker(damped, square(g))
		var want mat.VecDense
		testnet.Check(t, want.SolveVec(&product, mat.NewVecDense(len(l.v()), slices.Clone(l.v()))))
		testnet.Near(t, "direction", l.u(), want.RawVector().Data, 1e-10)
	})
}

// In a linear model with the loss a sum over positions the block is exact, several words per case
// or not.
func TestLinearEmbeddingIsExact(t *testing.T) {
	const cases, rows = 4, 5
	for _, perCase := range []int{1, 3} {
		s := testnet.NewSketch(1)
		var ids []int
		for range cases * perCase {
			ids = append(ids, s.Rng.IntN(rows))
		}
		table, w := s.Random("table", rows, 3), s.Random("w", 3, 2)
		h := mul(testnet.Rows(table, s.Words("words", ids...)), w)
		n := &testnet.Net{Sketch: s, Out: reshape(h, cases, perCase*2), Params: list(table, w)}
		n.Cost, n.Loss = testnet.Squares(0.4)(s, n.Out)
		c := attach(t, n)
		checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
	}
}

// What is added to the rows found is no homogeneous coordinate, which would take the diagonal form
// from A.
func TestEmbeddingHasNoBias(t *testing.T) {
	s := testnet.NewSketch(1)
	table, b := s.Random("table", 5, 3), s.Random("b", 1, 3)
	n := &testnet.Net{Sketch: s, Out: addRow(testnet.Rows(table, s.Words("words", 1, 0, 4, 1)), b),
		Params: list(table, b)}
	n.Cost, n.Loss = testnet.Classes(s, n.Out)
	want := []ParamPlan{
		{"table", []int{5, 3}, Kronecker, "table: diagonal A 5, G 3", "embedding lookup, 5 rows"},
		{"b", []int{1, 3}, Full, "b: 3 x 3", "offset, element by element"},
	}
	if diff := gocmp.Diff(want, attach(t, n).describe().Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// Statistics of some rows of the batch are those of a batch that holds no others.
func TestEmbeddingOfRows(t *testing.T) {
	ids := []int{3, 1, 4, 1, 5, 2, 6, 5}
	whole, small := testnet.Text(1, 7, 4, ids, false, testnet.Classes),
		testnet.Text(1, 7, 2, []int{6, 5, 4, 1}, false, testnet.Classes)
	c, d := attach(t, whole), attach(t, small)
	checkMoments(t, "cases 3 and 1", momentsOf(t, c, []int{3, 1}), momentsOf(t, d, nil))
}

// Rows of words that have not occurred yet stay in every bit.
func TestEmbeddingLeavesUnseenRows(t *testing.T) {
	n := testnet.Text(2, 6, 4, []int{0, 3, 1, 3, 0, 0, 5, 1}, false, testnet.Classes)
	tr := NewTrainer(t, n)
	table := testnet.Data(n.Params[0])
	before := slices.Clone(table)
	for range 4 {
		tr.Step(t)
	}
	changed := func(row int) bool { return !slices.Equal(table[row*3:row*3+3], before[row*3:row*3+3]) }
	for row, seen := range []bool{true, true, false, true, false, true} {
		if changed(row) != seen {
			t.Errorf("row %d changed: %v, want %v", row, changed(row), seen)
		}
	}
	copy(n.Input("words").Value().Data().([]int), []int{0, 2, 1, 2, 0, 0, 2, 1})
	tr.Step(t)
	for row, seen := range []bool{true, true, true, true, false, true} {
		if changed(row) != seen {
			t.Errorf("row %d changed in the end: %v, want %v", row, changed(row), seen)
		}
	}
}

func TestEmbeddingTrains(t *testing.T) {
	n := testnet.Text(3, 30, 20, testnet.WordsOf(60, 30), false, testnet.Classes)
	NewTrainer(t, n).Falls(t, 15, 0.2)
}

// A large vocabulary takes memory in proportion to its table, not to its square, which would be 10
// GB.
func TestEmbeddingOfLargeVocabulary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 400 MB")
	}
	const rows, width, cases = 50_000, 128, 16
	n := &testnet.Net{Sketch: testnet.NewSketchOf[float32](5, 3)}
	table, w := n.Param("table", rows, width), n.Param("w", width, 2)
	n.Ends(mul(testnet.Rows(table, n.Words("words", testnet.WordsOf(cases, rows)...)), w), testnet.SquaredError)

	var before, after runtime.MemStats
	run := testnet.Machines["BindDualValues"](t, n)
	runtime.ReadMemStats(&before)
	(&Trainer{Net: n, Run: run, Solver: NewSolverOf(t, n)}).Steps(t, 2)
	runtime.ReadMemStats(&after)
	const tableBytes = rows * width * 4
	if got := after.TotalAlloc - before.TotalAlloc; got > 24*tableBytes {
		t.Errorf("allocated %d MB for a table of %d MB", got>>20, tableBytes>>20)
	}
}

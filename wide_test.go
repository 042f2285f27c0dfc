package kfac

import (
	"errors"
	"fmt"
	"math"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// diagonalElements are those of a whole factor.
func diagonalElements(x []float64) (d []float64) {
	m := square(x)
	for i := range m.RawMatrix().Rows {
		d = append(d, m.At(i, i))
	}
	return d
}

// The diagonal factors are the diagonals of the whole ones, and the direction solves the explicit
// Kronecker system with them, whichever side is diagonal, and whichever way the weight is stored.
func TestWideLayers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := testnet.MLP{Widths: rapid.SliceOfN(rapid.IntRange(1, 5), 2, 3).Draw(t, "widths"),
			Cases: rapid.IntRange(1, 6).Draw(t, "cases"), Unit: gorgonia.Tanh,
			NoBias: rapid.Bool().Draw(t, "noBias"), OutByIn: rapid.Bool().Draw(t, "outByIn"), Loss: testnet.Binary}
		seed, limit := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 5).Draw(t, "WithMaxDim")
		gamma := math.Pow(10, rapid.Float64Range(-2, 1).Draw(t, "log gamma"))
		c, whole := attach(t, m.Build(seed), WithMaxDim(limit)), attach(t, m.Build(seed))
		gradients(t, c)
		avg, wholeAvg := exactAverages(t, c, nil), exactAverages(t, whole, nil)
		directions(t, c, avg, gamma)
		for i, l := range placedLayers(c) {
			a, g := l.factors(avg)
			wantA, wantG := placedLayers(whole)[i].factors(wholeAvg)
			abar := l.block.groups[0].shape.Abar()
			of := func(side string, got, whole []float64, n int) mat.Matrix {
				if n > limit {
					whole = diagonalElements(whole)
				}
				testnet.Near(t, side, got, whole, identity)
				return factorMatrix(whole, n)
			}
			direction := tikhonovSolved(t, of("A", a, wantA, abar), of("G", g, wantG, l.Out), gamma, l.gradient(c))
			testnet.Near(t, "direction of "+l.Name(), l.direction(c), direction, 1e-9)
		}
	})
}

// A limit that is just reached leaves the factors whole.
func TestMaxDimIsInclusive(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4}, Cases: 5, Loss: testnet.Squares(1)} // A 4, G 4
	for limit, want := range map[int]string{4: "w0: A 4, G 4", 3: "w0: diagonal A 4, diagonal G 4",
		1: "w0: diagonal A 4, diagonal G 4"} {
		if got := attach(t, m.Build(1), WithMaxDim(limit)).describe().Params[0].Block; got != want {
			t.Errorf("WithMaxDim(%d): %q, want %q", limit, got, want)
		}
	}
}

func TestWidePlan(t *testing.T) {
	blocks := func(n *testnet.Net, opts ...Option) (rows []string) {
		for _, r := range attach(t, n, opts...).describe().Params {
			rows = append(rows, fmt.Sprint(r.Name, " ", r.Treatment, " ", r.Block))
		}
		return rows
	}
	m := testnet.MLP{Widths: []int{9, 3, 12}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Squares(1)}
	want := []string{
		"w0 kronecker w0: diagonal A 10, G 3", "b0 kronecker w0: diagonal A 10, G 3",
		"w1 kronecker w1: A 4, diagonal G 12", "b1 kronecker w1: A 4, diagonal G 12",
	}
	if diff := gocmp.Diff(want, blocks(m.Build(1), WithMaxDim(8))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// What is diagonal in one use of a tied weight is diagonal in the other.
	tied := tiedCoder{In: 9, Hidden: 3, Cases: 4, Bias: true, loss: testnet.Binary}
	want = []string{"w kronecker w: diagonal A 10, G 3", "b kronecker w: diagonal A 10, G 3"}
	if diff := gocmp.Diff(want, blocks(tied.build(1), WithMaxDim(8))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A tied weight with a side that is too large: its block has the partial traces of the sum of the
// ways, of which only the diagonal is kept on that side.
func TestWideTied(t *testing.T) {
	for _, outByIn := range []bool{false, true} {
		for _, limit := range []int{4, 2} {
			c := attach(t, tiedCoder{In: 5, Hidden: 3, Cases: 4, OutByIn: outByIn, Bias: true,
				loss: testnet.Binary}.build(2), WithMaxDim(limit))
			gradients(t, c)
			avg := exactAverages(t, c, nil)
			m := tiedIn(t, c, avg).avg.Moments
			if len(m[0]) != 6 || len(m[3]) != 5 || (len(m[1]) == 3) != (limit < 3) || (len(m[2]) == 3) != (limit < 3) {
				t.Fatalf("WithMaxDim(%d): factors of %d, %d, %d, %d", limit, len(m[0]), len(m[1]), len(m[2]), len(m[3]))
			}
			checkTied(t, c, avg, 0.1, 1e-10)
		}
	}
}

// With both sides diagonal, the block is the diagonal of what is exact with whole factors.
func TestWideLinearNetIsExactOnTheDiagonal(t *testing.T) {
	n := testnet.MLP{Widths: []int{4, 3, 2}, Cases: 6, Loss: testnet.Squares(0.5)}.Build(3)
	c := attach(t, n, WithMaxDim(1))
	avg := exactAverages(t, c, nil)
	fisher := denseFisher(t, c, jacobians(t, c))
	for _, l := range placedLayers(c) {
		var want []float64
		for _, at := range elements(c, l.Layer) {
			want = append(want, fisher.At(at, at))
		}
		testnet.Near(t, l.Name(), flatOf(l.kronecker(avg)), flatOf(mat.NewDiagDense(len(want), want)), identity)
	}
}

// A wide layer takes no part in a chain; those behind it still do.
func TestWideLayerIsInNoChain(t *testing.T) {
	n := testnet.MLP{Widths: []int{9, 3, 4, 2}, Cases: 5, Unit: gorgonia.Tanh, Loss: testnet.Squares(1)}.Build(4)
	c := attach(t, n, WithMaxDim(8), WithBlockTridiagonal())
	if diff := gocmp.Diff([]string{"block-tridiagonal inverse along w1 - w2"}, c.describe().Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if len(c.plan.blocks) != 2 || len(placedLayers(c)) != 3 {
		t.Errorf("%d blocks of %d layers, want 2 of 3", len(c.plan.blocks), len(placedLayers(c)))
	}
}

func TestLayerOptionErrors(t *testing.T) {
	n := testnet.MLP{Widths: []int{2, 2}, Cases: 3, Loss: testnet.Squares(1)}.Build(5)
	for want, opt := range map[ConfigError]Option{
		{"WithMaxDim", "0", "a dimension >= 1"}:                          WithMaxDim(0),
		{"WithMaxDim", "-3", "a dimension >= 1"}:                         WithMaxDim(-3),
		{"WithFullBlocks", "0", "a size >= 1"}:                           WithFullBlocks(0),
		{"WithWeightSharing", `"both"`, "AutoSharing, Expand or Reduce"}: WithWeightSharing("both"),
		{"WithWeightSharing", `""`, "AutoSharing, Expand or Reduce"}:     WithWeightSharing(""),
	} {
		_, err := NewSolver(n.Cost, Declared(n), opt)
		var got *ConfigError
		if !errors.As(err, &got) || *got != want {
			t.Errorf("error %v, want %v", err, &want)
		}
	}
}

// A layer that would need a factor of 20,000 x 20,000 trains.
func TestWideLayerTrains(t *testing.T) {
	n := testnet.MLP{Widths: []int{20_000, 3}, Cases: 8, Loss: testnet.Classes}.Build(6)
	tr := NewTrainer(t, n)
	if got, want := tr.Solver.Plan().Params[0].Block, "w0: diagonal A 20001, G 3"; got != want {
		t.Fatalf("block %q, want %q", got, want)
	}
	tr.Falls(t, 10, 0.2)
}

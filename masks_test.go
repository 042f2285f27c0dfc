package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A weighedNet has two heads, whose cases have weights in the cost.
type weighedNet struct {
	weight   func(head, i int) float64
	sum      bool // not a mean
	declared bool // by Weighted
	decay    bool // a term beside the likelihood
	ranks    int
	cases    int
}

// build builds it for so many cases, with its distribution.
func (w weighedNet) build(cases int, dist *Distribution) *testnet.Net {
	n := testnet.NewNet(4)
	n.X = n.Random("x", cases, 3)
	h := testnet.Tanh(n.Dense("0", n.X, 4))
	var heads []Distribution
	for k := range 2 {
		out := n.Dense(fmt.Sprint("out", k), h, 2)
		weights := make([]float64, cases)
		for i := range weights {
			weights[i] = w.weight(k, i)
		}
		in := n.Leaf(fmt.Sprint("weights", k), weights, cases, 1)
		squares := testnet.Square(testnet.Sub(out, n.Random(fmt.Sprint("y", k), cases, 2)))
		terms := gorgonia.Must(gorgonia.BroadcastHadamardProd(squares, in, nil, []byte{1}))
		cost := testnet.Mean(terms)
		if w.sum {
			cost = gorgonia.Must(gorgonia.Sum(terms))
		}
		if n.Cost == nil {
			n.Cost = cost
		} else {
			n.Cost = testnet.Add(n.Cost, gorgonia.Must(gorgonia.Mul(gorgonia.NewConstant(0.3), cost)))
		}
		head := SquaredError(out)
		if w.declared {
			head = Weighted(head, in)
		}
		heads = append(heads, head)
	}
	if w.decay {
		decay := testnet.Mean(testnet.Square(n.Params[0]))
		n.Cost = testnet.Add(n.Cost, gorgonia.Must(gorgonia.Mul(gorgonia.NewConstant(0.1), decay)))
	}
	if dist != nil {
		*dist = Joint(heads...)
	}
	return n
}

// member makes a rank.
func (w weighedNet) member(t *testing.T, c Communicator, opts ...Option) member {
	t.Helper()
	var dist Distribution
	net := sharded{build: func(cases int) *testnet.Net { return w.build(cases, &dist) }, cases: w.cases}
	n := net.shardOf(t, c.Rank()*w.cases/c.Size(), (c.Rank()+1)*w.cases/c.Size())
	run := testnet.Machines["BindDualValues"](t, n)
	s, err := NewSolver(n.Cost, dist, append(opts, WithCommunicator(c))...)
	testnet.Check(t, err)
	return member{c, &Trainer{Net: n, Run: run, Solver: s}}
}

// train trains so many ranks by a program, and returns their weights.
func (w weighedNet) train(t *testing.T, ranks int, program func(r member) error) ([][]float64, error) {
	t.Helper()
	all := make([][]float64, ranks)
	return all, InProcess(ranks, func(c Communicator) error {
		r := w.member(t, c)
		err := program(r)
		all[c.Rank()] = weightsOf(r.Net)
		return err
	})
}

// ofUnequal are weights that have other means on each rank.
func ofUnequal(head, i int) float64 {
	return rand.New(rand.NewPCG(uint64(head), uint64(i))).Float64() * (1 + float64(i))
}

var weighedNets = map[string]weighedNet{
	"the last rank counts nowhere":  {weight: func(_, i int) float64 { return oneIf(i < 8) }},
	"the first counts nowhere":      {weight: func(_, i int) float64 { return oneIf(i >= 4) }},
	"nowhere in one head":           {weight: func(head, i int) float64 { return oneIf(head == 0 || i < 8) }},
	"nowhere on any rank in a head": {weight: func(head, i int) float64 { return oneIf(head == 0) }},
	"a head each":                   {weight: func(head, i int) float64 { return oneIf(head == i/6) }, ranks: 2},
	"declared":                      {weight: ofUnequal, declared: true},
	"declared, nowhere": {weight: func(head, i int) float64 { return ofUnequal(head, i) * oneIf(i >= 4) },
		declared: true},
	"declared, a head each": {weight: func(head, i int) float64 { return ofUnequal(head, i) * oneIf(head == i/6) },
		declared: true, ranks: 2},
	"a single case": {weight: func(_, i int) float64 { return oneIf(i != 2 && i != 4) }, cases: 7, ranks: 4},
	"other numbers": {weight: func(head, i int) float64 { return oneIf(i < 4 || head == 1 && i > 8) },
		cases: 13},
}

// Whatever cases count on a rank, in some head or in all, the steps are those of one process.
func TestRanksWeigh(t *testing.T) {
	for name, net := range weighedNets {
		if net.ranks == 0 {
			net.ranks = 3
		}
		if net.cases == 0 {
			net.cases = 12
		}
		for _, net.sum = range []bool{false, true} {
			for _, net.decay = range []bool{false, true} {
				if net.decay && net.sum {
					continue // a sum has the decay of each rank
				}
				what := fmt.Sprintf("%s, sum %v, decay %v", name, net.sum, net.decay)
				steps := func(r member) error { return r.steps(30) }
				want, err := net.train(t, 1, steps)
				testnet.Check(t, err)
				got, err := net.train(t, net.ranks, steps)
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				for _, w := range got {
					testnet.SameBits(t, what, w, got[0])
				}
				testnet.Near(t, what, got[0], want[0], 1e-9)
			}
		}
	}
}

// So it is in chunks, and from a file.
func TestRanksWeighInChunks(t *testing.T) {
	net := weighedNet{weight: ofUnequal, declared: true, cases: 12}
	// chunked makes an update of three chunks, in the second of which the last rank counts nowhere.
	chunked := func(r member) error {
		for chunk := range 3 {
			for head := range 2 {
				w := testnet.Data(r.Input(fmt.Sprint("weights", head)))
				for i := range w {
					global := r.Rank()*12/r.Size() + i
					w[i] = ofUnequal(head, global+100*chunk) * oneIf(chunk != 1 || global < 8)
				}
			}
			if err := r.Run(); err != nil {
				return err
			}
			call := r.Solver.Accumulate
			if chunk == 2 {
				call = r.Solver.Step
			}
			if err := call(r.ValueGrads()); err != nil {
				return err
			}
		}
		return nil
	}
	path := filepath.Join(t.TempDir(), "state")
	several := func(r member) error {
		for range 5 {
			if err := chunked(r); err != nil {
				return err
			}
		}
		return nil
	}
	saving := func(r member) error {
		return errors.Join(several(r), r.Solver.SaveFile(path), several(r))
	}
	loading := func(r member) error { return errors.Join(r.Solver.LoadFile(path), several(r)) }
	want, err := net.train(t, 1, saving)
	testnet.Check(t, err)
	straight, err := net.train(t, 3, saving)
	testnet.Check(t, err)
	testnet.Near(t, "chunks", straight[2], want[0], 1e-9)
	for _, ranks := range []int{1, 2, 3} {
		got, err := net.train(t, ranks, loading)
		testnet.Check(t, err)
		testnet.Near(t, fmt.Sprint("loaded on ", ranks), got[0], want[0], 1e-9)
		if ranks == 3 {
			testnet.SameBits(t, "loaded", got[2], straight[2])
		}
	}
}

// Where no case counts on any rank, all have the error of one process, and nothing has changed.
func TestRanksWithoutWeights(t *testing.T) {
	net := weighedNet{weight: func(head, i int) float64 { return 0 }, cases: 12}
	testnet.Check(t, InProcess(3, func(c Communicator) error {
		r := net.member(t, c)
		before := weightsOf(r.Net)
		if err := r.Try(); !errors.Is(err, ErrLoss) {
			t.Errorf("rank %d: %v", c.Rank(), err)
		}
		testnet.SameBits(t, "weights", weightsOf(r.Net), before)
		ZeroGradients(r.ValueGrads())
		for _, name := range []string{"weights0", "weights1"} {
			for i := range testnet.Data(r.Input(name)) {
				testnet.Data(r.Input(name))[i] = 1
			}
		}
		return r.steps(2)
	}))
}

// A rank with a single case that counts nowhere has an error that says what to do.
func TestRanksWithASingleCase(t *testing.T) {
	net := weighedNet{weight: func(_, i int) float64 { return oneIf(i != 1) }, cases: 3}
	testnet.Check(t, InProcess(3, func(c Communicator) error {
		var at *RankError
		err := net.member(t, c).Try()
		if !errors.As(err, &at) || at.Rank != 1 || !errors.Is(err, ErrEmpty) {
			t.Errorf("rank %d: %v", c.Rank(), err)
		}
		return nil
	}))
}

// The units of ranks are found whichever outputs they share, and those of a mean where none.
func TestRankUnits(t *testing.T) {
	shares := func(units ...float64) (row []rankShare) {
		for _, u := range units {
			row = append(row, rankShare{oneIf(u > 0), u, u})
		}
		return row
	}
	for name, of := range map[string]struct {
		shares [][]rankShare
		ranks  []float64
	}{
		"one output":  {[][]rankShare{shares(3), shares(6)}, []float64{1, 2}},
		"by the last": {[][]rankShare{shares(3, 0), shares(0, 8), shares(9, 24)}, []float64{1, 1, 3}},
		"in a chain": {[][]rankShare{shares(1, 0, 0), shares(0, 0, 10), shares(0, 5, 5), shares(4, 4, 0)},
			[]float64{1, 10, 5, 4}},
		"nothing":   {[][]rankShare{shares(0), shares(5), shares(0)}, []float64{1, 0.5, 0.25}},
		"no common": {[][]rankShare{shares(7, 0), shares(0, 3)}, []float64{1, 0.5}},
	} {
		cases := []float64{4, 8, 16, 16}[:len(of.shares)]
		if got, _ := rankUnits(of.shares, cases); !slices.EqualFunc(got, of.ranks, func(x, y float64) bool {
			return math.Abs(x-y) < 1e-12
		}) {
			t.Errorf("%s: %v, want %v", name, got, of.ranks)
		}
	}
}

// Losses of whose cases the last rank has none that counts have the steps of one process too.
func TestRanksMaskLosses(t *testing.T) {
	losses := map[string]struct {
		loss    func(d, z *gorgonia.Node) *gorgonia.Node // of z - y, by entry
		declare func(z *gorgonia.Node) Distribution
	}{
		"AbsoluteError": {func(d, _ *gorgonia.Node) *gorgonia.Node { return gorgonia.Must(gorgonia.Abs(d)) },
			AbsoluteError},
		"GaussNewton": {func(d, _ *gorgonia.Node) *gorgonia.Node {
			return gorgonia.Must(gorgonia.Sqrt(testnet.Add(testnet.Square(d), gorgonia.NewConstant(1.0))))
		}, func(z *gorgonia.Node) Distribution { return GaussNewton(z) }},
		"Policy": {func(_, z *gorgonia.Node) *gorgonia.Node {
			return gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Log(gorgonia.Must(gorgonia.SoftMax(z))))))
		}, func(z *gorgonia.Node) Distribution { return Policy(Categorical(z)) }},
	}
	for name, of := range losses {
		for _, from := range []int{8, 12} { // the first case that doesn't count
			build := func(cases int) *testnet.Net {
				n := testnet.NewNet(4)
				n.X = n.Random("x", cases, 3)
				n.Out = n.Dense("1", testnet.Tanh(n.Dense("0", n.X, 5)), 2)
				mask := make([]float64, 2*cases)
				for i := range mask {
					mask[i] = oneIf(i/2 < from && (name != "Policy" || i%2 == i/2%2)) // which action
				}
				loss := of.loss(testnet.Sub(n.Out, n.Random("y", cases, 2)), n.Out)
				n.Cost = testnet.Mean(testnet.Hadamard(loss, n.Leaf("mask", mask, cases, 2)))
				return n
			}
			train := func(ranks int) [][]float64 {
				all := make([][]float64, ranks)
				testnet.Check(t, InProcess(ranks, func(c Communicator) error {
					n := sharded{build: build, cases: 12}.shardOf(t, c.Rank()*12/ranks, (c.Rank()+1)*12/ranks)
					run := testnet.Machines["BindDualValues"](t, n)
					s, err := NewSolver(n.Cost, of.declare(n.Out), WithCommunicator(c))
					testnet.Check(t, err)
					err = member{c, &Trainer{Net: n, Run: run, Solver: s}}.steps(12)
					all[c.Rank()] = weightsOf(n)
					return err
				}))
				return all
			}
			want, got := train(1)[0], train(3)
			for _, w := range got {
				testnet.SameBits(t, name, w, got[0])
			}
			testnet.Near(t, fmt.Sprintf("%s, %d cases count", name, from), got[0], want, 1e-9)
		}
	}
}

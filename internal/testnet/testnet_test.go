package testnet

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/diff/fd"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// nets are one of each kind. The first parameter is a matrix, save for the scaled outputs'.
func nets() map[string]*Net {
	mlp := MLP{Widths: []int{4, 3, 2}, Cases: 6, Unit: gorgonia.Tanh}
	with := func(l Likelihood) *Net { m := mlp; m.Loss = l; return m.Build(1) }
	of := func(l Likelihood) *Net {
		return NewMLP[float64](1, Shape{Cases: 6, Widths: []int{4, 5, 3}}, l)
	}
	linear := MLP{Widths: []int{3, 2}, Cases: 4, NoBias: true, OutByIn: true, Loss: Binary}
	return map[string]*Net{
		"linear": linear.Build(2), "squares": with(Squares(0.37)), "binary": with(Binary), "classes": with(Classes),
		"two heads": with(TwoHeads), "two losses": with(TwoLosses), "sum": with(AsSum(Binary)),
		"squared error": of(SquaredError), "binary cross-entropy": of(BinaryCrossEntropy),
		"cross-entropy": of(CrossEntropy), "a part of it": of(Times(CrossEntropy, 0.25)),
		"columns": Columns(4), "convolution": Convolution(2), "sequence": Sequence(3, gorgonia.Tanh),
		"tied": TiedLayers(4), "scaled cases": ScaledCases(4, Binary), "language": Language(1, 6, 3, WordsOf(5, 6)),
		"lookup": Lookup(6, false, []int{3, 0, 3}), "product": Lookup(6, true, []int{3, 0, 3}),
		"offsets": Offsets(), "scaled outputs": ScaledOutputs[float64](), "recurrent": Recurrent(1, 3, true),
		"text":             Text(1, 6, 3, WordsOf(6, 6), false, Classes),
		"text by products": Text(1, 6, 3, WordsOf(6, 6), true, Classes),
		"images":           Images(1, true, false), "patches": Images(1, true, true), "words": WordsAndOthers(4, true),
		"four layers": FourLayers(), "teacher": Teacher[float64]([]int{3, 4, 2}, 6),
	}
}

// The costs are finite, and Gorgonia's gradients are those of finite differences.
func TestGradients(t *testing.T) {
	forward := nets()
	for name, n := range nets() {
		t.Run(name, func(t *testing.T) {
			Check(t, Machines["BindDualValues"](t, n)())
			if cost := Numbers(n.Cost.Value())[0]; math.IsNaN(cost) || math.IsInf(cost, 0) || cost == 0 {
				t.Fatalf("cost %g", cost)
			}
			other := forward[name]
			run := Tape(other)
			for i, p := range other.Params {
				d, ok := p.Value().(*tensor.Dense)
				if !ok {
					continue // a scalar
				}
				x := d.Float64s()
				cost := func(at []float64) float64 {
					copy(x, at)
					Check(t, run())
					return Numbers(other.Cost.Value())[0]
				}
				want := fd.Gradient(nil, cost, Numbers(d), &fd.Settings{Formula: fd.Central})
				copy(x, Numbers(n.Params[i].Value()))
				Near(t, p.Name(), Gradients(t, n.Params[i:i+1]), want, 1e-6)
			}
		})
	}
}

// What a net is declared to be fits its outputs.
func TestLosses(t *testing.T) {
	for name, n := range nets() {
		heads := n.Loss.Heads
		if n.Loss.Family != JointFamily {
			heads = []Loss{n.Loss}
			if n.Loss.Out != n.Out {
				t.Errorf("%s: another node is declared", name)
			}
		}
		for _, h := range heads {
			if h.Out == nil || h.Family == 0 || (h.Family == NormalFamily) != (h.Variance > 0) {
				t.Errorf("%s: %+v", name, h)
			}
		}
	}
}

// Both ways to write a cost have one value.
func TestTwoWaysToWriteACost(t *testing.T) {
	for _, pair := range [][2]Likelihood{{Squares(1), SquaredError}, {Binary, BinaryCrossEntropy},
		{Classes, CrossEntropy}} {
		var costs [2][]float64
		for i, l := range pair {
			n := NewMLP[float64](3, Shape{Cases: 5, Widths: []int{3, 4, 2}}, l)
			Check(t, Tape(n)())
			costs[i] = Numbers(n.Cost.Value())
		}
		Near(t, "cost", costs[0], costs[1], 1e-12)
	}
}

// The loop lowers the cost, in both types and on all machines alike.
func TestTrainers(t *testing.T) {
	t.Run("float64", testTrainers[float64])
	t.Run("float32", testTrainers[float32])
}

func testTrainers[T Float](t *testing.T) {
	var want []float64
	for name, machine := range Machines {
		n := NewMLP[T](1, Shape{Cases: 12, Widths: []int{4, 5, 3}}, BinaryCrossEntropy)
		before := Weights(n.Params)
		tr := &Trainer[gorgonia.Solver]{Net: n, Run: machine(t, n)}
		tr.Solver = gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.2))
		tr.Falls(t, 20, 0.95)
		Moved(t, n.Params, before)
		if want == nil {
			want = Weights(n.Params)
		}
		Near(t, name, Weights(n.Params), want, 1e-5)
		ZeroGradients(n.Params)
	}
}

// A net that shares another's tensors is trained with it.
func TestShare(t *testing.T) {
	first, second := TiedLayers(4), TiedLayers(7)
	tr := &Trainer[gorgonia.Solver]{Net: first, Run: Machines["BindDualValues"](t, first),
		Solver: gorgonia.NewVanillaSolver()}
	tr.Share(t, second)
	before := Weights(second.Params)
	tr.Steps(t, 2)
	Moved(t, second.Params, before)
	SameBits(t, "shared weights", Weights(second.Params), Weights(first.Params))
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		got, want []float64
		distance  float64
	}{
		{[]float64{3, 4}, []float64{3, 4}, 0},
		{[]float64{0, 0}, []float64{0, 0}, 0},
		{[]float64{3, 9}, []float64{3, 4}, 1},
		{[]float64{1}, []float64{0}, math.Inf(1)},
		{[]float64{1}, []float64{1, 2}, math.Inf(1)},
	} {
		if d := Distance(c.got, c.want); d != c.distance {
			t.Errorf("from %v to %v: %g, want %g", c.got, c.want, d, c.distance)
		}
	}
}

package kfac

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The difference of the halves is that between the gradients of two nets that see every other case.
func TestDifferenceOfHalves(t *testing.T) {
	const half = worldCases / 2
	for name, test := range map[string]struct {
		world world
		cases float64 // in the mean that the cost of a half takes
	}{
		"classes": {plainWorld(testnet.Classes), worldCases}, "binary": {plainWorld(testnet.Binary), worldCases},
		"squares": {plainWorld(testnet.Squares(0.5)), worldCases}, "two outputs": {headsWorld(), worldCases},
		"a sum": {plainWorld(testnet.AsSum(testnet.Classes)), half},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewTrainer(t, test.world.build(worldCases))
			l.Steps(t, 1)
			tr := trainingOf(l)
			k := chunk[float64]{graph: tr.graph, plan: tr.plan, units: tr.graph.units, cases: worldCases}
			first, second, err := differ(tr.plan.order, batch[float64]{k}, &tr.ranks)
			if first != half || second != half || err != nil {
				t.Fatal(first, second, err)
			}
			var got []float64
			for _, p := range tr.plan.order {
				got = append(got, p.grad...)
			}
			want := make([]float64, len(got))
			for side, sign := range []float64{1, -1} {
				of := NewTrainer(t, test.world.build(half))
				of.Net.CopyParams(l.Net)
				for _, input := range test.world.cases {
					from, to := testnet.Data(l.Net.Input(input)), testnet.Data(of.Net.Input(input))
					one := len(to) / half
					for c := range half {
						copy(to[c*one:(c+1)*one], from[(2*c+side)*one:])
					}
				}
				testnet.Check(t, of.Run())
				floats.AddScaled(want, sign/(tr.graph.scale()*test.cases), testnet.Gradients(t, of.Params))
			}
			testnet.Near(t, "difference", got, want, 1e-12)
		})
	}
}

// Where nearly all is noise, the loss over all cases is below that of the untrained model from the
// tenth update on, whatever the size of the batch.
func TestNoiseIsNotFitted(t *testing.T) {
	const all, in, classes = 3000, 40, 5
	rng := rand.New(rand.NewPCG(5, 5))
	x, y := make([]float64, all*in), make([]float64, all*classes)
	teacher := make([]float64, in*classes)
	for i := range teacher {
		teacher[i] = 0.1 * rng.NormFloat64()
	}
	for c := range all {
		logits := make([]float64, classes)
		for i := range in {
			x[c*in+i] = rng.NormFloat64()
			floats.AddScaled(logits, x[c*in+i], teacher[i*classes:(i+1)*classes])
		}
		sum, u := floats.LogSumExp(logits), rng.Float64()
		label := 0
		for ; label < classes-1 && u > math.Exp(logits[label]-sum); label++ {
			u -= math.Exp(logits[label] - sum)
		}
		y[c*classes+label] = 1
	}
	loss := func(w []float64) (h float64) { // w and then b, by hand
		for c := range all {
			logits := append([]float64(nil), w[in*classes:]...)
			for i := range in {
				floats.AddScaled(logits, x[c*in+i], w[i*classes:(i+1)*classes])
			}
			h += (floats.LogSumExp(logits) - floats.Dot(logits, y[c*classes:(c+1)*classes])) / all
		}
		return h
	}
	for _, batch := range []int{8, 32, 128, 512} {
		n := testnet.MLP{Widths: []int{in, classes}, Cases: batch, Loss: testnet.Classes}.Build(1)
		for _, p := range n.Params {
			clear(testnet.Data(p))
		}
		l := NewTrainer(t, n)
		for k := 1; k <= 60; k++ {
			for to := range batch {
				c := rng.IntN(all)
				copy(testnet.Data(l.X)[to*in:(to+1)*in], x[c*in:])
				copy(testnet.Data(l.Net.Input("y"))[to*classes:(to+1)*classes], y[c*classes:])
			}
			l.Steps(t, 1)
			if h := loss(testnet.Weights(l.Params)); k >= 10 && k%10 == 0 && !(h < math.Log(classes)) {
				t.Errorf("batches of %d: %.4f after %d updates, %.4f before", batch, h, k, math.Log(classes))
			}
		}
	}
}

package kfac

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// normalisedMLP is a classifier with two hidden layers of the given width, each with layer
// normalisation, a scale and a shift. The shift is apart from the scale if there are gains.
func normalisedMLP(seed uint64, batch, in, width, classes int, gains bool) *testnet.Net {
	n := testnet.NewNet(seed)
	n.X = n.Random("x", batch, in)
	param := func(name string, v float64) *gorgonia.Node {
		n.Params = append(n.Params, n.Constant(name, v, 1, width))
		return n.Params[len(n.Params)-1]
	}
	h := n.X
	for _, l := range []string{"0", "1"} {
		h = normalised(n.Weighted(h, "w"+l, h.Shape()[1], width))
		if scale, shift := param("scale"+l, 1), param("shift"+l, 0); gains {
			h = timesRow(tanh(addRow(h, shift)), scale)
		} else {
			h = tanh(addRow(timesRow(h, scale), shift))
		}
	}
	return n.Ends(n.Weighted(h, "w2", width, classes), testnet.CrossEntropy)
}

// BenchmarkFullBlocks reports the cross-entropy on new batches of a teacher's classes: the mean
// over updates 171 to 200, and three seeds.
//
//	go test -run - -bench FullBlocks -benchtime 1x .
func BenchmarkFullBlocks(b *testing.B) {
	const in, classes, steps = 32, 10, 200
	for _, gains := range []bool{false, true} {
		for _, size := range []struct{ width, batch int }{{64, 64}, {64, 256}, {256, 8}, {256, 32}} {
			for _, largest := range []int{32, 512} {
				b.Run(fmt.Sprintf("gains=%v/width=%d/batch=%d/largest=%d", gains, size.width, size.batch, largest),
					func(b *testing.B) {
						var sum float64
						for range b.N {
							for seed := range uint64(3) {
								n := normalisedMLP(seed, size.batch, in, size.width, classes, gains)
								data := testnet.NewSketch(100 + seed)
								teacher := []*mat.Dense{mat.NewDense(in, 40, data.Normals(in*40)),
									mat.NewDense(40, classes, data.Normals(40*classes))}
								tr := NewTrainer(b, n, WithSeed(seed), WithFullBlocks(largest))
								for step := range steps {
									copy(testnet.Data(n.X), data.Normals(size.batch*in))
									taught(teacher, testnet.Data(n.X), testnet.Data(n.Input("y")))
									tr.Step(b)
									if step >= steps-30 {
										sum += tr.Solver.Stats().Cost / 30 / 3
									}
								}
							}
						}
						b.ReportMetric(sum/float64(b.N), "nats")
					})
			}
		}
	}
}

// taught makes y the classes that a teacher of two layers sees in x.
func taught(teacher []*mat.Dense, x, y []float64) {
	in, _ := teacher[0].Dims()
	_, classes := teacher[1].Dims()
	var h, z mat.Dense
	h.Mul(mat.NewDense(len(x)/in, in, x), teacher[0])
	h.Apply(func(_, _ int, v float64) float64 { return max(-1, min(1, v/4)) }, &h)
	z.Mul(&h, teacher[1])
	clear(y)
	for i := range len(x) / in {
		y[i*classes+floats.MaxIdx(z.RawRowView(i))] = 1
	}
}

package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// layerKinds are networks of every kind of layer and block that can be run on a part of the batch.
func layerKinds() map[string]*testnet.Net {
	kinds := map[string]*testnet.Net{
		"convolution":         linearConvolutions(conv2d, true),
		"words":               testnet.Text(1, 6, cases, testnet.WordsOf(2*cases, 6), false, testnet.Classes),
		"tied":                tiedCoder{In: 4, Hidden: 3, Cases: cases, Bias: true, loss: testnet.Binary}.build(1),
		"tied words":          testnet.Language(1, 6, 3, testnet.WordsOf(cases, 6)),
		"scale and shift":     elementwiseNetNamed("scale and shift").network(testnet.Classes),
		"several uses":        elementwiseNetNamed("several uses").network(testnet.Squares(1)),
		"layer normalisation": elementwiseNetNamed("layer normalisation").network(testnet.Squares(1)),
		"parts":               testnet.Parts(cases),
		"wide scales":         testnet.WideScales(cases),
		"one for each case":   testnet.ScaledCases(cases, testnet.Binary),
	}
	for _, p := range poolings {
		kinds["positions: "+p.name] = p.network(testnet.Binary)
	}
	for _, m := range architectures {
		kinds[m.name] = m.network()
	}
	return kinds
}

// A batch that comes in chunks of different sizes has the moments that it has at once, unless it is
// normalised as a batch.
func TestBlocksOfChunks(t *testing.T) {
	for name, n := range layerKinds() {
		if name == "residual block with batch normalisation and global average" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := attach(t, n)
			m := c.plan.model
			if m.Whole != "" {
				t.Fatal(m.Whole)
			}
			random := testnet.NewSketch(9)
			seeds := make([][]float64, len(m.outputs)) // of the whole batch
			for i, o := range m.outputs {
				seeds[i] = random.Normals(m.Cases * o.cols)
			}
			sweep := func(rows []int) {
				testnet.Check(t, m.run.Forward(rows))
				if rows == nil {
					for i := range m.Cases {
						rows = append(rows, i)
					}
				}
				var chunk []program.Seed[float64]
				for i, o := range m.outputs {
					var seed []float64
					for _, row := range rows {
						seed = append(seed, seeds[i][row*o.cols:(row+1)*o.cols]...)
					}
					chunk = append(chunk, program.Seed[float64]{Node: o.node, Data: seed})
				}
				testnet.Check(t, m.run.Reverse(chunk, c.plan.path))
			}
			sweep(nil)
			want := firstAverages(t, c)
			chunks := [][]int{{2, 0}, {1}}
			if m.Cases == 5 {
				chunks = append(chunks, []int{4, 3})
			}
			for i, rows := range chunks {
				sweep(rows)
				testnet.Check(t, observe(c.plan, false))
				for _, b := range c.plan.blocks {
					if i < len(chunks)-1 {
						b.Accumulate()
					}
				}
			}
			got, err := newAverages(c.plan.blocks, 0, true) // only these
			testnet.Check(t, err)
			for i, b := range c.plan.blocks {
				if _, ok := b.Block.(*curvature.Diagonal[float64]); ok {
					continue // it has the squares of sums over the cases of a run
				}
				checkMoments(t, fmt.Sprintf("%T", b.Block), got[i].Moments, want[i].Moments)
			}
		})
	}
}

// Two runs of one seed give the same weights in every bit, and another seed gives others.
func TestStepsRepeat(t *testing.T) {
	train := func(name string, seed uint64) (weights []float64) {
		n := layerKinds()[name]
		tr := NewTrainer(t, n, WithSeed(seed))
		for range 6 {
			tr.Step(t)
		}
		for _, p := range n.Params {
			weights = append(weights, testnet.Data(p)...)
		}
		return weights
	}
	for _, name := range []string{"convolution", "words", "tied", "tied words", "scale and shift", "parts",
		"wide scales",
		"positions: nonlinear"} {
		first, again, other := train(name, 3), train(name, 3), train(name, 4)
		if !slices.EqualFunc(first, again, func(a, b float64) bool {
			return math.Float64bits(a) == math.Float64bits(b)
		}) {
			t.Errorf("%s: two runs of one seed differ", name)
		}
		if slices.Equal(first, other) {
			t.Errorf("%s: two seeds give the same weights", name)
		}
	}
}

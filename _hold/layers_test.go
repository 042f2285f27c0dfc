package kfac

import (
	"fmt"
	"math"
	"slices"
	"testing"

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
		"one for each case":   testnet.ScaledCases(cases, testnet.Binary),
	}
	for _, p := range poolings {
		kinds["positions: "+p.name] = p.network(testnet.Binary)
	}
	for _, m := range models {
		kinds[m.name] = m.network()
	}
	return kinds
}

// momentsOfBlock are the averages in next that a block keeps.
func momentsOfBlock(b block[float64]) (moments [][]float64) {
	switch b := b.(type) {
	case *kroneckerBlock[float64]:
		moments = append(moments, b.factors.a.next, b.factors.g.next)
	case *tiedBlock[float64]:
		moments = append(moments, b.factors.a.next, b.factors.g.next)
		for _, f := range b.ways {
			moments = append(moments, f.a.next, f.g.next)
		}
	case *elementwiseBlock[float64]:
		moments = append(moments, b.mean.next)
	}
	return moments
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
			if c.model.Whole != "" {
				t.Fatal(c.model.Whole)
			}
			run, random := c.sampler.run, testnet.NewSketch(9)
			seeds := make([][]float64, len(c.outputs)) // of the whole batch
			for i, o := range c.outputs {
				seeds[i] = random.Normals(c.model.Cases * o.cols)
			}
			sweep := func(rows []int) {
				testnet.Check(t, run.Forward(rows))
				if rows == nil {
					for i := range c.model.Cases {
						rows = append(rows, i)
					}
				}
				var chunk []program.Seed[float64]
				for i, o := range c.outputs {
					var seed []float64
					for _, row := range rows {
						seed = append(seed, seeds[i][row*o.cols:(row+1)*o.cols]...)
					}
					chunk = append(chunk, program.Seed[float64]{Node: o.node, Data: seed})
				}
				testnet.Check(t, run.Reverse(chunk, c.sampler.path))
			}
			sweep(nil)
			observeFirst(t, c)
			var want [][][]float64
			for _, b := range c.blocks {
				var copies [][]float64
				for _, m := range momentsOfBlock(b) {
					copies = append(copies, slices.Clone(m))
				}
				want = append(want, copies)
				b.drop()
			}
			chunks := [][]int{{2, 0}, {1}}
			if c.model.Cases == 5 {
				chunks = append(chunks, []int{4, 3})
			}
			for i, rows := range chunks {
				sweep(rows)
				for _, b := range c.blocks {
					testnet.Check(t, b.observe(run))
					if i < len(chunks)-1 {
						b.take()
					}
				}
			}
			for i, b := range c.blocks {
				testnet.Check(t, b.average(0, true)) // only these
				checkMoments(t, fmt.Sprintf("%T", b), momentsOfBlock(b), want[i])
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
	for _, name := range []string{"convolution", "words", "tied", "tied words", "scale and shift",
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

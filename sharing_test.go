package kfac

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// rowsTimes multiplies the last axis of a with w.
func rowsTimes(a, w *gorgonia.Node) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Tensordot([]int{a.Dims() - 1}, []int{0}, a, w))
}

// A pooled net has a layer w, with a bias b or without, that is used at several positions of each
// case, and its positions pooled in some way.
type pooled struct {
	name   string
	build  func(s *testnet.Sketch) (out *gorgonia.Node, params gorgonia.Nodes)
	linear bool // it is linear, and all positions are summed, so that reducing is exact
}

const steps = 4 // positions of each case

// sequence is an input of (cases, steps, 3).
func sequence(s *testnet.Sketch) *gorgonia.Node { return s.Random("x", cases, steps, 3) }

// folded applies w and b to each position of x, (cases, steps, in).
func folded(x, w, b *gorgonia.Node) *gorgonia.Node {
	shape := x.Shape()
	h := mul(reshape(x, shape[0]*shape[1], shape[2]), w)
	if b != nil {
		h = addRow(h, b)
	}
	return reshape(h, shape[0], shape[1], w.Shape()[1])
}

var poolings = []pooled{
	{name: "mean", linear: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b, v := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("v", 4, 2)
			return mul(testnet.Mean(folded(sequence(s), w, b), 1), v), list(w, b, v)
		}},
	{name: "sum", linear: true, build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 2), s.Random("b", 1, 2)
		return testnet.Sum(folded(sequence(s), w, b), 1), list(w, b)
	}},
	{name: "two layers, then mean, then another", linear: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b, u, c, v := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("u", 4, 3), s.Random("c", 1, 3),
				s.Random("v", 3, 2)
			return mul(testnet.Mean(folded(folded(sequence(s), w, b), u, c), 1), v), list(w, b, u, c, v)
		}},
	{name: "sequence not folded", linear: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, b, u := s.Random("w", 3, 4), s.Random("b", 1, 1, 4), s.Random("u", 4, 2)
			h := gorgonia.Must(gorgonia.BroadcastAdd(rowsTimes(sequence(s), w), b, nil, []byte{0, 1}))
			return testnet.Sum(rowsTimes(h, u), 1), list(w, b, u)
		}},
	{name: "nonlinear", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b, u, v := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("u", 4, 3), s.Random("v", 3, 2)
		h := rectify(folded(tanh(folded(sequence(s), w, b)), u, nil))
		return mul(testnet.Mean(h, 1), v), list(w, b, u, v)
	}},
	{name: "residual", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v, x := s.Random("w", 3, 3), s.Random("v", 3, 2), sequence(s)
		return mul(testnet.Mean(add(x, tanh(folded(x, w, nil))), 1), v), list(w, v)
	}},
	{name: "position embedding",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			w, position := s.Random("w", 3, 2), s.Random("position", 1, steps, 2)
			return testnet.Sum(tanh(addRow(folded(sequence(s), w, nil), position)), 1), list(w, position)
		}},
	{name: "global average", linear: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			filter, b, v := s.Random("filter", 3, 2, 2, 2), s.Random("b", 1, 3, 1, 1), s.Random("v", 3, 2)
			h := testnet.Conv2d(s.Random("x", cases, 2, 4, 3), filter, tensor.Shape{2, 2}, []int{1, 0},
				[]int{1, 1}, []int{1, 1})
			h = gorgonia.Must(gorgonia.GlobalAveragePool2D(gorgonia.Must(gorgonia.BroadcastAdd(h, b, nil,
				[]byte{0, 2, 3}))))
			return mul(reshape(h, cases, 3), v), list(filter, b, v)
		}},
	{name: "mean over both axes of an image", linear: true,
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			filter := s.Random("filter", 3, 2, 2, 2)
			h := testnet.Conv2d(s.Random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0},
				[]int{1, 1}, []int{1, 1})
			return testnet.Mean(h, 2, 3), list(filter)
		}},
	{name: "convolution, rectifier, global average",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			filter := s.Random("filter", 3, 2, 2, 2)
			h := testnet.Conv2d(s.Random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0},
				[]int{1, 1}, []int{1, 1})
			return reshape(gorgonia.Must(gorgonia.GlobalAveragePool2D(rectify(h))), cases, 3), list(filter)
		}},

	{name: "two convolutions, global average",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			filter, filter2 := s.Random("filter", 3, 2, 2, 2), s.Random("filter2", 2, 3, 2, 2)
			h := testnet.Conv2d(s.Random("x", cases, 2, 4, 4), filter, tensor.Shape{2, 2}, []int{0, 0},
				[]int{1, 1}, []int{1, 1})
			h = testnet.Conv2d(tanh(h), filter2, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1})
			return reshape(gorgonia.Must(gorgonia.GlobalAveragePool2D(h)), cases, 2), list(filter, filter2)
		}},
	{name: "positions joined", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.Random("w", 3, 4), s.Random("v", steps*4, 2)
		return mul(reshape(tanh(folded(sequence(s), w, nil)), cases, steps*4), v), list(w, v)
	}},
	{name: "an output at each position", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 2), s.Random("b", 1, 2)
		return reshape(folded(sequence(s), w, b), cases, steps*2), list(w, b)
	}},
	{name: "last position", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.Random("w", 3, 4), s.Random("v", 4, 2)
		h := gorgonia.Must(gorgonia.Slice(tanh(folded(sequence(s), w, nil)), nil, gorgonia.S(steps-1)))
		return mul(h, v), list(w, v)
	}},
	{name: "positions mixed by attention",
		build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
			q, k, v, w := s.Random("q", 3, 3), s.Random("k", 3, 3), s.Random("v", 3, 3), s.Random("w", 3, 2)
			x := sequence(s)
			scores := gorgonia.Must(gorgonia.SoftMax(gorgonia.Must(gorgonia.BatchedMatMul(folded(x, q, nil),
				folded(x, k, nil), false, true)), 2))
			h := gorgonia.Must(gorgonia.BatchedMatMul(scores, folded(x, v, nil)))
			return testnet.Mean(folded(h, w, nil), 1), list(q, k, v, w)
		}},
	{name: "mean of a part of the positions", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 2)
		return testnet.Mean(gorgonia.Must(gorgonia.Slice(folded(sequence(s), w, nil), nil, gorgonia.S(1, 3))), 1),
			list(w)
	}},
	{name: "mean over one axis of an image", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter := s.Random("filter", 3, 2, 2, 2)
		h := testnet.Conv2d(s.Random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0},
			[]int{1, 1}, []int{1, 1})
		return reshape(testnet.Mean(h, 3), cases, 6), list(filter)
	}},
	{name: "mean over the features", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 2)
		return testnet.Mean(folded(sequence(s), w, nil), 2), list(w)
	}},
	{name: "mean over positions and features", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.Random("w", 3, 2), s.Random("v", 1, 2)
		h := testnet.Mean(folded(sequence(s), w, nil), 1, 2)
		return mul(reshape(h, cases, 1), v), list(w, v)
	}},
	{name: "normalised before the mean", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 3)
		h := normalised(mul(reshape(sequence(s), cases*steps, 3), w))
		return testnet.Mean(reshape(h, cases, steps, 3), 1), list(w)
	}},
	{name: "positions mixed by a contraction", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, mix := s.Random("w", 3, 2), s.Random("mix", steps, 2)
		return testnet.Sum(gorgonia.Must(gorgonia.Tensordot([]int{1}, []int{0}, folded(sequence(s), w, nil), mix)), 1),
			list(w, mix)
	}},
	{name: "a gate for each position", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, x := s.Random("w", 3, 1), sequence(s)
		return testnet.Sum(gorgonia.Must(gorgonia.BroadcastHadamardProd(x, folded(x, w, nil), nil, []byte{2})), 1),
			list(w)
	}},
	{name: "pooled and not", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 2)
		h := folded(sequence(s), w, nil)
		return gorgonia.Must(gorgonia.Concat(1, testnet.Mean(h, 1), reshape(h, cases, steps*2))), list(w)
	}},
	{name: "maximum", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.Random("w", 3, 2)
		return gorgonia.Must(gorgonia.Max(folded(sequence(s), w, nil), 1)), list(w)
	}},
	{name: "one position", build: func(s *testnet.Sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.Random("w", 3, 2), s.Random("b", 1, 2)
		return testnet.Sum(folded(s.Random("x", cases, 1, 3), w, b), 1), list(w, b)
	}},
}

func (p pooled) network(loss testnet.Likelihood) *testnet.Net {
	s := testnet.NewSketch(1)
	n := &testnet.Net{Sketch: s}
	n.Out, n.Params = p.build(s)
	n.Cost, n.Loss = loss(s, n.Out)
	return n
}

// reduced lists the layers that the plan says are reduced.
func reduced(plan Plan) (names []string) {
	for _, r := range plan.Params {
		if strings.HasSuffix(r.Reason, ", reduced") {
			names = append(names, r.Name)
		}
	}
	return names
}

// Where a linear net sums its positions before the loss, reducing is exact, and so is what
// AutoSharing chooses; expanding is not.
func TestReduceIsExact(t *testing.T) {
	for _, p := range poolings {
		if !p.linear {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			for _, sharing := range []WeightSharing{AutoSharing, Reduce} {
				c := attach(t, p.network(testnet.Squares(0.6)), WithWeightSharing(sharing))
				checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
			}
			c := attach(t, p.network(testnet.Squares(0.6)), WithWeightSharing(Expand))
			avg, l := exactAverages(t, c, nil), placedLayers(c)[0]
			want := pick(denseFisher(t, c, jacobians(t, c)), elements(c, l.Layer))
			if d := testnet.Distance(flatOf(l.kronecker(avg)), flatOf(want)); d < 0.05 {
				t.Errorf("expanded %s is only %.3g away from the Fisher matrix", l.Name(), d)
			}
		})
	}
}

// Where it has an output at each position, expanding is exact, and so is what AutoSharing chooses;
// reducing is not.
func TestExpandIsExact(t *testing.T) {
	build := func() *testnet.Net {
		s := testnet.NewSketch(2)
		n := &testnet.Net{Sketch: s}
		w, b, u, c := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("u", 4, 2), s.Random("c", 1, 2)
		n.Out, n.Params = reshape(folded(folded(sequence(s), w, b), u, c), cases, steps*2), list(w, b, u, c)
		n.Cost, n.Loss = testnet.Squares(0.6)(s, n.Out)
		return n
	}
	for _, sharing := range []WeightSharing{AutoSharing, Expand} {
		c := attach(t, build(), WithWeightSharing(sharing))
		checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
	}
	c := attach(t, build(), WithWeightSharing(Reduce))
	if diff := gocmp.Diff([]string{"w", "u"}, reduced(c.describe())); diff != "" {
		t.Errorf("reduced layers (-want +got):\n%s", diff)
	}
	avg, l := exactAverages(t, c, nil), placedLayers(c)[0]
	want := pick(denseFisher(t, c, jacobians(t, c)), elements(c, l.Layer))
	if d := testnet.Distance(flatOf(l.kronecker(avg)), flatOf(want)); d < 0.05 {
		t.Errorf("reduced %s is only %.3g away from the Fisher matrix", l.Name(), d)
	}
}

// A weight that is used in several products, the sum of which is the output, is exact when it is
// reduced.
func TestReduceOfSeveralProductsIsExact(t *testing.T) {
	s := testnet.NewSketch(3)
	w, b, v := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("v", 4, 2)
	var h *gorgonia.Node
	for i := range 3 {
		part := addRow(mul(s.Random(fmt.Sprint("x", i), cases, 3), w), b)
		if h == nil {
			h = part
		} else {
			h = add(h, part)
		}
	}
	n := &testnet.Net{Sketch: s, Out: mul(h, v), Params: list(w, b, v)}
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	c := attach(t, n, WithWeightSharing(Reduce))
	checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
}

// So is a layer whose inputs are columns, the positions of each case behind each other.
func TestReduceOfColumnsIsExact(t *testing.T) {
	s := testnet.NewSketch(4)
	w, b := s.Random("w", 2, 3), s.Random("b", 2, 1)
	h := addColumn(mul(w, s.Random("x", 3, cases*steps)), b)
	n := &testnet.Net{Sketch: s, Out: testnet.Sum(reshape(transpose(h), cases, steps, 2), 1), Params: list(w, b)}
	n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	c := attach(t, n)
	if diff := gocmp.Diff([]string{"w"}, reduced(c.describe())); diff != "" {
		t.Fatalf("reduced layers (-want +got):\n%s\n%v", diff, c.describe())
	}
	checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
}

// A batch of one case is as good as any.
func TestReduceOfOneCaseIsExact(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			s := testnet.NewSketch(5)
			w, b, v := s.Random("w", 3, 4), s.Random("b", 1, 4), s.Random("v", 4, 2)
			h := testnet.Mean(folded(s.Random("x", 1, steps, 3), w, b), 1)
			n := &testnet.Net{Sketch: s, Out: mul(reshape(h, 1, 4), v), Params: list(w, b, v)}
			n.Cost, n.Loss = loss(s, n.Out)
			c := attach(t, n)
			if diff := gocmp.Diff([]string{"w"}, reduced(c.describe())); diff != "" {
				t.Fatalf("reduced layers (-want +got):\n%s\n%v", diff, c.describe())
			}
			checkBlocks(t, c, exactAverages(t, c, nil), denseFisher(t, c, jacobians(t, c)))
		})
	}
}

// The definitions, written out: A is the mean over cases of the outer product of the mean over
// positions of abar, or the mean over both of its outer product, and G the mean over cases of the
// outer product of the sum over positions of g, or of the sum of its outer products.
func TestSharingFactors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cases, steps := rapid.IntRange(2, 5).Draw(t, "cases"), rapid.IntRange(1, 4).Draw(t, "steps")
		in, out := rapid.IntRange(1, 4).Draw(t, "in"), rapid.IntRange(1, 4).Draw(t, "out")
		bias, sharing := rapid.Bool().Draw(t, "bias"),
			rapid.SampledFrom([]WeightSharing{Expand, Reduce}).Draw(t, "sharing")
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		x, w := s.Random("x", cases, steps, in), s.Random("w", in, out)
		n := &testnet.Net{Sketch: s, Params: list(w)}
		var b *gorgonia.Node
		if bias {
			b = s.Random("b", 1, out)
			n.Params = append(n.Params, b)
		}
		n.Out = reshape(folded(x, w, b), cases, steps*out)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		c := attach(t, n, WithWeightSharing(sharing))
		m, seed := c.plan.model, s.Normals(cases*steps*out)
		testnet.Check(t, m.run.Forward(nil))
		testnet.Check(t, m.run.Reverse([]program.Seed[float64]{{Node: m.outputs[0].node, Data: seed}}, c.plan.path))

		row := func(from []float64, i, width int) []float64 { return slices.Clone(from[i*width : (i+1)*width]) }
		var as, gs [][]float64
		for i := range cases {
			var meanA, sumG []float64
			for p := range steps {
				a, g := row(testnet.Data(x), i*steps+p, in), row(seed, i*steps+p, out)
				if bias {
					a = append(a, 1)
				}
				if sharing == Expand {
					as, gs = append(as, a), append(gs, g)
					continue
				}
				meanA, sumG = plus(meanA, scaled(a, 1/float64(steps))), plus(sumG, g)
			}
			if sharing == Reduce {
				as, gs = append(as, meanA), append(gs, sumG)
			}
		}
		a, g := placedLayers(c)[0].factors(firstAverages(t, c))
		testnet.Near(t, "A", a, outerProducts(as, len(as)), identity)
		testnet.Near(t, "G", g, outerProducts(gs, cases), identity)
	})
}

// With one position per case there is nothing to share: both are the same, and the plan speaks of
// neither.
func TestSharingOfOnePosition(t *testing.T) {
	for _, p := range poolings {
		if p.name != "one position" {
			continue
		}
		c, d := attach(t, p.network(testnet.Classes), WithWeightSharing(Expand)),
			attach(t, p.network(testnet.Classes), WithWeightSharing(Reduce))
		if diff := gocmp.Diff(c.describe(), d.describe()); diff != "" {
			t.Errorf("plans differ:\n%s", diff)
		}
		checkMoments(t, "reduced", momentsOf(t, c, nil), momentsOf(t, d, nil))
	}
}

// Statistics of some rows are those of a batch that holds no others, and chunks average to the
// whole.
func TestReduceOfRows(t *testing.T) {
	for _, p := range poolings {
		if reduced(attach(t, p.network(testnet.Binary)).describe()) == nil {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			c := attach(t, p.network(testnet.Binary))
			var mean [][]float64
			for _, row := range []int{2, 4} {
				for i, m := range momentsOf(t, c, []int{row}) {
					if i == len(mean) {
						mean = append(mean, nil)
					}
					mean[i] = plus(mean[i], scaled(m, 0.5))
				}
			}
			checkMoments(t, "two rows", momentsOf(t, c, []int{4, 2}), mean)
		})
	}
}

func TestReducedLayersTrain(t *testing.T) {
	for _, p := range poolings {
		if slices.Contains([]string{"mean", "nonlinear", "residual", "positions joined"}, p.name) {
			t.Run(p.name, func(t *testing.T) {
				NewTrainer(t, p.network(testnet.Classes), WithInverseUpdatePeriod(20), WithSeed(2)).Falls(t, 25, 0.3)
			})
		}
	}
}

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
)

func sumOver(a *gorgonia.Node, along ...int) *gorgonia.Node  { return must(gorgonia.Sum(a, along...)) }
func meanOver(a *gorgonia.Node, along ...int) *gorgonia.Node { return must(gorgonia.Mean(a, along...)) }

// rowsTimes multiplies the last axis of a with w.
func rowsTimes(a, w *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.Tensordot([]int{a.Dims() - 1}, []int{0}, a, w))
}

// A pooled net has a layer w, with a bias b or without, that is used at several positions of each case, and its positions pooled in some way.
type pooled struct {
	name   string
	build  func(s *sketch) (out *gorgonia.Node, params gorgonia.Nodes)
	reduce []string // the layers that AutoSharing reduces
	linear bool     // it is linear, and all positions are summed, so that reducing is exact
}

const steps = 4 // positions of each case

// sequence is an input of (cases, steps, 3).
func (s *sketch) sequence() *gorgonia.Node { return s.random("x", cases, steps, 3) }

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
	{name: "mean", reduce: []string{"w"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b, v := s.random("w", 3, 4), s.random("b", 1, 4), s.random("v", 4, 2)
		return mul(meanOver(folded(s.sequence(), w, b), 1), v), list(w, b, v)
	}},
	{name: "sum", reduce: []string{"w"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.random("w", 3, 2), s.random("b", 1, 2)
		return sumOver(folded(s.sequence(), w, b), 1), list(w, b)
	}},
	{name: "two layers, then mean, then another", reduce: []string{"w", "u"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b, u, c, v := s.random("w", 3, 4), s.random("b", 1, 4), s.random("u", 4, 3), s.random("c", 1, 3), s.random("v", 3, 2)
		return mul(meanOver(folded(folded(s.sequence(), w, b), u, c), 1), v), list(w, b, u, c, v)
	}},
	{name: "sequence not folded", reduce: []string{"w", "u"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b, u := s.random("w", 3, 4), s.random("b", 1, 1, 4), s.random("u", 4, 2)
		h := must(gorgonia.BroadcastAdd(rowsTimes(s.sequence(), w), b, nil, []byte{0, 1}))
		return sumOver(rowsTimes(h, u), 1), list(w, b, u)
	}},
	{name: "nonlinear", reduce: []string{"w", "u"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b, u, v := s.random("w", 3, 4), s.random("b", 1, 4), s.random("u", 4, 3), s.random("v", 3, 2)
		h := must(gorgonia.Rectify(folded(tanh(folded(s.sequence(), w, b)), u, nil)))
		return mul(meanOver(h, 1), v), list(w, b, u, v)
	}},
	{name: "residual", reduce: []string{"w"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v, x := s.random("w", 3, 3), s.random("v", 3, 2), s.sequence()
		return mul(meanOver(add(x, tanh(folded(x, w, nil))), 1), v), list(w, v)
	}},
	{name: "position embedding", reduce: []string{"w"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, position := s.random("w", 3, 2), s.random("position", 1, steps, 2)
		return sumOver(tanh(must(gorgonia.BroadcastAdd(folded(s.sequence(), w, nil), position, nil, []byte{0}))), 1), list(w, position)
	}},
	{name: "global average", reduce: []string{"filter"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter, b, v := s.random("filter", 3, 2, 2, 2), s.random("b", 1, 3, 1, 1), s.random("v", 3, 2)
		h := must(gorgonia.Conv2d(s.random("x", cases, 2, 4, 3), filter, tensor.Shape{2, 2}, []int{1, 0}, []int{1, 1}, []int{1, 1}))
		h = must(gorgonia.GlobalAveragePool2D(must(gorgonia.BroadcastAdd(h, b, nil, []byte{0, 2, 3}))))
		return mul(reshape(h, cases, 3), v), list(filter, b, v)
	}},
	{name: "mean over both axes of an image", reduce: []string{"filter"}, linear: true, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter := s.random("filter", 3, 2, 2, 2)
		h := must(gorgonia.Conv2d(s.random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		return meanOver(h, 2, 3), list(filter)
	}},
	{name: "convolution, rectifier, global average", reduce: []string{"filter"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter := s.random("filter", 3, 2, 2, 2)
		h := must(gorgonia.Conv2d(s.random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		return reshape(must(gorgonia.GlobalAveragePool2D(must(gorgonia.Rectify(h)))), cases, 3), list(filter)
	}},

	{name: "two convolutions, global average", reduce: []string{"filter2"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter, filter2 := s.random("filter", 3, 2, 2, 2), s.random("filter2", 2, 3, 2, 2)
		h := must(gorgonia.Conv2d(s.random("x", cases, 2, 4, 4), filter, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		h = must(gorgonia.Conv2d(tanh(h), filter2, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		return reshape(must(gorgonia.GlobalAveragePool2D(h)), cases, 2), list(filter, filter2)
	}},
	{name: "positions joined", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.random("w", 3, 4), s.random("v", steps*4, 2)
		return mul(reshape(tanh(folded(s.sequence(), w, nil)), cases, steps*4), v), list(w, v)
	}},
	{name: "an output at each position", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.random("w", 3, 2), s.random("b", 1, 2)
		return reshape(folded(s.sequence(), w, b), cases, steps*2), list(w, b)
	}},
	{name: "last position", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.random("w", 3, 4), s.random("v", 4, 2)
		h := must(gorgonia.Slice(tanh(folded(s.sequence(), w, nil)), nil, gorgonia.S(steps-1)))
		return mul(h, v), list(w, v)
	}},
	{name: "positions mixed by attention", reduce: []string{"w"}, build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		q, k, v, w := s.random("q", 3, 3), s.random("k", 3, 3), s.random("v", 3, 3), s.random("w", 3, 2)
		x := s.sequence()
		scores := must(gorgonia.SoftMax(must(gorgonia.BatchedMatMul(folded(x, q, nil), folded(x, k, nil), false, true)), 2))
		h := must(gorgonia.BatchedMatMul(scores, folded(x, v, nil)))
		return meanOver(folded(h, w, nil), 1), list(q, k, v, w)
	}},
	{name: "mean of a part of the positions", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.random("w", 3, 2)
		return meanOver(must(gorgonia.Slice(folded(s.sequence(), w, nil), nil, gorgonia.S(1, 3))), 1), list(w)
	}},
	{name: "mean over one axis of an image", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		filter := s.random("filter", 3, 2, 2, 2)
		h := must(gorgonia.Conv2d(s.random("x", cases, 2, 3, 3), filter, tensor.Shape{2, 2}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		return reshape(meanOver(h, 3), cases, 6), list(filter)
	}},
	{name: "mean over the features", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.random("w", 3, 2)
		return meanOver(folded(s.sequence(), w, nil), 2), list(w)
	}},
	{name: "mean over positions and features", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, v := s.random("w", 3, 2), s.random("v", 1, 2)
		h := meanOver(folded(s.sequence(), w, nil), 1, 2)
		return mul(reshape(h, cases, 1), v), list(w, v)
	}},
	{name: "normalised before the mean", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.random("w", 3, 3)
		h := normalised(mul(reshape(s.sequence(), cases*steps, 3), w))
		return meanOver(reshape(h, cases, steps, 3), 1), list(w)
	}},
	{name: "positions mixed by a contraction", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, mix := s.random("w", 3, 2), s.random("mix", steps, 2)
		return sumOver(must(gorgonia.Tensordot([]int{1}, []int{0}, folded(s.sequence(), w, nil), mix)), 1), list(w, mix)
	}},
	{name: "a gate for each position", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, x := s.random("w", 3, 1), s.sequence()
		return sumOver(must(gorgonia.BroadcastHadamardProd(x, folded(x, w, nil), nil, []byte{2})), 1), list(w)
	}},
	{name: "pooled and not", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.random("w", 3, 2)
		h := folded(s.sequence(), w, nil)
		return must(gorgonia.Concat(1, meanOver(h, 1), reshape(h, cases, steps*2))), list(w)
	}},
	{name: "maximum", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w := s.random("w", 3, 2)
		return must(gorgonia.Max(folded(s.sequence(), w, nil), 1)), list(w)
	}},
	{name: "one position", build: func(s *sketch) (*gorgonia.Node, gorgonia.Nodes) {
		w, b := s.random("w", 3, 2), s.random("b", 1, 2)
		return sumOver(folded(s.random("x", cases, 1, 3), w, b), 1), list(w, b)
	}},
}

func (p pooled) network(loss lossFunc) *network {
	s := newSketch(1)
	n := &network{sketch: s}
	n.out, n.params = p.build(s)
	n.cost, n.dist = loss(s, n.out)
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

func TestAutoSharing(t *testing.T) {
	for _, p := range poolings {
		t.Run(p.name, func(t *testing.T) {
			c := attach(t, p.network(squares(1)))
			if diff := gocmp.Diff(p.reduce, reduced(c.plan)); diff != "" {
				t.Errorf("reduced layers (-want +got):\n%s\n%v", diff, c.plan)
			}
			if got := reduced(attach(t, p.network(squares(1)), WithWeightSharing(Expand)).plan); got != nil {
				t.Errorf("with Expand, %v are reduced", got)
			}
		})
	}
}

// Where a linear net sums its positions before the loss, reducing is exact, and so is what AutoSharing chooses; expanding is not.
func TestReduceIsExact(t *testing.T) {
	for _, p := range poolings {
		if !p.linear {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			for _, sharing := range []WeightSharing{AutoSharing, Reduce} {
				c := attach(t, p.network(squares(0.6)), WithWeightSharing(sharing))
				observeExactly(t, c, nil)
				checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
			}
			c := attach(t, p.network(squares(0.6)), WithWeightSharing(Expand))
			observeExactly(t, c, nil)
			b := layerBlocks(c)[0]
			want := pick(denseFisher(t, c, jacobians(t, c)), elements(c, b.layer))
			if d := distance(flatOf(kronecker(b.factors)), flatOf(want)); d < 0.05 {
				t.Errorf("expanded %s is only %.3g away from the Fisher matrix", b.layer.Name(), d)
			}
		})
	}
}

// Where it has an output at each position, expanding is exact, and so is what AutoSharing chooses; reducing is not.
func TestExpandIsExact(t *testing.T) {
	build := func() *network {
		s := newSketch(2)
		n := &network{sketch: s}
		w, b, u, c := s.random("w", 3, 4), s.random("b", 1, 4), s.random("u", 4, 2), s.random("c", 1, 2)
		n.out, n.params = reshape(folded(folded(s.sequence(), w, b), u, c), cases, steps*2), list(w, b, u, c)
		n.cost, n.dist = squares(0.6)(s, n.out)
		return n
	}
	for _, sharing := range []WeightSharing{AutoSharing, Expand} {
		c := attach(t, build(), WithWeightSharing(sharing))
		observeExactly(t, c, nil)
		checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
	}
	c := attach(t, build(), WithWeightSharing(Reduce))
	if diff := gocmp.Diff([]string{"w", "u"}, reduced(c.plan)); diff != "" {
		t.Errorf("reduced layers (-want +got):\n%s", diff)
	}
	observeExactly(t, c, nil)
	b := layerBlocks(c)[0]
	want := pick(denseFisher(t, c, jacobians(t, c)), elements(c, b.layer))
	if d := distance(flatOf(kronecker(b.factors)), flatOf(want)); d < 0.05 {
		t.Errorf("reduced %s is only %.3g away from the Fisher matrix", b.layer.Name(), d)
	}
}

// A weight that is used in several products, the sum of which is the output, is exact when it is reduced.
func TestReduceOfSeveralProductsIsExact(t *testing.T) {
	s := newSketch(3)
	w, b, v := s.random("w", 3, 4), s.random("b", 1, 4), s.random("v", 4, 2)
	var h *gorgonia.Node
	for i := range 3 {
		part := addRow(mul(s.random(fmt.Sprint("x", i), cases, 3), w), b)
		if h == nil {
			h = part
		} else {
			h = add(h, part)
		}
	}
	n := &network{sketch: s, out: mul(h, v), params: list(w, b, v)}
	n.cost, n.dist = squares(1)(s, n.out)
	c := attach(t, n, WithWeightSharing(Reduce))
	observeExactly(t, c, nil)
	checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
}

// So is a layer whose inputs are columns, the positions of each case behind each other.
func TestReduceOfColumnsIsExact(t *testing.T) {
	s := newSketch(4)
	w, b := s.random("w", 2, 3), s.random("b", 2, 1)
	h := addColumn(mul(w, s.random("x", 3, cases*steps)), b)
	n := &network{sketch: s, out: sumOver(reshape(transpose(h), cases, steps, 2), 1), params: list(w, b)}
	n.cost, n.dist = squares(1)(s, n.out)
	c := attach(t, n)
	if diff := gocmp.Diff([]string{"w"}, reduced(c.plan)); diff != "" {
		t.Fatalf("reduced layers (-want +got):\n%s\n%v", diff, c.plan)
	}
	observeExactly(t, c, nil)
	checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
}

// A batch of one case is as good as any.
func TestReduceOfOneCaseIsExact(t *testing.T) {
	for name, loss := range likelihoods {
		t.Run(name, func(t *testing.T) {
			s := newSketch(5)
			w, b, v := s.random("w", 3, 4), s.random("b", 1, 4), s.random("v", 4, 2)
			h := meanOver(folded(s.random("x", 1, steps, 3), w, b), 1)
			n := &network{sketch: s, out: mul(reshape(h, 1, 4), v), params: list(w, b, v)}
			n.cost, n.dist = loss(s, n.out)
			c := attach(t, n)
			if diff := gocmp.Diff([]string{"w"}, reduced(c.plan)); diff != "" {
				t.Fatalf("reduced layers (-want +got):\n%s\n%v", diff, c.plan)
			}
			observeExactly(t, c, nil)
			checkBlocks(t, c, denseFisher(t, c, jacobians(t, c)))
		})
	}
}

// The definitions, written out: A is the mean over cases of the outer product of the mean over positions of abar, or the mean over both of its outer product, and G
// the mean over cases of the outer product of the sum over positions of g, or of the sum of its outer products.
func TestSharingFactors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cases, steps := rapid.IntRange(2, 5).Draw(t, "cases"), rapid.IntRange(1, 4).Draw(t, "steps")
		in, out := rapid.IntRange(1, 4).Draw(t, "in"), rapid.IntRange(1, 4).Draw(t, "out")
		bias, sharing := rapid.Bool().Draw(t, "bias"), rapid.SampledFrom([]WeightSharing{Expand, Reduce}).Draw(t, "sharing")
		s := newSketch(rapid.Uint64().Draw(t, "seed"))
		x, w := s.random("x", cases, steps, in), s.random("w", in, out)
		n := &network{sketch: s, params: list(w)}
		var b *gorgonia.Node
		if bias {
			b = s.random("b", 1, out)
			n.params = append(n.params, b)
		}
		n.out = reshape(folded(x, w, b), cases, steps*out)
		n.cost, n.dist = squares(1)(s, n.out)
		c := attach(t, n, WithWeightSharing(sharing))
		run, seed := c.sampler.run, s.normals(cases*steps*out)
		check(t, run.Forward(nil))
		check(t, run.Reverse([]program.Seed[float64]{{Node: c.outputs[0].node, Data: seed}}, c.sampler.path))
		observeFirst(t, c)

		row := func(from []float64, i, width int) []float64 { return slices.Clone(from[i*width : (i+1)*width]) }
		var as, gs [][]float64
		for i := range cases {
			var meanA, sumG []float64
			for p := range steps {
				a, g := row(data(x), i*steps+p, in), row(seed, i*steps+p, out)
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
		f := layerBlocks(c)[0].factors
		checkNear(t, "A", f.a.next, outerProducts(as, len(as)), identity)
		checkNear(t, "G", f.g.next, outerProducts(gs, cases), identity)
	})
}

// With one position per case there is nothing to share: both are the same, and the plan speaks of neither.
func TestSharingOfOnePosition(t *testing.T) {
	for _, p := range poolings {
		if p.name != "one position" {
			continue
		}
		c, d := attach(t, p.network(classes), WithWeightSharing(Expand)), attach(t, p.network(classes), WithWeightSharing(Reduce))
		if diff := gocmp.Diff(c.plan, d.plan); diff != "" {
			t.Errorf("plans differ:\n%s", diff)
		}
		checkMoments(t, "reduced", momentsOf(t, c, nil), momentsOf(t, d, nil))
	}
}

// Statistics of some rows are those of a batch that holds no others, and chunks average to the whole.
func TestReduceOfRows(t *testing.T) {
	for _, p := range poolings {
		if p.reduce == nil {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			c := attach(t, p.network(binary))
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

// What can't be reduced is not: lookups, tied weights, and positions that lie before the cases.
func TestReduceWhereItCannot(t *testing.T) {
	s := newSketch(6)
	table := s.random("table", 5, 2)
	found := must(gorgonia.ByIndices(table, s.words("words", someWords(cases*steps, 5)...), 0))
	lookups := &network{sketch: s, out: sumOver(reshape(found, cases, steps, 2), 1), params: list(table)}
	lookups.cost, lookups.dist = squares(1)(s, lookups.out)

	s = newSketch(7)
	w := s.random("w", 3, 2)
	timeMajor := &network{sketch: s, out: sumOver(rowsTimes(s.random("x", steps, cases, 3), w), 0), params: list(w)}
	timeMajor.cost, timeMajor.dist = squares(1)(s, timeMajor.out)

	s = newSketch(8)
	v := s.random("v", 3, 2)
	h := tanh(mul(reshape(s.sequence(), cases*steps, 3), v))
	tied := &network{sketch: s, out: sumOver(reshape(mul(h, transpose(v)), cases, steps, 3), 1), params: list(v)}
	tied.cost, tied.dist = squares(1)(s, tied.out)

	for name, n := range map[string]*network{"lookups": lookups, "positions before cases": timeMajor, "tied": tied} {
		c := attach(t, n, WithWeightSharing(Reduce))
		if got := reduced(c.plan); got != nil {
			t.Errorf("%s: reduced %v", name, got)
		}
		if !strings.Contains(c.plan.Params[0].Reason, "4 positions per case") || c.plan.Params[0].Treatment != Kronecker {
			t.Errorf("%s:\n%v", name, c.plan)
		}
	}
}

func TestReducedLayersTrain(t *testing.T) {
	for _, p := range poolings {
		if slices.Contains([]string{"mean", "nonlinear", "residual", "positions joined"}, p.name) {
			t.Run(p.name, func(t *testing.T) { newTrainer(t, p.network(classes), WithInverseUpdatePeriod(20)).falls(t, 25, 0.3) })
		}
	}
}

package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/curvature/curvaturetest"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// chainsIn lists the chains among the blocks, "w0 - w1", in alphabetical order.
func chainsIn(c *training[float64]) (chains []string) {
	for i, b := range c.plan.blocks {
		if _, ok := b.Block.(*curvature.Chain[float64]); ok {
			var names []string
			for _, l := range c.plan.hooks[i].(*layerHook[float64]).layers {
				names = append(names, l.Name())
			}
			chains = append(chains, strings.Join(names, " - "))
		}
	}
	slices.Sort(chains)
	return chains
}

// Chains that are found in the graph have a block each, whatever the order of the parameters, and
// the plan tells them. Without the option there are none.
func TestChains(t *testing.T) {
	const cases = testnet.Cases
	for _, test := range []struct {
		name  string
		build func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node
		want  []string
	}{
		{"perceptron", func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			h := testnet.Tanh(n.Layer(x, 0, 3, 4, true, false))
			return n.Layer(testnet.Tanh(n.Layer(h, 1, 4, 2, true, false)), 2, 2, 3, true, false)
		}, []string{"w0 - w1 - w2"}},

		{"two heads of two layers", func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			h := testnet.Tanh(n.Weighted(x, "w", 3, 4))
			u := n.Weighted(testnet.Tanh(n.Weighted(h, "u0", 4, 3)), "u1", 3, 2)
			return testnet.Add(u, n.Weighted(testnet.Tanh(n.Weighted(h, "v0", 4, 3)), "v1", 3, 2))
		}, []string{"u0 - u1", "v0 - v1"}},

		{"several positions per case, then one", func(n *testnet.Net, _ *gorgonia.Node) *gorgonia.Node {
			h := testnet.Reshape(n.Random("rows", cases, 2, 3), cases*2, 3)
			h = testnet.Tanh(n.Weighted(testnet.Tanh(n.Weighted(h, "w0", 3, 4)), "w1", 4, 3))
			h = testnet.Tanh(n.Weighted(testnet.Reshape(h, cases, 6), "w2", 6, 3))
			return n.Weighted(h, "w3", 3, 2)
		}, []string{"w2 - w3"}},

		{"frozen layer between two", func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node {
			h := testnet.Tanh(n.Layer(x, 0, 3, 4, true, false))
			h = testnet.Tanh(n.Layer(h, 1, 4, 4, true, false))
			out := n.Layer(h, 2, 4, 2, true, false)
			n.Freeze("w1", "b1")
			return out
		}, []string{"w0 - w2"}},

		{"one layer", func(n *testnet.Net, x *gorgonia.Node) *gorgonia.Node { return n.Weighted(x, "w", 3, 2) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for order := range 3 {
				n := testnet.NewNet(1)
				n.Ends(test.build(n, n.Random("x", cases, 3)), testnet.Squares(1))
				switch order {
				case 1:
					slices.Reverse(n.Params)
				case 2:
					rand.New(rand.NewPCG(2, 2)).Shuffle(len(n.Params), func(i, j int) {
						n.Params[i], n.Params[j] = n.Params[j], n.Params[i]
					})
				}
				c := attach(t, n, WithBlockTridiagonal())
				if got := chainsIn(c); !slices.Equal(got, test.want) {
					t.Errorf("chains %q, want %q", got, test.want)
				}
				checkChainNotes(t, c.describe().Notes, test.want)
				plain := attach(t, n)
				if got := chainsIn(plain); len(got) > 0 {
					t.Errorf("chains %q without the option", got)
				}
				if got, want := len(placedLayers(c)), len(placedLayers(plain)); got != want {
					t.Errorf("%d layers, %d without the option", got, want)
				}
			}
		})
	}
}

func checkChainNotes(t *testing.T, notes, want []string) {
	t.Helper()
	var told []string
	for _, note := range notes {
		if chain, ok := strings.CutPrefix(note, "block-tridiagonal inverse along "); ok {
			told = append(told, chain)
		} else if strings.HasPrefix(note, "block-tridiagonal") != (len(want) == 0) {
			t.Errorf("note %q with chains %q", note, want)
		}
	}
	slices.Sort(told)
	if !slices.Equal(told, want) || len(notes) == 0 {
		t.Errorf("the plan's notes are %q, want the chains %q", notes, want)
	}
}

// A stack is a perceptron of tanh units whose layers are stored in various ways.
type stack struct {
	*testnet.Net
	widths  []int
	outByIn []bool
	w, b    []*gorgonia.Node // b is nil where there is no bias
	columns bool             // the cases are columns, not rows
}

func drawStack(t *rapid.T, layers int) *stack {
	s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
	k := &stack{Net: &testnet.Net{Sketch: s}, columns: rapid.Bool().Draw(t, "columns")}
	losses := []testnet.Likelihood{testnet.Squares(0.37), testnet.Binary, testnet.Classes}
	loss := losses[rapid.IntRange(0, 2).Draw(t, "loss")]
	cases := rapid.IntRange(2, 12).Draw(t, "cases")
	k.widths = []int{rapid.IntRange(1, 4).Draw(t, "inputs")}
	for i := range layers {
		least := 1
		if i == layers-1 {
			least = 2 // classes
		}
		k.widths = append(k.widths, rapid.IntRange(least, 4).Draw(t, "width"))
		k.outByIn = append(k.outByIn, rapid.Bool().Draw(t, "out x in"))
		k.b = append(k.b, nil)
		if rapid.Bool().Draw(t, "bias") {
			k.b[i] = s.Random(fmt.Sprint("b", i), 1, k.widths[i+1])
		}
	}
	k.build(cases, loss)
	return k
}

func (k *stack) build(cases int, loss testnet.Likelihood) {
	s := k.Sketch
	k.X = s.Random("x", cases, k.widths[0])
	h := k.X
	if k.columns {
		h = testnet.Transpose(h)
	}
	for i, out := range k.widths[1:] {
		in := k.widths[i]
		if i > 0 {
			h = testnet.Tanh(h)
		}
		shape := []int{in, out}
		if k.outByIn[i] {
			shape = []int{out, in}
		}
		w := s.Random(fmt.Sprint("w", i), shape...)
		k.w, k.Params = append(k.w, w), append(k.Params, w)
		if k.b[i] != nil {
			k.Params = append(k.Params, k.b[i])
		}
		if k.outByIn[i] != k.columns {
			w = testnet.Transpose(w)
		}
		switch b := k.b[i]; {
		case k.columns && b != nil:
			h = testnet.AddColumn(testnet.Mul(w, h), testnet.Reshape(b, out, 1))
		case k.columns:
			h = testnet.Mul(w, h)
		case b != nil:
			h = testnet.AddRow(testnet.Mul(h, w), b)
		default:
			h = testnet.Mul(h, w)
		}
	}
	if k.columns {
		h = testnet.Transpose(h)
	}
	k.Out = h
	k.Cost, k.Loss = loss(s, h)
}

// weight is that of layer i, in x out.
func (k *stack) weight(i int) mat.Matrix {
	shape := k.w[i].Shape()
	w := mat.NewDense(shape[0], shape[1], testnet.Data(k.w[i]))
	if k.outByIn[i] {
		return w.T()
	}
	return w
}

// sweep computes, without Gorgonia, the inputs abar of every layer, cases x abar, the outputs, and
// the Jacobians of the outputs with respect to what every layer computes, by layer and case.
func (k *stack) sweep(x []float64) (abar []*mat.Dense, z *mat.Dense, jacobians [][]*mat.Dense) {
	cases := len(x) / k.widths[0]
	h := mat.NewDense(cases, k.widths[0], slices.Clone(x))
	var slopes []*mat.Dense // of the units between layer i and the next
	for i := range k.w {
		bar := h
		if k.b[i] != nil {
			bar = mat.NewDense(cases, k.widths[i]+1, nil)
			bar.Augment(h, mat.NewDense(cases, 1, slices.Repeat([]float64{1}, cases)))
		}
		abar = append(abar, bar)
		var s mat.Dense
		s.Mul(h, k.weight(i))
		if b := k.b[i]; b != nil {
			s.Apply(func(_, c int, v float64) float64 { return v + testnet.Data(b)[c] }, &s)
		}
		z, h = &s, &mat.Dense{}
		h.Apply(func(_, _ int, v float64) float64 { return math.Tanh(v) }, &s)
		slope := &mat.Dense{}
		slope.Apply(func(_, _ int, a float64) float64 { return 1 - a*a }, h)
		slopes = append(slopes, slope)
	}
	jacobians = make([][]*mat.Dense, len(k.w))
	for n := range cases {
		j := eye(k.widths[len(k.w)])
		for i := len(k.w) - 1; i >= 0; i-- {
			jacobians[i] = append(jacobians[i], j)
			if i > 0 {
				next := &mat.Dense{}
				next.Mul(j, k.weight(i).T())
				next.Apply(func(_, c int, v float64) float64 { return v * slopes[i-1].At(n, c) }, next)
				j = next
			}
		}
	}
	return abar, z, jacobians
}

// eye is the identity matrix.
func eye(n int) *mat.Dense { return plusDiagonal(make([]float64, n*n), 1) }

// chainMoments are the moments A_ij and G_ij of all pairs of layers of a chain, from the same
// cases.
type chainMoments struct {
	abar, out []int
	a, g      [][]*mat.Dense
}

// offsets are where the layers begin in the vector of all weights, and its length.
func (c *chainMoments) offsets() []int { return curvaturetest.Offsets(c.abar, c.out) }

// kroneckers is the matrix of the blocks A_ij (x) G_ij with |i-j| <= 1.
func (c *chainMoments) kroneckers() *mat.Dense {
	at := c.offsets()
	n := at[len(at)-1]
	m := mat.NewDense(n, n, nil)
	for i := range c.abar {
		for j := range c.abar {
			if max(i-j, j-i) <= 1 {
				var block mat.Dense
				block.Kronecker(c.a[i][j], c.g[i][j])
				m.Slice(at[i], at[i+1], at[j], at[j+1]).(*mat.Dense).Copy(&block)
			}
		}
	}
	return m
}

func inverseOf(t rapid.TB, m *mat.Dense) *mat.Dense {
	t.Helper()
	var inv mat.Dense
	testnet.Check(t, inv.Inverse(m))
	return &inv
}

// moments are A_ij and G_ij of all pairs of layers, with the expectation over the model's targets.
func (k *stack) moments(h head) *chainMoments {
	abar, z, jacobians := k.sweep(testnet.Data(k.X))
	cases, outputs := z.Dims()
	m := &chainMoments{a: curvaturetest.CrossMoments(cases, abar)}
	for i := range k.w {
		_, width := abar[i].Dims()
		m.abar, m.out = append(m.abar, width), append(m.out, k.widths[i+1])
		var row []*mat.Dense
		for j := range k.w {
			g := mat.NewDense(k.widths[i+1], k.widths[j+1], nil)
			for n := range cases {
				fisher := mat.NewDense(outputs, outputs, plainFisher(h, slices.Clone(z.RawRowView(n))))
				var part mat.Dense
				part.Product(jacobians[i][n].T(), fisher, jacobians[j][n])
				part.Scale(1/float64(cases), &part)
				g.Add(g, &part)
			}
			row = append(row, g)
		}
		m.g = append(m.g, row)
	}
	return m
}

// damped damps the factors of each layer.
func (c *chainMoments) damped(gamma float64) *chainMoments {
	for i := range c.abar {
		c.a[i][i], c.g[i][i] = tikhonovDamped(c.a[i][i], c.g[i][i], gamma)
	}
	return c
}

// inverseByDefinition is F^^-1 = Xi^T Lambda Xi written out (section 4.3), of factors that are
// damped already.
func (c *chainMoments) inverseByDefinition(t rapid.TB) *mat.Dense {
	t.Helper()
	at := c.offsets()
	layers, n := len(c.abar), at[len(at)-1]
	xi, lambda := eye(n), mat.NewDense(n, n, nil)
	for i := range layers {
		var sigma mat.Dense
		sigma.Kronecker(c.a[i][i], c.g[i][i])
		if i+1 < layers {
			var psiA, psiG, psi, next, explained mat.Dense
			psiA.Mul(c.a[i][i+1], inverseOf(t, c.a[i+1][i+1]))
			psiG.Mul(c.g[i][i+1], inverseOf(t, c.g[i+1][i+1]))
			psi.Kronecker(&psiA, &psiG)
			next.Kronecker(c.a[i+1][i+1], c.g[i+1][i+1])
			explained.Product(&psi, &next, psi.T())
			sigma.Sub(&sigma, &explained)
			psi.Scale(-1, &psi)
			xi.Slice(at[i], at[i+1], at[i+1], at[i+2]).(*mat.Dense).Copy(&psi)
		}
		lambda.Slice(at[i], at[i+1], at[i], at[i+1]).(*mat.Dense).Copy(inverseOf(t, &sigma))
	}
	var inverse mat.Dense
	inverse.Product(xi.T(), lambda, xi)
	return &inverse
}

// of is a quantity of the layer's parameters, abar x out.
func (l placedLayer) of(c *training[float64], of func(*parameter[float64]) []float64) (v []float64) {
	var all []float64
	for _, p := range c.plan.order {
		all = append(all, of(p)...)
	}
	for _, i := range elements(c, l.Layer) {
		v = append(v, all[i])
	}
	return v
}

// gradient and direction are those of the layer's parameters, abar x out.
func (l placedLayer) gradient(c *training[float64]) []float64 {
	return l.of(c, func(p *parameter[float64]) []float64 { return p.grad })
}

func (l placedLayer) direction(c *training[float64]) []float64 {
	return l.of(c, func(p *parameter[float64]) []float64 { return p.direction })
}

func times(m *mat.Dense, v []float64) []float64 {
	var u mat.VecDense
	u.MulVec(m, mat.NewVecDense(len(v), v))
	return u.RawVector().Data
}

// The direction of a whole net is the dense inverse of F^ times the gradient, for layers stored in
// all ways. Of two layers, F^ is all of the Kronecker products.
func TestDirectionOfAChain(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		layers := rapid.IntRange(2, 4).Draw(t, "layers")
		gamma := rapid.Float64Range(0.05, 2).Draw(t, "gamma")
		k := drawStack(t, layers)
		c := attach(tt, k.Net, WithBlockTridiagonal())
		if len(c.plan.blocks) != 1 || len(placedLayers(c)) != layers {
			t.Fatalf("not one chain of all layers; plan:\n%v", c.describe())
		}
		gradients(tt, c)
		directions(tt, c, exactAverages(tt, c, nil), gamma)

		m := k.moments(c.plan.model.outputs[0].head).damped(gamma)
		var v, got []float64
		for _, l := range placedLayers(c) {
			v, got = append(v, l.gradient(c)...), append(got, l.direction(c)...)
		}
		testnet.Near(t, "direction", got, times(m.inverseByDefinition(t), v), 1e-9)
		if layers == 2 {
			testnet.Near(t, "direction by the whole matrix", got, times(inverseOf(t, m.kroneckers()), v), 1e-9)
		}
	})
}

// What is not in a chain has the block that it has without the option, so that nothing changes for
// a net of one layer.
func TestChainOfOneLayer(t *testing.T) {
	one := testnet.MLP{Widths: []int{4, 3}, Cases: 10, Loss: testnet.Classes}
	plain, option := NewTrainer(t, one.Build(1)), NewTrainer(t, one.Build(1), WithBlockTridiagonal())
	for range 6 {
		plain.Steps(t, 1)
		option.Steps(t, 1)
		checkTwins(t, option, plain)
	}
}

// The cross moments follow the same average as the factors: the plain mean of the first 20 updates,
// and then 1/20 of each.
func TestCrossMomentsAverage(t *testing.T) {
	k := &stack{Net: &testnet.Net{Sketch: testnet.NewSketch(4)}, widths: []int{3, 4, 2, 3},
		outByIn: []bool{false, true, false}}
	k.b = []*gorgonia.Node{k.Sketch.Random("b0", 1, 4), nil, k.Sketch.Random("b2", 1, 3)}
	const cases = 5
	k.build(cases, testnet.Squares(1))
	c := attach(t, k.Net, WithBlockTridiagonal())
	run := c.plan.model.run
	var wantA, wantG [][]float64 // A_01, A_12; G_01, G_12
	for update := 1; update <= 25; update++ {
		x, seed := k.Sketch.Normals(cases*3), k.Sketch.Normals(cases*3)
		testnet.Check(t, run.Bind(placedLayers(c)[0].Sites[0].Input, x))
		sweepFrom(t, c, seed)
		testnet.Check(t, observe(c.plan, false))
		averages[float64]{nil}.keep(c.plan.blocks, c.cfg.ema)

		abar, _, jacobians := k.sweep(x)
		g := make([]*mat.Dense, len(k.w))
		for i := range g {
			g[i] = mat.NewDense(cases, k.widths[i+1], nil)
			for n := range cases {
				var row mat.VecDense
				row.MulVec(jacobians[i][n].T(), mat.NewVecDense(3, seed[n*3:(n+1)*3]))
				g[i].SetRow(n, row.RawVector().Data)
			}
		}
		weight := max(1/float64(update), 0.05)
		wantA = averaged(wantA, neighbours(curvaturetest.CrossMoments(cases, abar)), weight)
		wantG = averaged(wantG, neighbours(curvaturetest.CrossMoments(cases, g)), weight)
		moments := currentAverages(c)[0].Moments[6:] // behind those of three layers
		for i := range wantA {
			testnet.Near(t, fmt.Sprintf("A %d after update %d", i, update), moments[2*i], wantA[i], identity)
			testnet.Near(t, fmt.Sprintf("G %d after update %d", i, update), moments[2*i+1], wantG[i], identity)
		}
	}
}

// neighbours are the moments of each layer with the next.
func neighbours(moments [][]*mat.Dense) (flat [][]float64) {
	for i := range len(moments) - 1 {
		flat = append(flat, flatOf(moments[i][i+1]))
	}
	return flat
}

// averaged is (1 - weight) mean + weight x.
func averaged(mean, x [][]float64, weight float64) (sum [][]float64) {
	for i := range x {
		s := make([]float64, len(x[i]))
		for k, v := range x[i] {
			s[k] = weight * v
			if mean != nil {
				s[k] += (1 - weight) * mean[i][k]
			}
		}
		sum = append(sum, s)
	}
	return sum
}

// After many updates from random parts of the batch, the joint second moments of neighbours are
// positive semidefinite, without which F^ need not be. Cross moments with weights of their own
// would make them indefinite.
func TestJointMomentsArePositive(t *testing.T) {
	n := testnet.MLP{Widths: []int{4, 5, 3, 2}, Cases: 30, Unit: gorgonia.Tanh, Loss: testnet.Binary}.Build(3)
	l := NewTrainer(t, n, WithBlockTridiagonal(), WithMinStatisticsCases(3), WithMinModelCases(30))
	for range 60 {
		copy(testnet.Data(n.X), n.Sketch.Normals(len(testnet.Data(n.X))))
		l.Steps(t, 1)
	}
	m := currentAverages(trainingOf(l))[0].Moments
	const layers = 3
	for i := range layers - 1 {
		for side, name := range []string{"A", "G"} {
			first, second := square(m[2*i+side]), square(m[2*(i+1)+side])
			n, _ := first.Dims()
			size, _ := second.Dims()
			size += n
			cross := mat.NewDense(n, size-n, m[2*(layers+i)+side])
			joint := mat.NewDense(size, size, nil)
			joint.Slice(0, n, 0, n).(*mat.Dense).Copy(first)
			joint.Slice(0, n, n, size).(*mat.Dense).Copy(cross)
			joint.Slice(n, size, 0, n).(*mat.Dense).Copy(cross.T())
			joint.Slice(n, size, n, size).(*mat.Dense).Copy(second)
			var eigen mat.EigenSym
			if !eigen.Factorize(mat.NewSymDense(size, flatOf(joint)), false) {
				t.Fatal("no eigenvalues")
			}
			if v := eigen.Values(nil); v[0] < -1e-13*v[size-1] || mat.Norm(cross, 2) < 1e-3*v[size-1] {
				t.Errorf("%s of layers %d and %d: eigenvalues from %g to %g, cross moment of norm %g",
					name, i, i+1, v[0], v[size-1], mat.Norm(cross, 2))
			}
		}
	}
}

// An inverse is in use from when it is kept until another is. Candidates stay what they are beside
// each other.
func TestChainKeepsInverses(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 3, 2}, Cases: 9, Unit: gorgonia.Tanh, Loss: testnet.Binary,
		OutByIn: true}.Build(5)
	c := attach(t, n, WithBlockTridiagonal())
	gradients(t, c)
	blocks := c.plan.blocks
	direction := func(v *inverses[float64]) (d []float64) {
		testnet.Check(t, new(distributed[float64]).direct(v, blocks, c.plan.order, c.low))
		for _, l := range placedLayers(c) {
			d = append(d, l.direction(c)...)
		}
		return d
	}
	current := func() []float64 { return direction(newInverses[float64](len(blocks))) }
	same := func(what string, got, want []float64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: another direction, off by %g", what, testnet.Distance(got, want))
		}
	}
	if !needsInverses(blocks) {
		t.Error("no inverse is needed before there is any")
	}
	avg := exactAverages(t, c, nil)
	made := directions(t, c, avg, 0.5)
	first := direction(made)
	avg.keep(blocks, c.cfg.ema)
	made.keep(blocks)
	if needsInverses(blocks) {
		t.Error("an inverse is needed although there is one")
	}
	same("kept", current(), first)

	avg = observed(t, c) // of the last sweep: other moments
	made = directions(t, c, avg, 0.2)
	if testnet.Distance(direction(made), first) < 1e-3 {
		t.Fatal("the test makes no difference")
	}
	same("before the second is kept", current(), first)
	avg.keep(blocks, c.cfg.ema)
	made.release()
	same("the moments kept, not the inverse", current(), first)

	avg = observed(t, c)
	one, other := directions(t, c, avg, 0.2), directions(t, c, avg, 0.9)
	second, third := direction(one), direction(other)
	if testnet.Distance(second, third) < 1e-3 || testnet.Distance(second, first) < 1e-3 {
		t.Fatal("the test makes no difference")
	}
	same("the first candidate, once more", direction(one), second)
	same("the second candidate, once more", direction(other), third)
	same("through all of it", current(), first)
	other.release()
	one.keep(blocks)
	same("the first candidate, kept", current(), second)
}

// With the block-tridiagonal inverse the loss falls, in both dtypes, by a learning rate and by the
// quadratic model; a course is the same in every bit when it is repeated, and another than with the
// block-diagonal inverse.
func TestChainTrains(t *testing.T) {
	t.Run("float64", testChainTrains[float64])
	t.Run("float32", testChainTrains[float32])
}

func testChainTrains[T program.Float](t *testing.T) {
	for name, opts := range map[string][]Option{
		"learning rate":   {WithLearningRate(0.2), WithMinStatisticsCases(30)},
		"quadratic model": {WithMinStatisticsCases(30), WithMinModelCases(40)},
		"paper's rules":   {WithPaperRules(), WithDamping(1)},
	} {
		t.Run(name, func(t *testing.T) {
			course := func(opts ...Option) (costs, weights []float64) {
				tr := NewTrainer(t, testnet.Teacher[T]([]int{4, 6, 5, 3}, 60), opts...)
				for range 41 { // two searches for gamma
					tr.Steps(t, 1)
					costs = append(costs, tr.Solver.Stats().Cost)
				}
				if notes := tr.Solver.Plan().Notes; len(opts) > 3 &&
					!slices.Contains(notes, "block-tridiagonal inverse along w0 - w1 - w2") {
					t.Errorf("notes %q", notes)
				}
				return costs, testnet.Weights(tr.Params)
			}
			costs, weights := course(append(slices.Clone(opts), WithBlockTridiagonal())...)
			if first, last := costs[0], costs[len(costs)-1]; !(last < 0.1*first) {
				t.Errorf("the cost went from %g to %g", first, last)
			}
			_, again := course(append(slices.Clone(opts), WithBlockTridiagonal())...)
			if !slices.Equal(again, weights) {
				t.Error("the same course again ends at other weights")
			}
			if other, _ := course(opts...); math.Abs(other[20]/costs[20]-1) < 1e-3 {
				t.Errorf("the block-diagonal inverse gets to the same cost, %g", other[20])
			}
		})
	}
}

// A step that fails leaves no trace in a chain: the training goes on as that of a twin which has
// not seen it. Step 20 searches for gamma.
func TestChainAfterAFailure(t *testing.T) {
	m := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}
	for name, opts := range map[string][]Option{
		"learning rate":   {WithLearningRate(0.1), WithMinStatisticsCases(6)},
		"quadratic model": {WithMinStatisticsCases(6), WithMinModelCases(6)},
	} {
		opts = append(opts, WithBlockTridiagonal())
		for _, done := range []int{0, 1, 4, 19} {
			t.Run(fmt.Sprint(name, ", step ", done+1), func(t *testing.T) {
				l, twin := NewTrainer(t, m.Build(6), opts...), NewTrainer(t, m.Build(6), opts...)
				l.Steps(t, done)
				twin.Steps(t, done)
				testnet.Check(t, l.Run())
				sound := slices.Clone(testnet.Data(l.X))
				for i := range testnet.Data(l.X) {
					testnet.Data(l.X)[i] = math.NaN() // after RunAll, so that the private run finds it
				}
				if err := l.Solver.Step(l.ValueGrads()); !errors.Is(err, ErrNotFinite) {
					t.Fatalf("error %v, want %v", err, ErrNotFinite)
				}
				copy(testnet.Data(l.X), sound)
				testnet.ZeroGradients(l.Params)
				for range 4 {
					l.Steps(t, 1)
					twin.Steps(t, 1)
					checkTwins(t, l, twin)
				}
			})
		}
	}
}

// A factor of a chain that can't be factorised, a cross moment that is not finite: the error names
// the layer, the step leaves no trace, and once the cause is gone the training goes on as if
// nothing had been.
func TestChainErrors(t *testing.T) {
	const layers = 3 // A and G of each, and then A and G of two neighbours
	factorA, factorG := func(i int) int { return 2 * i }, func(i int) int { return 2*i + 1 }
	crossA, crossG := func(i int) int { return 2 * (layers + i) }, func(i int) int { return 2*(layers+i) + 1 }
	for _, test := range []struct {
		name  string
		at    int // of the moment whose first number is spoilt
		value float64
		layer string
		op    string
		dim   int
		is    error
	}{
		{"indefinite A", factorA(1), -1e30, "w1", "Cholesky factorisation of A", 5, ErrNotPosDef},
		{"indefinite G", factorG(2), -1e30, "w2", "Cholesky factorisation of G", 2, ErrNotPosDef},
		{"NaN in A", factorA(0), math.NaN(), "w0", "averages of its second moments", 0, ErrNotFinite},
		{"NaN in a cross moment of G", crossG(0), math.NaN(), "w0", "cross moments with w1", 0, ErrNotFinite},
		{"infinity in a cross moment of A", crossA(1), math.Inf(1), "w1", "cross moments with w2", 0, ErrNotFinite},
		{"cross moment of A that overflows", crossA(1), 1e300, "w1", "generalised eigenproblem of A", 5, ErrNotFinite},
	} {
		for _, done := range []int{2, 19} {
			t.Run(fmt.Sprint(test.name, ", step ", done+1), func(t *testing.T) {
				m := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Binary}
				opts := []Option{WithBlockTridiagonal(), WithDamping(0.1)}
				l, twin := NewTrainer(t, m.Build(7), opts...), NewTrainer(t, m.Build(7), opts...)
				l.Steps(t, done)
				twin.Steps(t, done)
				b := trainingOf(l).plan.blocks[0]
				put := func(v float64) (before float64) {
					avg := b.Copy()
					before, avg.Moments[test.at][0] = avg.Moments[test.at][0], v
					b.Keep(avg)
					return before
				}
				var repair func()
				if wrong := math.IsNaN(test.value - test.value); wrong { // averages go on with it
					before := put(test.value)
					repair = func() { put(before) }
				} else { // or start anew without it
					sound := b.Block
					b.Block = wrongAverages{sound, test.at, test.value}
					repair = func() { b.Block = sound }
				}
				testnet.Check(t, l.Run())
				err := l.Solver.Step(l.ValueGrads())
				var layer *LayerError
				if !errors.As(err, &layer) || !errors.Is(err, test.is) {
					t.Fatalf("error %v, want a LayerError that is %v", err, test.is)
				}
				if layer.Layer != test.layer || !strings.Contains(layer.Op, test.op) || layer.Dim != test.dim {
					t.Errorf("%v; want layer %s, %s, %d", err, test.layer, test.op, test.dim)
				}
				checkTwins(t, l, twin)
				repair()
				testnet.ZeroGradients(l.Params)
				for range 3 {
					l.Steps(t, 1)
					twin.Steps(t, 1)
					checkTwins(t, l, twin)
				}
			})
		}
	}
}

// Damping that is lost in rounding, on a factor that is singular: the error names layer and factor
// of the chain.
func TestChainWithHopelessDamping(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(8)
	for i := range testnet.Data(n.X) {
		testnet.Data(n.X)[i] = float64(i%3) / 3 // one case, repeated
	}
	l := NewTrainer(t, n, WithBlockTridiagonal(), WithDamping(1e-300), WithPaperRules())
	before := testnet.Weights(l.Params)
	testnet.Check(t, l.Run())
	err := l.Solver.Step(l.ValueGrads())
	var layer *LayerError
	if !errors.As(err, &layer) || !errors.Is(err, ErrNotPosDef) {
		t.Fatalf("error %v, want a LayerError that is %v", err, ErrNotPosDef)
	}
	if layer.Layer != "w0" || layer.Dim != 4 || !strings.Contains(layer.Op, "factorisation of A") {
		t.Errorf("%v; want the factorisation of A (4 x 4) of w0", err)
	}
	if !slices.Equal(testnet.Weights(l.Params), before) {
		t.Error("the weights have changed")
	}
}

// A layer that joins the list later makes a longer chain, with statistics and an inverse of its own
// from that step on. One that is left out of the list stays as it is.
func TestChainOfALongerList(t *testing.T) {
	n := testnet.MLP{Widths: []int{3, 4, 4, 2}, Cases: 12, Unit: gorgonia.Tanh, Loss: testnet.Classes}.Build(9)
	l := NewTrainer(t, n, WithBlockTridiagonal())
	all := n.Params
	n.Params = slices.Concat(all[:2], all[4:])
	middle := slices.Concat(testnet.Data(all[2]), testnet.Data(all[3]))
	l.Steps(t, 5)
	if got := chainsIn(trainingOf(l)); !slices.Equal(got, []string{"w0 - w2"}) {
		t.Errorf("chains %q without the layer in the middle", got)
	}
	if !slices.Equal(slices.Concat(testnet.Data(all[2]), testnet.Data(all[3])), middle) {
		t.Error("the layer in the middle has moved")
	}
	for _, p := range all[2:4] { // of the RunAlls before
		zeroGradient(p)
	}
	n.Params = all
	l.Steps(t, 1)
	if got := chainsIn(trainingOf(l)); !slices.Equal(got, []string{"w0 - w1 - w2"}) {
		t.Errorf("chains %q with the layer in the middle", got)
	}
	if st := l.Solver.Stats(); !st.InverseUpdated ||
		currentAverages(trainingOf(l))[0].Updates != 1 {
		t.Errorf("the chain has not begun anew: %+v", st)
	}
	before := testnet.Weights(l.Params)
	n.Params = all[:2]
	l.Steps(t, 2)
	n.Params = all
	after := testnet.Weights(l.Params)
	moved := len(testnet.Data(all[0])) + len(testnet.Data(all[1]))
	if !slices.Equal(after[moved:], before[moved:]) || slices.Equal(after[:moved], before[:moved]) {
		t.Error("other weights have moved than were in the list")
	}
}

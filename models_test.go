package kfac

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// An architecture is a network as people write them, with its plan, a line for each parameter.
type architecture struct {
	name  string
	build func(s *testnet.Sketch, n *testnet.Net)
	plan  string
	notes []string
	// Gorgonia v0.9.18 has no gradient of it (GlobalAveragePool2D), or a wrong one, as the gradient
	// check tells.
	untrained bool
}

func slicedColumns(a *gorgonia.Node, from, to int) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Slice(a, nil, gorgonia.S(from, to)))
}
func batched(a, b *gorgonia.Node, trans ...bool) *gorgonia.Node {
	return gorgonia.Must(gorgonia.BatchedMatMul(a, b, trans...))
}

// scaledDown divides attention's scores by a constant.
func scaledDown(a *gorgonia.Node) *gorgonia.Node {
	return mul(a, gorgonia.NewConstant(0.5))
}

// autoencoder is that of kfac-jax's models.
func autoencoder(unit func(*gorgonia.Node) *gorgonia.Node, loss testnet.Likelihood) func(s *testnet.Sketch,
	n *testnet.Net) {
	return func(s *testnet.Sketch, n *testnet.Net) {
		h := s.Random("x", cases, 8)
		for i, out := range []int{20, 10, 20} {
			h = unit(n.Dense(fmt.Sprint(i), h, out))
		}
		n.Out = n.Dense("3", h, 8)
		n.Cost, n.Loss = loss(s, n.Out)
	}
}

const autoencoderPlan = `
w0 kronecker [w0: A 9, G 20] dense layer x w + b0
b0 kronecker [w0: A 9, G 20] homogeneous coordinate of w0
w1 kronecker [w1: A 21, G 10] dense layer x w + b1
b1 kronecker [w1: A 21, G 10] homogeneous coordinate of w1
w2 kronecker [w2: A 11, G 20] dense layer x w + b2
b2 kronecker [w2: A 11, G 20] homogeneous coordinate of w2
w3 kronecker [w3: A 21, G 8] dense layer x w + b3
b3 kronecker [w3: A 21, G 8] homogeneous coordinate of w3`

// attend mixes the positions of (cases, steps, width) by q, k, v, which are of that shape too.
func attend(q, k, v *gorgonia.Node) *gorgonia.Node {
	return batched(softMax(scaledDown(batched(q, k, false, true)), 2), v)
}

var architectures = []architecture{
	{name: "autoencoder with two losses", build: autoencoder(tanh, testnet.TwoLosses), plan: autoencoderPlan},
	{name: "linear autoencoder", build: autoencoder(func(a *gorgonia.Node) *gorgonia.Node {
		return a
	}, testnet.Squares(1)), plan: autoencoderPlan},
	{name: "piecewise linear autoencoder", build: autoencoder(rectify, testnet.TwoLosses), plan: autoencoderPlan},

	{name: "convolutions, one without bias, layer normalisation", build: func(s *testnet.Sketch, n *testnet.Net) {
		x := s.Random("x", cases, 3, 8, 8)
		h := tanh(testnet.AddChannel(convolve(x, n.Param("filter1", 8, 3, 3, 3), 1, 2), n.Param("b1", 1, 8, 1, 1)))
		h = convolve(h, n.Param("filter2", 16, 8, 3, 3), 1, 2)
		rows := normalised(reshape(gorgonia.Must(gorgonia.Transpose(h, 0, 2, 3, 1)), cases*4, 16))
		h = tanh(addRow(timesRow(rows, n.Param("scale", 1, 16)), n.Param("shift", 1, 16)))
		h = tanh(n.Dense("3", reshape(h, cases, 64), 16))
		n.Out = n.Dense("4", h, 10)
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, plan: `
filter1 kronecker [filter1: A 28, G 8] convolution 3x3, stride 2, padding 1, x * w + b1, 16 positions per case
b1 kronecker [filter1: A 28, G 8] homogeneous coordinate of filter1
filter2 kronecker [filter2: A 72, G 16] convolution 3x3, stride 2, padding 1, x * w, 4 positions per case
scale full [scale and shift: 32 x 32] scale and shift of a normalisation, per channel
shift full [scale and shift: 32 x 32] scale and shift of a normalisation, per channel
w3 kronecker [w3: A 65, G 16] dense layer x w + b3
b3 kronecker [w3: A 65, G 16] homogeneous coordinate of w3
w4 kronecker [w4: A 17, G 10] dense layer x w + b4
b4 kronecker [w4: A 17, G 10] homogeneous coordinate of w4`},

	{name: "recurrent net with an output at each of 7 steps", build: func(s *testnet.Sketch, n *testnet.Net) {
		w, u, b, v, c := n.Param("w", 13, 20), n.Param("u", 20, 20), n.Param("b", 1, 20), n.Param("v", 20, 2),
			n.Param("c", 1, 2)
		h := s.Leaf("h", make([]float64, cases*20), cases, 20)
		var outs gorgonia.Nodes
		for i := range 7 {
			h = tanh(addRow(add(mul(s.Random(fmt.Sprint("x", i), cases, 13), w), mul(h, u)), b))
			outs = append(outs, addRow(mul(h, v), c))
		}
		n.Out = concat(1, outs...)
		n.Cost, n.Loss = testnet.Squares(0.5)(s, n.Out)
	}, plan: `
w kronecker [w: A 14, G 20] dense layer x w + b, used 7 times
u kronecker [u: A 20, G 20] recurrent weight h w, 7 time steps
b kronecker [w: A 14, G 20] homogeneous coordinate of w
v kronecker [v: A 21, G 2] dense layer x w + c, used 7 times
c kronecker [v: A 21, G 2] homogeneous coordinate of v`},

	{name: "recurrent net of 28 rows of an image", build: func(s *testnet.Sketch, n *testnet.Net) {
		w, u, b := n.Param("w", 4, 6), n.Param("u", 6, 6), n.Param("b", 1, 6)
		image := s.Random("x", cases, 28*4)
		h := s.Leaf("h", make([]float64, cases*6), cases, 6)
		for i := range 28 {
			h = tanh(addRow(add(mul(slicedColumns(image, 4*i, 4*i+4), w), mul(h, u)), b))
		}
		n.Out = n.Dense("2", h, 3)
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, plan: `
w kronecker [w: A 5, G 6] dense layer x w + b, used 28 times
u kronecker [u: A 6, G 6] recurrent weight h w, 28 time steps
b kronecker [w: A 5, G 6] homogeneous coordinate of w
w2 kronecker [w2: A 7, G 3] dense layer x w + b2
b2 kronecker [w2: A 7, G 3] homogeneous coordinate of w2`},

	{name: "GRU", build: func(s *testnet.Sketch, n *testnet.Net) {
		type gate struct{ w, u, b *gorgonia.Node }
		gates := map[string]gate{}
		for _, name := range []string{"r", "z", "n"} {
			gates[name] = gate{n.Param("w"+name, 3, 4), n.Param("u"+name, 4, 4), n.Param("b"+name, 1, 4)}
		}
		open := func(name string, x, h *gorgonia.Node) *gorgonia.Node {
			g := gates[name]
			return addRow(add(mul(x, g.w), mul(h, g.u)), g.b)
		}
		h := s.Random("h", cases, 4)
		for i := range 3 {
			x := s.Random(fmt.Sprint("x", i), cases, 3)
			r, z := sigmoid(open("r", x, h)), sigmoid(open("z", x, h))
			fresh := tanh(open("n", x, hadamard(r, h)))
			h = add(fresh, hadamard(z, testnet.Sub(h, fresh)))
		}
		n.Out = mul(h, n.Param("v", 4, 3))
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, plan: `
wr kronecker [wr: A 4, G 4] dense layer x w + br, used 3 times
ur kronecker [ur: A 4, G 4] recurrent weight h w, 3 time steps
br kronecker [wr: A 4, G 4] homogeneous coordinate of wr
wz kronecker [wz: A 4, G 4] dense layer x w + bz, used 3 times
uz kronecker [uz: A 4, G 4] recurrent weight h w, 3 time steps
bz kronecker [wz: A 4, G 4] homogeneous coordinate of wz
wn kronecker [wn: A 4, G 4] dense layer x w + bn, used 3 times
un kronecker [un: A 4, G 4] recurrent weight h w, 3 time steps
bn kronecker [wn: A 4, G 4] homogeneous coordinate of wn
v kronecker [v: A 4, G 3] dense layer x w`},

	{name: "LSTM of joined inputs and sliced gates", build: func(s *testnet.Sketch, n *testnet.Net) {
		const hidden = 3
		w, b := n.Param("w", 2+hidden, 4*hidden), n.Param("b", 1, 4*hidden)
		h, c := s.Random("h", cases, hidden), s.Random("c", cases, hidden)
		for i := range 3 {
			gates := addRow(mul(concat(1, s.Random(fmt.Sprint("x", i), cases, 2), h), w), b)
			part := func(k int) *gorgonia.Node { return slicedColumns(gates, k*hidden, (k+1)*hidden) }
			c = add(hadamard(sigmoid(part(0)), c), hadamard(sigmoid(part(1)), tanh(part(2))))
			h = hadamard(sigmoid(part(3)), tanh(c))
		}
		n.Out = n.Dense("2", h, 2)
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
	}, plan: `
w kronecker [w: A 6, G 12] recurrent weight h w + b, 3 time steps
b kronecker [w: A 6, G 12] homogeneous coordinate of w
w2 kronecker [w2: A 4, G 2] dense layer x w + b2
b2 kronecker [w2: A 4, G 2] homogeneous coordinate of w2`},

	{name: "self-attention of folded sequences", build: func(s *testnet.Sketch, n *testnet.Net) {
		x := sequence(s)
		project := func(name string, x *gorgonia.Node) *gorgonia.Node {
			return folded(x, n.Param("w"+name, 3, 3), n.Param("b"+name, 1, 3))
		}
		h := attend(project("q", x), project("k", x), project("v", x))
		h = add(x, project("o", h))
		h = add(h, folded(rectify(folded(h, n.Param("w1", 3, 5), n.Param("b1", 1, 5))), n.Param("w2", 5, 3),
			n.Param("b2", 1, 3)))
		n.Out = n.Dense("3", testnet.Mean(h, 1), 2)
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, untrained: true, plan: `
wq kronecker [wq: A 4, G 3] dense layer x w + bq, 4 positions per case
bq kronecker [wq: A 4, G 3] homogeneous coordinate of wq
wk kronecker [wk: A 4, G 3] dense layer x w + bk, 4 positions per case
bk kronecker [wk: A 4, G 3] homogeneous coordinate of wk
wv kronecker [wv: A 4, G 3] dense layer x w + bv, 4 positions per case
bv kronecker [wv: A 4, G 3] homogeneous coordinate of wv
wo kronecker [wo: A 4, G 3] dense layer x w + bo, 4 positions per case, reduced
bo kronecker [wo: A 4, G 3] homogeneous coordinate of wo
w1 kronecker [w1: A 4, G 5] dense layer x w + b1, 4 positions per case, reduced
b1 kronecker [w1: A 4, G 5] homogeneous coordinate of w1
w2 kronecker [w2: A 6, G 3] dense layer x w + b2, 4 positions per case, reduced
b2 kronecker [w2: A 6, G 3] homogeneous coordinate of w2
w3 kronecker [w3: A 4, G 2] dense layer x w + b3
b3 kronecker [w3: A 4, G 2] homogeneous coordinate of w3`},

	{name: "self-attention of sequences not folded", untrained: true, build: func(s *testnet.Sketch, n *testnet.Net) {
		x := sequence(s)
		h := attend(rowsTimes(x, n.Param("wq", 3, 3)), rowsTimes(x, n.Param("wk", 3, 3)),
			rowsTimes(x, n.Param("wv", 3, 3)))
		h = tanh(gorgonia.Must(gorgonia.BroadcastAdd(rowsTimes(h, n.Param("wo", 3, 2)), n.Param("bo", 1, 1, 2), nil,
			[]byte{0, 1})))
		n.Out = reshape(h, cases, steps*2)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	}, plan: `
wq kronecker [wq: A 3, G 3] dense layer x w, 4 positions per case
wk kronecker [wk: A 3, G 3] dense layer x w, 4 positions per case
wv kronecker [wv: A 3, G 3] dense layer x w, 4 positions per case
wo kronecker [wo: A 4, G 2] dense layer x w + bo, 4 positions per case
bo kronecker [wo: A 4, G 2] homogeneous coordinate of wo`},

	{name: "siamese net", build: func(s *testnet.Sketch, n *testnet.Net) {
		w, b, u := n.Param("w", 4, 3), n.Param("b", 1, 3), n.Param("u", 3, 3)
		twin := func(name string) *gorgonia.Node { return mul(tanh(addRow(mul(s.Random(name, cases, 4), w), b)), u) }
		n.Out = n.Dense("2", testnet.Square(testnet.Sub(twin("left"), twin("right"))), 1)
		n.Cost, n.Loss = testnet.Binary(s, n.Out)
	}, plan: `
w kronecker [w: A 5, G 3] dense layer x w + b, used 2 times
b kronecker [w: A 5, G 3] homogeneous coordinate of w
u kronecker [u: A 3, G 3] dense layer x w, used 2 times
w2 kronecker [w2: A 4, G 1] dense layer x w + b2
b2 kronecker [w2: A 4, G 1] homogeneous coordinate of w2`},

	{name: "two towers, each with its loss", build: func(s *testnet.Sketch, n *testnet.Net) {
		w, b := n.Param("w", 4, 3), n.Param("b", 1, 3)
		z1, z2 := addRow(mul(s.Random("x1", cases, 4), w), b), addRow(mul(s.Random("x2", cases, 4), w), b)
		cost1, dist1 := testnet.Squares(1)(s, z1)
		y2 := testnet.Square(testnet.Sub(z2, s.Random("y2", cases, 3)))
		n.Cost = add(cost1, mul(testnet.Sum(y2), gorgonia.NewConstant(0.5/cases)))
		n.Out, n.Loss = z1, testnet.Joint(dist1, testnet.Gaussian(z2, 1))
	}, plan: `
w kronecker [w: A 5, G 3] dense layer x w + b, used 2 times
b kronecker [w: A 5, G 3] homogeneous coordinate of w`},

	{name: "policy and value with a shared trunk", build: func(s *testnet.Sketch, n *testnet.Net) {
		h := tanh(n.Dense("1", s.Random("x", cases, 4), 5))
		policy, value := n.Dense("policy", h, 3), n.Dense("value", h, 1)
		cost1, dist1 := testnet.Classes(s, policy)
		square := testnet.Square(testnet.Sub(value, s.Random("return", cases, 1)))
		n.Cost = add(cost1, mul(testnet.Sum(square), gorgonia.NewConstant(0.25/cases)))
		n.Out, n.Loss = policy, testnet.Joint(dist1, testnet.Gaussian(value, 1))
	}, plan: `
w1 kronecker [w1: A 5, G 5] dense layer x w + b1
b1 kronecker [w1: A 5, G 5] homogeneous coordinate of w1
wpolicy kronecker [wpolicy: A 6, G 3] dense layer x w + bpolicy
bpolicy kronecker [wpolicy: A 6, G 3] homogeneous coordinate of wpolicy
wvalue kronecker [wvalue: A 6, G 1] dense layer x w + bvalue
bvalue kronecker [wvalue: A 6, G 1] homogeneous coordinate of wvalue`},

	{name: "residual block with batch normalisation and global average", untrained: true,
		build: func(s *testnet.Sketch, n *testnet.Net) {
			norm := func(name string, h *gorgonia.Node) *gorgonia.Node {
				h, _, _, _, err := gorgonia.BatchNorm(h, n.Param("scale"+name, 1, 4, 1, 1),
					n.Param("shift"+name, 1, 4, 1, 1), 0.9, 1e-3)
				return gorgonia.Must(h, err)
			}
			x := convolve(s.Random("x", cases, 2, 4, 4), n.Param("filter0", 4, 2, 3, 3), 1, 1)
			h := rectify(norm("1", convolve(x, n.Param("filter1", 4, 4, 3, 3), 1, 1)))
			h = norm("2", convolve(h, n.Param("filter2", 4, 4, 3, 3), 1, 1))
			h = gorgonia.Must(gorgonia.GlobalAveragePool2D(rectify(add(x, h))))
			n.Out = n.Dense("3", reshape(h, cases, 4), 3)
			n.Cost, n.Loss = testnet.Classes(s, n.Out)
		}, plan: `
filter0 kronecker [filter0: A 18, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
filter1 kronecker [filter1: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
scale1 full [scale1 and shift1: 8 x 8] scale and shift of a normalisation, per channel
shift1 full [scale1 and shift1: 8 x 8] scale and shift of a normalisation, per channel
filter2 kronecker [filter2: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
scale2 full [scale2 and shift2: 8 x 8] scale and shift of a normalisation, per channel
shift2 full [scale2 and shift2: 8 x 8] scale and shift of a normalisation, per channel
w3 kronecker [w3: A 5, G 3] dense layer x w + b3
b3 kronecker [w3: A 5, G 3] homogeneous coordinate of w3`},

	{name: "words, a hidden layer, words by the same table", build: func(s *testnet.Sketch, n *testnet.Net) {
		table := n.Param("table", 9, 4)
		found := testnet.Rows(table, s.Words("words", testnet.WordsOf(cases*2, 9)...))
		h := tanh(n.Dense("1", reshape(found, cases, 8), 4))
		n.Out = addRow(mul(h, transpose(table)), n.Param("bias", 1, 9))
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, plan: `
table kronecker [table: diagonal A 9, G 4] ` +
		`tied weight: embedding lookup, 9 rows, 2 positions per case, and its transpose: dense layer x w^T
w1 kronecker [w1: A 9, G 4] dense layer x w + b1
b1 kronecker [w1: A 9, G 4] homogeneous coordinate of w1
bias full [bias: 9 x 9] offset, element by element`},

	{name: "learned temperature behind a classifier", build: func(s *testnet.Sketch, n *testnet.Net) {
		h := tanh(n.Dense("1", s.Random("x", cases, 4), 5))
		temperature := s.Leaf("temperature", []float64{1}, 1, 1)
		n.Out = gorgonia.Must(gorgonia.BroadcastHadamardProd(n.Dense("2", h, 3), temperature, nil, []byte{0, 1}))
		n.Params = append(n.Params, temperature)
		n.Cost, n.Loss = testnet.Classes(s, n.Out)
	}, plan: `
w1 kronecker [w1: A 5, G 5] dense layer x w + b1
b1 kronecker [w1: A 5, G 5] homogeneous coordinate of w1
w2 kronecker [w2: A 6, G 3] dense layer x w + b2
b2 kronecker [w2: A 6, G 3] homogeneous coordinate of w2
temperature full [temperature: 1 x 1] temperature: one number that multiplies`},

	{name: "one bias for two layers", build: func(s *testnet.Sketch, n *testnet.Net) {
		w1, w2, b := n.Param("w1", 4, 3), n.Param("w2", 3, 3), n.Param("b", 1, 3)
		n.Out = addRow(mul(tanh(addRow(mul(s.Random("x", cases, 4), w1), b)), w2), b)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	}, plan: `
w1 kronecker [w1: A 4, G 3] dense layer x w
w2 kronecker [w2: A 3, G 3] dense layer x w
b full [b: 3 x 3] offset, element by element`},

	{name: "two weights into one sum", build: func(s *testnet.Sketch, n *testnet.Net) {
		w1, w2, b := n.Param("w1", 4, 3), n.Param("w2", 2, 3), n.Param("b", 1, 3)
		n.Out = addRow(add(mul(s.Random("x1", cases, 4), w1), mul(s.Random("x2", cases, 2), w2)), b)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
	}, plan: `
w1 kronecker [w1: A 5, G 3] dense layer x w + b
w2 kronecker [w2: A 2, G 3] dense layer x w
b kronecker [w1: A 5, G 3] homogeneous coordinate of w1`},
}

func (m architecture) network() *testnet.Net {
	n := &testnet.Net{Sketch: testnet.NewSketch(1)}
	m.build(n.Sketch, n)
	return n
}

// planLines is a plan, a line for each parameter.
func planLines(p Plan) (s string) {
	for _, r := range p.Params {
		s += fmt.Sprintf("\n%s %s [%s] %s", r.Name, r.Treatment, r.Block, r.Reason)
	}
	return s
}

// Every layer of the models is found, whether before Grad, from the list of parameters, or after
// it, and what is captured of it makes up its gradient.
func TestModels(t *testing.T) {
	for _, m := range architectures {
		t.Run(m.name, func(t *testing.T) {
			n := m.network()
			c := attach(t, n)
			got := planLines(c.describe())
			if diff := gocmp.Diff(strings.Split(m.plan, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(m.notes, c.describe().Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			checkCapture(t, attach(t, m.network(), WithWeightSharing(Expand)), nil)
			avg := exactAverages(t, c, nil)
			gradients(t, c)
			directions(t, c, avg, 0.3)
			for _, p := range c.plan.order {
				if testnet.Distance(p.direction, make([]float64, p.size())) == 0 {
					t.Errorf("%s has no direction", p.name)
				}
			}
		})
	}
}

// All of them learn their few cases.
func TestModelsTrain(t *testing.T) {
	for _, m := range architectures {
		if m.untrained {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			n := m.network()
			tr := NewTrainer(t, n)
			first := tr.Step(t)
			for range 14 {
				tr.Step(t)
			}
			if last := tr.Step(t); !(last < first) {
				t.Errorf("the cost went from %.4g to %.4g", first, last)
			}
		})
	}
}

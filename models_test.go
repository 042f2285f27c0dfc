package kfac

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A model is a network as people write them, with its plan, a line for each parameter.
type model struct {
	name  string
	build func(s *sketch, n *network)
	plan  string
	notes []string
	// Gorgonia v0.9.18 has no gradient of it (GlobalAveragePool2D), or a wrong one, as the gradient check tells.
	untrained bool
}

func sigmoid(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Sigmoid(a)) }
func rectify(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Rectify(a)) }
func softMax(a *gorgonia.Node, axis int) *gorgonia.Node {
	return must(gorgonia.SoftMax(a, axis))
}
func concat(axis int, nodes ...*gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.Concat(axis, nodes...))
}
func slicedColumns(a *gorgonia.Node, from, to int) *gorgonia.Node {
	return must(gorgonia.Slice(a, nil, gorgonia.S(from, to)))
}
func batched(a, b *gorgonia.Node, trans ...bool) *gorgonia.Node {
	return must(gorgonia.BatchedMatMul(a, b, trans...))
}
func convolve(x, filter *gorgonia.Node, pad, stride int) *gorgonia.Node {
	kernel := filter.Shape()[2:]
	return must(gorgonia.Conv2d(x, filter, tensor.Shape{kernel[0], kernel[1]}, []int{pad, pad}, []int{stride, stride}, []int{1, 1}))
}

// addChannel adds b, of shape (1, C, 1, 1), to images.
func addChannel(a, b *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.BroadcastAdd(a, b, nil, []byte{0, 2, 3}))
}

// scaledDown divides attention's scores by a constant.
func scaledDown(a *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.Mul(a, gorgonia.NewConstant(0.5)))
}

// param makes a parameter with entries of about 1/2.
func (n *network) param(name string, shape ...int) *gorgonia.Node {
	p := n.sketch.random(name, shape...)
	for i := range data(p) {
		data(p)[i] /= 2
	}
	n.params = append(n.params, p)
	return p
}

// dense adds a layer with parameters w<name> and b<name>.
func (n *network) dense(name string, h *gorgonia.Node, out int) *gorgonia.Node {
	return addRow(mul(h, n.param("w"+name, h.Shape()[1], out)), n.param("b"+name, 1, out))
}

// autoencoder is that of kfac-jax's models.
func autoencoder(unit func(*gorgonia.Node) *gorgonia.Node, loss lossFunc) func(s *sketch, n *network) {
	return func(s *sketch, n *network) {
		h := s.random("x", cases, 8)
		for i, out := range []int{20, 10, 20} {
			h = unit(n.dense(fmt.Sprint(i), h, out))
		}
		n.out = n.dense("3", h, 8)
		n.cost, n.dist = loss(s, n.out)
	}
}

// twoLosses are kfac-jax's for its autoencoder: Bernoulli and, with a tenth of its weight, Gaussian, of the same numbers.
func twoLosses(s *sketch, out *gorgonia.Node) (*gorgonia.Node, Distribution) {
	cost1, dist1 := binary(s, out)
	same := must(gorgonia.Mul(out, gorgonia.NewConstant(1.0)))
	tenth := must(gorgonia.Sum(must(gorgonia.Square(must(gorgonia.Sub(same, s.random("y2", out.Shape()...)))))))
	return add(cost1, must(gorgonia.Mul(tenth, gorgonia.NewConstant(0.05/float64(casesOf(out)))))), Joint(dist1, Gaussian(same, 1))
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

var models = []model{
	{name: "autoencoder with two losses", build: autoencoder(tanh, twoLosses), plan: autoencoderPlan},
	{name: "linear autoencoder", build: autoencoder(func(a *gorgonia.Node) *gorgonia.Node { return a }, squares(1)), plan: autoencoderPlan},
	{name: "piecewise linear autoencoder", build: autoencoder(rectify, twoLosses), plan: autoencoderPlan},

	{name: "convolutions, one without bias, layer normalisation", build: func(s *sketch, n *network) {
		x := s.random("x", cases, 3, 8, 8)
		h := tanh(addChannel(convolve(x, n.param("filter1", 8, 3, 3, 3), 1, 2), n.param("b1", 1, 8, 1, 1)))
		h = convolve(h, n.param("filter2", 16, 8, 3, 3), 1, 2)
		rows := normalised(reshape(must(gorgonia.Transpose(h, 0, 2, 3, 1)), cases*4, 16))
		h = tanh(addRow(timesRow(rows, n.param("scale", 1, 16)), n.param("shift", 1, 16)))
		h = tanh(n.dense("3", reshape(h, cases, 64), 16))
		n.out = n.dense("4", h, 10)
		n.cost, n.dist = classes(s, n.out)
	}, plan: `
filter1 kronecker [filter1: A 28, G 8] convolution 3x3, stride 2, padding 1, x * w + b1, 16 positions per case
b1 kronecker [filter1: A 28, G 8] homogeneous coordinate of filter1
filter2 kronecker [filter2: A 72, G 16] convolution 3x3, stride 2, padding 1, x * w, 4 positions per case
scale full [scale and shift: 16 of 2 x 2] scale and shift of a normalisation, per channel
shift full [scale and shift: 16 of 2 x 2] scale and shift of a normalisation, per channel
w3 kronecker [w3: A 65, G 16] dense layer x w + b3
b3 kronecker [w3: A 65, G 16] homogeneous coordinate of w3
w4 kronecker [w4: A 17, G 10] dense layer x w + b4
b4 kronecker [w4: A 17, G 10] homogeneous coordinate of w4`},

	{name: "recurrent net with an output at each of 7 steps", build: func(s *sketch, n *network) {
		w, u, b, v, c := n.param("w", 13, 20), n.param("u", 20, 20), n.param("b", 1, 20), n.param("v", 20, 2), n.param("c", 1, 2)
		h := s.leaf("h", make([]float64, cases*20), cases, 20)
		var outs gorgonia.Nodes
		for i := range 7 {
			h = tanh(addRow(add(mul(s.random(fmt.Sprint("x", i), cases, 13), w), mul(h, u)), b))
			outs = append(outs, addRow(mul(h, v), c))
		}
		n.out = concat(1, outs...)
		n.cost, n.dist = squares(0.5)(s, n.out)
	}, plan: `
w kronecker [w: A 14, G 20] dense layer x w + b, used 7 times
u kronecker [u: A 20, G 20] recurrent weight h w, 7 time steps
b kronecker [w: A 14, G 20] homogeneous coordinate of w
v kronecker [v: A 21, G 2] dense layer x w + c, used 7 times
c kronecker [v: A 21, G 2] homogeneous coordinate of v`},

	{name: "recurrent net of 28 rows of an image", build: func(s *sketch, n *network) {
		w, u, b := n.param("w", 4, 6), n.param("u", 6, 6), n.param("b", 1, 6)
		image := s.random("x", cases, 28*4)
		h := s.leaf("h", make([]float64, cases*6), cases, 6)
		for i := range 28 {
			h = tanh(addRow(add(mul(slicedColumns(image, 4*i, 4*i+4), w), mul(h, u)), b))
		}
		n.out = n.dense("2", h, 3)
		n.cost, n.dist = classes(s, n.out)
	}, plan: `
w kronecker [w: A 5, G 6] dense layer x w + b, used 28 times
u kronecker [u: A 6, G 6] recurrent weight h w, 28 time steps
b kronecker [w: A 5, G 6] homogeneous coordinate of w
w2 kronecker [w2: A 7, G 3] dense layer x w + b2
b2 kronecker [w2: A 7, G 3] homogeneous coordinate of w2`},

	{name: "GRU", build: func(s *sketch, n *network) {
		type gate struct{ w, u, b *gorgonia.Node }
		gates := map[string]gate{}
		for _, name := range []string{"r", "z", "n"} {
			gates[name] = gate{n.param("w"+name, 3, 4), n.param("u"+name, 4, 4), n.param("b"+name, 1, 4)}
		}
		open := func(name string, x, h *gorgonia.Node) *gorgonia.Node {
			g := gates[name]
			return addRow(add(mul(x, g.w), mul(h, g.u)), g.b)
		}
		h := s.random("h", cases, 4)
		for i := range 3 {
			x := s.random(fmt.Sprint("x", i), cases, 3)
			r, z := sigmoid(open("r", x, h)), sigmoid(open("z", x, h))
			fresh := tanh(open("n", x, hadamard(r, h)))
			h = add(fresh, hadamard(z, must(gorgonia.Sub(h, fresh))))
		}
		n.out = mul(h, n.param("v", 4, 3))
		n.cost, n.dist = classes(s, n.out)
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

	{name: "LSTM of joined inputs and sliced gates", build: func(s *sketch, n *network) {
		const hidden = 3
		w, b := n.param("w", 2+hidden, 4*hidden), n.param("b", 1, 4*hidden)
		h, c := s.random("h", cases, hidden), s.random("c", cases, hidden)
		for i := range 3 {
			gates := addRow(mul(concat(1, s.random(fmt.Sprint("x", i), cases, 2), h), w), b)
			part := func(k int) *gorgonia.Node { return slicedColumns(gates, k*hidden, (k+1)*hidden) }
			c = add(hadamard(sigmoid(part(0)), c), hadamard(sigmoid(part(1)), tanh(part(2))))
			h = hadamard(sigmoid(part(3)), tanh(c))
		}
		n.out = n.dense("2", h, 2)
		n.cost, n.dist = binary(s, n.out)
	}, plan: `
w kronecker [w: A 6, G 12] recurrent weight h w + b, 3 time steps
b kronecker [w: A 6, G 12] homogeneous coordinate of w
w2 kronecker [w2: A 4, G 2] dense layer x w + b2
b2 kronecker [w2: A 4, G 2] homogeneous coordinate of w2`},

	{name: "self-attention of folded sequences", build: func(s *sketch, n *network) {
		x := s.sequence()
		project := func(name string, x *gorgonia.Node) *gorgonia.Node {
			return folded(x, n.param("w"+name, 3, 3), n.param("b"+name, 1, 3))
		}
		h := attend(project("q", x), project("k", x), project("v", x))
		h = add(x, project("o", h))
		h = add(h, folded(rectify(folded(h, n.param("w1", 3, 5), n.param("b1", 1, 5))), n.param("w2", 5, 3), n.param("b2", 1, 3)))
		n.out = n.dense("3", meanOver(h, 1), 2)
		n.cost, n.dist = classes(s, n.out)
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

	{name: "self-attention of sequences not folded", untrained: true, build: func(s *sketch, n *network) {
		x := s.sequence()
		h := attend(rowsTimes(x, n.param("wq", 3, 3)), rowsTimes(x, n.param("wk", 3, 3)), rowsTimes(x, n.param("wv", 3, 3)))
		h = tanh(must(gorgonia.BroadcastAdd(rowsTimes(h, n.param("wo", 3, 2)), n.param("bo", 1, 1, 2), nil, []byte{0, 1})))
		n.out = reshape(h, cases, steps*2)
		n.cost, n.dist = squares(1)(s, n.out)
	}, plan: `
wq kronecker [wq: A 3, G 3] dense layer x w, 4 positions per case
wk kronecker [wk: A 3, G 3] dense layer x w, 4 positions per case
wv kronecker [wv: A 3, G 3] dense layer x w, 4 positions per case
wo kronecker [wo: A 4, G 2] dense layer x w + bo, 4 positions per case
bo kronecker [wo: A 4, G 2] homogeneous coordinate of wo`},

	{name: "siamese net", build: func(s *sketch, n *network) {
		w, b, u := n.param("w", 4, 3), n.param("b", 1, 3), n.param("u", 3, 3)
		twin := func(name string) *gorgonia.Node { return mul(tanh(addRow(mul(s.random(name, cases, 4), w), b)), u) }
		n.out = n.dense("2", must(gorgonia.Square(must(gorgonia.Sub(twin("left"), twin("right"))))), 1)
		n.cost, n.dist = binary(s, n.out)
	}, plan: `
w kronecker [w: A 5, G 3] dense layer x w + b, used 2 times
b kronecker [w: A 5, G 3] homogeneous coordinate of w
u kronecker [u: A 3, G 3] dense layer x w, used 2 times
w2 kronecker [w2: A 4, G 1] dense layer x w + b2
b2 kronecker [w2: A 4, G 1] homogeneous coordinate of w2`},

	{name: "two towers, each with its loss", build: func(s *sketch, n *network) {
		w, b := n.param("w", 4, 3), n.param("b", 1, 3)
		z1, z2 := addRow(mul(s.random("x1", cases, 4), w), b), addRow(mul(s.random("x2", cases, 4), w), b)
		cost1, dist1 := squares(1)(s, z1)
		y2 := must(gorgonia.Square(must(gorgonia.Sub(z2, s.random("y2", cases, 3)))))
		n.cost = add(cost1, must(gorgonia.Mul(must(gorgonia.Sum(y2)), gorgonia.NewConstant(0.5/cases))))
		n.out, n.dist = z1, Joint(dist1, Gaussian(z2, 1))
	}, plan: `
w kronecker [w: A 5, G 3] dense layer x w + b, used 2 times
b kronecker [w: A 5, G 3] homogeneous coordinate of w`},

	{name: "policy and value with a shared trunk", build: func(s *sketch, n *network) {
		h := tanh(n.dense("1", s.random("x", cases, 4), 5))
		policy, value := n.dense("policy", h, 3), n.dense("value", h, 1)
		cost1, dist1 := classes(s, policy)
		square := must(gorgonia.Square(must(gorgonia.Sub(value, s.random("return", cases, 1)))))
		n.cost = add(cost1, must(gorgonia.Mul(must(gorgonia.Sum(square)), gorgonia.NewConstant(0.25/cases))))
		n.out, n.dist = policy, Joint(dist1, Gaussian(value, 1))
	}, plan: `
w1 kronecker [w1: A 5, G 5] dense layer x w + b1
b1 kronecker [w1: A 5, G 5] homogeneous coordinate of w1
wpolicy kronecker [wpolicy: A 6, G 3] dense layer x w + bpolicy
bpolicy kronecker [wpolicy: A 6, G 3] homogeneous coordinate of wpolicy
wvalue kronecker [wvalue: A 6, G 1] dense layer x w + bvalue
bvalue kronecker [wvalue: A 6, G 1] homogeneous coordinate of wvalue`},

	{name: "residual block with batch normalisation and global average", untrained: true, build: func(s *sketch, n *network) {
		norm := func(name string, h *gorgonia.Node) *gorgonia.Node {
			h, _, _, _, err := gorgonia.BatchNorm(h, n.param("scale"+name, 1, 4, 1, 1), n.param("shift"+name, 1, 4, 1, 1), 0.9, 1e-3)
			return must(h, err)
		}
		x := convolve(s.random("x", cases, 2, 4, 4), n.param("filter0", 4, 2, 3, 3), 1, 1)
		h := rectify(norm("1", convolve(x, n.param("filter1", 4, 4, 3, 3), 1, 1)))
		h = norm("2", convolve(h, n.param("filter2", 4, 4, 3, 3), 1, 1))
		h = must(gorgonia.GlobalAveragePool2D(rectify(add(x, h))))
		n.out = n.dense("3", reshape(h, cases, 4), 3)
		n.cost, n.dist = classes(s, n.out)
	}, plan: `
filter0 kronecker [filter0: A 18, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
filter1 kronecker [filter1: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
scale1 full [scale1 and shift1: 4 of 2 x 2] scale and shift of a normalisation, per channel
shift1 full [scale1 and shift1: 4 of 2 x 2] scale and shift of a normalisation, per channel
filter2 kronecker [filter2: A 36, G 4] convolution 3x3, stride 1, padding 1, x * w, 16 positions per case
scale2 full [scale2 and shift2: 4 of 2 x 2] scale and shift of a normalisation, per channel
shift2 full [scale2 and shift2: 4 of 2 x 2] scale and shift of a normalisation, per channel
w3 kronecker [w3: A 5, G 3] dense layer x w + b3
b3 kronecker [w3: A 5, G 3] homogeneous coordinate of w3`},

	{name: "words, a hidden layer, words by the same table", build: func(s *sketch, n *network) {
		table := n.param("table", 9, 4)
		found := must(gorgonia.ByIndices(table, s.words("words", someWords(cases*2, 9)...), 0))
		h := tanh(n.dense("1", reshape(found, cases, 8), 4))
		n.out = addRow(mul(h, transpose(table)), n.param("bias", 1, 9))
		n.cost, n.dist = classes(s, n.out)
	}, plan: `
table kronecker [table: diagonal A 9, G 4] tied weight: embedding lookup, 9 rows, 2 positions per case, and its transpose: dense layer x w^T
w1 kronecker [w1: A 9, G 4] dense layer x w + b1
b1 kronecker [w1: A 9, G 4] homogeneous coordinate of w1
bias full [bias: 9 x 9] offset, element by element`},

	{name: "learned temperature behind a classifier", build: func(s *sketch, n *network) {
		h := tanh(n.dense("1", s.random("x", cases, 4), 5))
		temperature := s.leaf("temperature", []float64{1}, 1, 1)
		n.out = must(gorgonia.BroadcastHadamardProd(n.dense("2", h, 3), temperature, nil, []byte{0, 1}))
		n.params = append(n.params, temperature)
		n.cost, n.dist = classes(s, n.out)
	}, plan: `
w1 kronecker [w1: A 5, G 5] dense layer x w + b1
b1 kronecker [w1: A 5, G 5] homogeneous coordinate of w1
w2 kronecker [w2: A 6, G 3] dense layer x w + b2
b2 kronecker [w2: A 6, G 3] homogeneous coordinate of w2
temperature full [temperature: 1 x 1] temperature: one number that multiplies`},

	{name: "one bias for two layers", build: func(s *sketch, n *network) {
		w1, w2, b := n.param("w1", 4, 3), n.param("w2", 3, 3), n.param("b", 1, 3)
		n.out = addRow(mul(tanh(addRow(mul(s.random("x", cases, 4), w1), b)), w2), b)
		n.cost, n.dist = squares(1)(s, n.out)
	}, plan: `
w1 kronecker [w1: A 4, G 3] dense layer x w
w2 kronecker [w2: A 3, G 3] dense layer x w
b full [b: 3 x 3] offset, element by element`},

	{name: "two weights into one sum", build: func(s *sketch, n *network) {
		w1, w2, b := n.param("w1", 4, 3), n.param("w2", 2, 3), n.param("b", 1, 3)
		n.out = addRow(add(mul(s.random("x1", cases, 4), w1), mul(s.random("x2", cases, 2), w2)), b)
		n.cost, n.dist = squares(1)(s, n.out)
	}, plan: `
w1 kronecker [w1: A 5, G 3] dense layer x w + b
w2 kronecker [w2: A 2, G 3] dense layer x w
b kronecker [w1: A 5, G 3] homogeneous coordinate of w1`},
}

func (m model) network() *network {
	n := &network{sketch: newSketch(1)}
	m.build(n.sketch, n)
	return n
}

// planLines is a plan, a line for each parameter.
func planLines(p Plan) (s string) {
	for _, r := range p.Params {
		s += fmt.Sprintf("\n%s %s [%s] %s", r.Name, r.Treatment, r.Block, r.Reason)
	}
	return s
}

// Every layer of the models is found, whether before Grad, from the list of parameters, or after it, and what is captured of it makes up its gradient.
func TestModels(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			n := m.network()
			c := attach(t, n)
			if diff := gocmp.Diff(strings.Split(m.plan, "\n"), strings.Split(planLines(c.plan), "\n")); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(m.notes, c.plan.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			checkCapture(t, attach(t, m.network(), WithWeightSharing(Expand)), nil)
			observeExactly(t, c, nil)
			gradients(t, c)
			directions(t, c, 0.3)
			for _, p := range c.order {
				if distance(p.dir, make([]float64, len(p.dir))) == 0 {
					t.Errorf("%s has no direction", p.name())
				}
			}
		})
	}
}

// All of them learn their few cases.
func TestModelsTrain(t *testing.T) {
	for _, m := range models {
		if m.untrained {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			n := m.network()
			tr := newTrainer(t, n)
			first := tr.step(t)
			for range 14 {
				tr.step(t)
			}
			if last := tr.step(t); !(last < first) {
				t.Errorf("the cost went from %.4g to %.4g", first, last)
			}
		})
	}
}

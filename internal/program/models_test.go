package program

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A modelCase is a whole model.
type modelCase struct {
	name  string
	graph func(b *builder) *gorgonia.Node
	whole string // why it can't be run on a part of the batch, empty if it can
	opts  []gorgonia.VMOpt
}

var modelCases = []modelCase{
	{"MLP", mlp, "", nil},
	{"convnet", convnet, "", nil},
	{"BatchNorm net", batchNormNet(false), "", []gorgonia.VMOpt{gorgonia.EvalMode()}},
	{"LSTM", lstm, "", nil},
	{"charRNN", charRNN, "the batch holds one case", nil},
	{"embedding", embedding, "", nil},
	{"embedding of sliced indices", embeddingOfSlices, "", nil},
	{"tied weights", tied, "", nil},
	{"attention", attention, "", nil},
}

// dense is a W + b, the bias being of shape (out) or (1,out).
func dense(b *builder, x *gorgonia.Node, out int, biasShape ...int) *gorgonia.Node {
	y := must(gorgonia.Mul(x, b.input(between(-0.6, 0.6), x.Shape()[1], out)))
	return must(gorgonia.BroadcastAdd(y, b.x(biasShape...), nil, []byte{0}))
}

func mlp(b *builder) *gorgonia.Node {
	h := must(gorgonia.Tanh(dense(b, b.x(4, 5), 6, 1, 6)))
	h = must(gorgonia.Sigmoid(dense(b, h, 5, 5)))
	ones := b.input(between(1, 1), 4, 1) // a bias by a column of ones
	h = must(gorgonia.Concat(1, h, ones))
	return must(gorgonia.LogSoftMax(must(gorgonia.Mul(h, b.x(6, 3)))))
}

func convnet(b *builder) *gorgonia.Node {
	conv := must(gorgonia.Conv2d(b.x(3, 2, 6, 5), b.x(3, 2, 3, 3),
		tensor.Shape{3, 3}, []int{1, 1}, []int{1, 1}, []int{1, 1}))
	conv = must(gorgonia.BroadcastAdd(conv, b.x(1, 3, 1, 1), nil, []byte{0, 2, 3}))
	h := must(gorgonia.MaxPool2D(must(gorgonia.Tanh(conv)), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	conv = must(gorgonia.Conv2d(h, b.x(2, 3, 2, 2), tensor.Shape{2, 2}, []int{0, 1}, []int{1, 1}, []int{1, 1}))
	h = must(gorgonia.Reshape(must(gorgonia.Sigmoid(conv)), tensor.Shape{3, conv.Shape().TotalSize() / 3}))
	return dense(b, h, 3, 1, 3)
}

func batchNormNet(training bool) func(b *builder) *gorgonia.Node {
	return func(b *builder) *gorgonia.Node {
		normed := func(x *gorgonia.Node, paramShape ...int) *gorgonia.Node {
			y, _, _, op, err := gorgonia.BatchNorm(x, b.positive(paramShape...), b.x(paramShape...), 0.9, 1e-2)
			must(y, err)
			if !training {
				drawn := func(l law, seed uint64) *tensor.Dense {
					rng := rand.New(rand.NewPCG(seed, seed+1))
					return tensor.New(tensor.WithBacking(b.values(l(rng, paramShape[1]))))
				}
				mean, variance := drawn(between(-0.5, 0.5), 1), drawn(between(0.5, 1.5), 3)
				if op.SetTraining(false) != nil || op.SetStats(mean, variance) != nil {
					panic("running statistics")
				}
			}
			return y
		}
		conv := must(gorgonia.Conv2d(b.x(4, 1, 4, 4), b.x(2, 1, 3, 3),
			tensor.Shape{3, 3}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
		h := must(gorgonia.Tanh(normed(conv, 1, 2, 1, 1)))
		h = must(gorgonia.Mul(must(gorgonia.Reshape(h, tensor.Shape{4, 8})), b.x(8, 3)))
		return must(gorgonia.Mul(must(gorgonia.Tanh(normed(h, 1, 3))), b.x(3, 2)))
	}
}

// lstm runs three steps; one matrix makes all gates from the input beside the state.
func lstm(b *builder) *gorgonia.Node {
	const batch, in, units = 3, 2, 3
	w, bias := b.x(in+units, 4*units), b.x(1, 4*units)
	h, c := b.x(batch, units), b.x(batch, units)
	for range 3 {
		z := must(gorgonia.Mul(must(gorgonia.Concat(1, b.x(batch, in), h)), w))
		z = must(gorgonia.BroadcastAdd(z, bias, nil, []byte{0}))
		gate := func(i int) *gorgonia.Node { return must(gorgonia.Slice(z, nil, s(i*units, (i+1)*units))) }
		keep := must(gorgonia.HadamardProd(must(gorgonia.Sigmoid(gate(0))), c))
		write := must(gorgonia.HadamardProd(must(gorgonia.Sigmoid(gate(1))), must(gorgonia.Tanh(gate(2)))))
		c = must(gorgonia.Add(keep, write))
		h = must(gorgonia.HadamardProd(must(gorgonia.Sigmoid(gate(3))), must(gorgonia.Tanh(c))))
	}
	return must(gorgonia.Mul(h, b.x(units, 2)))
}

// charRNN works on vectors: one case, one step after the other.
func charRNN(b *builder) *gorgonia.Node {
	wx, wh, bias, wo := b.x(3, 2), b.x(3, 3), b.x(3), b.x(4, 3)
	h := b.x(3)
	for range 3 {
		z := must(gorgonia.Add(must(gorgonia.Mul(wx, b.x(2))), must(gorgonia.Mul(wh, h))))
		h = must(gorgonia.Tanh(must(gorgonia.Add(z, bias))))
	}
	return must(gorgonia.SoftMax(must(gorgonia.Mul(wo, h))))
}

func embedding(b *builder) *gorgonia.Node {
	const batch, words, dim = 3, 2, 4
	rows := must(gorgonia.ByIndices(b.x(5, dim), b.ints(4, 0, 2, 2, 1, 0), 0))
	h := must(gorgonia.Reshape(rows, tensor.Shape{batch, words * dim}))
	return must(gorgonia.Mul(must(gorgonia.Tanh(must(gorgonia.Mul(h, b.x(words*dim, 4))))), b.x(4, 3)))
}

// embeddingOfSlices looks up the columns of a matrix of indices, one per step.
func embeddingOfSlices(b *builder) *gorgonia.Node {
	ids := gorgonia.NewMatrix(b.g, tensor.Int, gorgonia.WithShape(3, 2), gorgonia.WithName("ids"),
		gorgonia.WithValue(tensor.New(tensor.WithShape(3, 2), tensor.WithBacking([]int{4, 0, 2, 2, 1, 0}))))
	table, w, wh := b.x(5, 4), b.x(4, 3), b.x(3, 3)
	h := b.x(3, 3)
	for t := range 2 {
		row := must(gorgonia.ByIndices(table, must(gorgonia.Slice(ids, nil, s(t))), 0))
		h = must(gorgonia.Tanh(must(gorgonia.Add(must(gorgonia.Mul(row, w)), must(gorgonia.Mul(h, wh))))))
	}
	return h
}

// tied is an autoencoder whose decoder uses the transposed weights of the encoder.
func tied(b *builder) *gorgonia.Node {
	w := b.x(5, 3)
	h := must(gorgonia.Sigmoid(must(gorgonia.Mul(b.x(4, 5), w))))
	return must(gorgonia.Mul(h, must(gorgonia.Transpose(w))))
}

func attention(b *builder) *gorgonia.Node {
	const batch, steps, dim = 3, 2, 4
	x := b.x(batch*steps, dim)
	project := func() *gorgonia.Node {
		return must(gorgonia.Reshape(must(gorgonia.Mul(x, b.x(dim, dim))), tensor.Shape{batch, steps, dim}))
	}
	scores := must(gorgonia.BatchedMatMul(project(), project(), false, true))
	mixed := must(gorgonia.BatchedMatMul(must(gorgonia.SoftMax(scores, 2)), project()))
	return must(gorgonia.Mul(must(gorgonia.Reshape(mixed, tensor.Shape{batch, steps * dim})), b.x(steps*dim, 3)))
}

func TestModels(t *testing.T) {
	for _, c := range modelCases {
		t.Run(c.name, func(t *testing.T) {
			t.Run("float64", func(t *testing.T) { checkModel[float64](t, c) })
			t.Run("float32", func(t *testing.T) { checkModel[float32](t, c) })
		})
	}
}

// modelPrecision has smaller steps: a model is more strongly curved than an op, and has kinks
// everywhere. In float32 the step 2^-8 leaves an error of 1e-4 |f| from rounding.
func modelPrecision[T Float]() precision {
	prec := precisionOf[T]()
	if dtypeOf[T]() == tensor.Float32 {
		prec.step, prec.diff = 1.0/256, 2e-3
	}
	return prec
}

func checkModel[T Float](t *testing.T, c modelCase) {
	const seed = 5 // one for which no finite difference crosses a tie in the max-pooling of the convnet
	b := newBuilder(dtypeOf[T](), seed)
	s := prepare[T](t, b, c.graph(b))
	if s.p.Whole != c.whole {
		t.Fatalf("reason to run the batch as a whole: %q, want %q", s.p.Whole, c.whole)
	}
	for range 2 {
		want := s.wantValue(opCase{graph: c.graph}, b, seed, c.opts...)
		compare(t, "value", s.forward(nil), want, 10*precisionOf[T]().value)
		s.checkDerivativesWithin(b.rng, modelPrecision[T]())
		if c.whole == "" {
			s.checkRows(b.rng, []int{2, 0})
			s.checkRows(b.rng, []int{1})
		}
		b.redraw()
	}
}

// checkRows compares a run on some cases with the same cases of a full run.
func (s *prepared[T]) checkRows(rng *rand.Rand, rows []int) {
	s.Helper()
	pick := func(n *Node, full []T) []T {
		if n.CaseAxis < 0 {
			return full
		}
		part := make([]T, len(full)/s.p.Cases*len(rows))
		pickCases(part, full, n, s.p.Cases, rows)
		return part
	}
	f := s.forward(nil)
	dirs, seed := make([][]T, len(s.vars)), make([]T, len(f))
	for i, v := range s.vars {
		dirs[i] = random[T](rng, v.Size())
	}
	each := len(f) / s.p.Cases
	for _, row := range rows {
		copy(seed[row*each:], random[T](rng, each))
	}
	grads, tan := s.reverse(seed), s.tangent(dirs)

	prec := 10 * precisionOf[T]().value
	what := func(name string) string { return fmt.Sprintf("of rows %v: %s", rows, name) }
	compare(s.T, what("value"), s.forward(rows), float64s(any(pick(s.out, f))), prec)
	if s.r.Cases() != len(rows) {
		s.Errorf("%d cases were run, want %d", s.r.Cases(), len(rows))
	}
	partGrads := s.reverse(pick(s.out, seed))
	for i, v := range s.vars {
		compare(s.T, what("gradient of "+v.Name()), partGrads[i], float64s(any(pick(v, grads[i]))), prec)
		dirs[i] = pick(v, dirs[i])
	}
	compare(s.T, what("tangent"), s.tangent(dirs), float64s(any(pick(s.out, tan))), prec)
}

// TestBatchNormRows: while training, a run on some rows normalises by the statistics of these rows.
// So does a run on a batch of these rows alone.
func TestBatchNormRows(t *testing.T) {
	graph := func(b *builder, batch int) *gorgonia.Node {
		y, _, _, _, err := gorgonia.BatchNorm(b.x(batch, 3), b.x(1, 3), b.x(1, 3), 0.9, 1e-2)
		return must(gorgonia.Mul(must(y, err), b.x(3, 2)))
	}
	b, small := newBuilder(tensor.Float64, 1), newBuilder(tensor.Float64, 1)
	s, part := prepare[float64](t, b, graph(b, 5)), prepare[float64](t, small, graph(small, 3))
	rows := []int{4, 0, 2}
	x, picked := s.vars[0], make([]float64, 9)
	pickCases(picked, float64s(x.Src.Value().Data()), x, 5, rows)
	small.set(small.vars[0].node, picked)
	for i, v := range b.vars[1:] {
		small.set(small.vars[i+1].node, float64s(v.node.Value().Data()))
	}
	compare(t, "value", s.forward(rows), part.forward(nil), 1e-12)
	seed := random[float64](b.rng, 6)
	got, want := s.reverse(seed), part.reverse(seed)
	for i := range got {
		compare(t, "gradient", got[i], want[i], 1e-12)
	}
}

// TestBatchNormModel checks a net that normalises by the statistics of the batch.
func TestBatchNormModel(t *testing.T) {
	c := modelCase{graph: batchNormNet(true)}
	b := newBuilder(tensor.Float64, 5)
	s := prepare[float64](t, b, c.graph(b))
	compare(t, "value", s.forward(nil), s.wantValue(opCase{graph: c.graph}, b, 5), 1e-11)
	s.checkDerivatives(b.rng)
}

// TestFloat32 compares all sweeps in float32 with those in float64 on the same values. That is
// sharper than finite differences in float32 can be.
func TestFloat32(t *testing.T) {
	cases := slices.Clone(opCases)
	for _, m := range modelCases {
		cases = append(cases, opCase{name: m.name, graph: m.graph})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			narrow, wide := newBuilder(tensor.Float32, 9), newBuilder(tensor.Float64, 9)
			s32, s64 := prepare[float32](t, narrow, c.graph(narrow)), prepare[float64](t, wide, c.graph(wide))
			for i, v := range narrow.vars {
				wide.set(wide.vars[i].node, slices.Clone(float64s(v.node.Value().Data())))
			}
			f := s64.forward(nil)
			seed32 := random[float32](narrow.rng, len(f))
			dirs32, dirs64 := make([][]float32, len(s32.vars)), make([][]float64, len(s32.vars))
			for i, v := range s32.vars {
				dirs32[i] = random[float32](narrow.rng, v.Size())
				dirs64[i] = float64s(dirs32[i])
			}
			compare(t, "value", s32.forward(nil), f, 1e-5)
			grads := s64.reverse(float64s(seed32))
			for i, g := range s32.reverse(seed32) {
				compare(t, "gradient of "+s32.vars[i].Name(), g, grads[i], 3e-5)
			}
			compare(t, "tangent", s32.tangent(dirs32), s64.tangent(dirs64), 3e-5)
		})
	}
}

package kfac

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// fisherRoot is column k of a matrix B with B B^T = F_R, for one case.
func fisherRoot(h head, z []float64, k int) []float64 {
	column := make([]float64, len(z))
	switch h := h.(type) {
	case categorical:
		p := plainSoftmax(z)
		for j := range z {
			column[j] = -p[j] * math.Sqrt(p[k])
		}
		column[k] += math.Sqrt(p[k])
	case bernoulli:
		p := 1 / (1 + math.Exp(-z[k]))
		column[k] = math.Sqrt(p * (1 - p))
	case gaussian:
		column[k] = 1 / math.Sqrt(h.variance)
	}
	return column
}

// A seeding makes the gradient to start the backward sweep from at output o, whose value is z, in
// one of several sweeps whose second moments add up.
type seeding func(o *output, z []float64, sweep int) []float64

// rootSeeds are the columns of the square root of F_R: the second moments add up to the expectation
// over the model's targets.
func rootSeeds(o *output, z []float64, sweep int) []float64 {
	var seed []float64
	for i := 0; i < len(z); i += o.cols {
		seed = append(seed, fisherRoot(o.head, z[i:i+o.cols], sweep)...)
	}
	return seed
}

// targetSeeds are the residuals of all possible targets of a case, each weighted with the root of
// its probability.
func targetSeeds(o *output, z []float64, sweep int) []float64 {
	seed := make([]float64, len(z))
	for i := 0; i < len(z); i += o.cols {
		all := outcomes(o.head, z[i:i+o.cols])
		if sweep >= len(all) {
			return nil
		}
		o.head.residual(seed[i:i+o.cols], all[sweep].y, z[i:i+o.cols], o.cols)
		for k := range o.cols {
			seed[i+k] *= math.Sqrt(all[sweep].prob)
		}
	}
	return seed
}

// observeSeeded fills the moments of every layer and chain with those of the listed cases, nil for
// all, adding those of g up over sweeps output by output, where each has the given number of
// sweeps.
func observeSeeded(t rapid.TB, c *conductor[float64], rows []int, sweeps func(o *output) int, seeds seeding) {
	t.Helper()
	run := c.sampler.run
	testnet.Check(t, run.Forward(rows))
	moments := gradientMoments(c)
	sums := make([][]float64, len(moments))
	for _, o := range c.outputs {
		z := slices.Clone(run.Value(o.node).Data)
		for sweep := range sweeps(o) {
			seed := seeds(o, z, sweep)
			for i := range seed {
				seed[i] *= math.Sqrt(o.weight)
			}
			testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: o.node, Data: seed}}, c.sampler.path))
			observeFirst(t, c)
			for i, m := range moments {
				sums[i] = plus(sums[i], m.next)
			}
		}
	}
	for i, m := range moments {
		copy(m.next, sums[i])
	}
	for _, b := range c.blocks {
		if b, ok := b.(*tiedBlock[float64]); ok {
			b.sum()
		}
	}
}

// gradientMoments are the moments of g: G of each layer, and of each way of one that is tied, the
// cross moments of chains, and the blocks of parameters that act element by element.
func gradientMoments(c *conductor[float64]) (moments []*moment[float64]) {
	for _, b := range c.blocks {
		switch b := b.(type) {
		case *kroneckerBlock[float64]:
			moments = append(moments, &b.factors.g)
		case *tiedBlock[float64]:
			moments = append(moments, &b.ways[0].g, &b.ways[1].g)
		case *chainBlock[float64]:
			for _, l := range b.links {
				moments = append(moments, &l.factors.g)
			}
			for i := range b.crossG {
				moments = append(moments, &b.crossG[i])
			}
		case *elementwiseBlock[float64]:
			moments = append(moments, &b.mean)
		}
	}
	return moments
}

// observeFirst puts the moments of the sampler's run into the blocks as if it were the first.
// Diagonal blocks are left out: the moments of several sweeps do not add up to theirs.
func observeFirst(t rapid.TB, c *conductor[float64]) {
	t.Helper()
	for _, b := range layerBlocks(c) {
		b.factors.updates = 0
	}
	for _, b := range c.blocks {
		switch b := b.(type) {
		case *diagonalBlock[float64]:
			continue
		case *tiedBlock[float64]:
			b.ways[0].updates, b.ways[1].updates = 0, 0
		case *elementwiseBlock[float64]:
			b.updates = 0
		}
		observed(t, b, c.sampler.run)
	}
}

func plus(sum, x []float64) []float64 {
	if sum == nil {
		sum = make([]float64, len(x))
	}
	for i, v := range x {
		sum[i] += v
	}
	return sum
}

// observeExactly fills the factors with their expectation over the model's targets.
func observeExactly(t rapid.TB, c *conductor[float64], rows []int) {
	t.Helper()
	observeSeeded(t, c, rows, func(o *output) int { return o.cols }, rootSeeds)
}

// jacobians are dz/dtheta of each case: z is its outputs side by side, theta all parameters in the
// order of the plan.
func jacobians(t rapid.TB, c *conductor[float64]) (perCase []*mat.Dense) {
	t.Helper()
	run, err := program.NewRun[float64](c.model, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	var leaves []*program.Node
	for _, p := range c.order {
		leaves = append(leaves, p.leaf)
	}
	path := c.model.Path(leaves...)
	for n := range c.model.Cases {
		var j []float64
		rows := 0
		for _, o := range c.outputs {
			for k := range o.cols {
				seed := make([]float64, o.node.Size())
				seed[n*o.cols+k] = 1
				testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: o.node, Data: seed}}, path))
				for _, leaf := range leaves {
					j = append(j, run.Gradient(leaf)...)
				}
				rows++
			}
		}
		perCase = append(perCase, mat.NewDense(rows, len(j)/rows, j))
	}
	return perCase
}

// differences are the jacobians by central differences of what a tape machine computes, for a
// network of one output.
func differences(t rapid.TB, n *testnet.Net) (perCase []*mat.Dense) {
	t.Helper()
	var out gorgonia.Value
	gorgonia.Read(n.Out, &out)
	vm := gorgonia.NewTapeMachine(n.Graph)
	defer vm.Close()
	size, cases := 0, n.Out.Shape()[0]
	for _, p := range n.Params {
		size += len(testnet.Data(p))
	}
	outputs := n.Out.Shape().TotalSize() / cases
	for range cases {
		perCase = append(perCase, mat.NewDense(outputs, size, nil))
	}
	column := 0
	for _, p := range n.Params {
		for i := range testnet.Data(p) {
			for k := range cases * outputs {
				slope := derivative(func() float64 {
					testnet.Check(t, vm.RunAll())
					vm.Reset()
					return out.Data().([]float64)[k]
				}, testnet.Data(p), i)
				perCase[k/outputs].Set(k%outputs, column, slope)
			}
			column++
		}
	}
	return perCase
}

// denseFisher is mean_n J_n^T F_R(z_n) J_n, with F_R by its textbook formula.
func denseFisher(t rapid.TB, c *conductor[float64], perCase []*mat.Dense) *mat.Dense {
	t.Helper()
	run, err := program.NewRun[float64](c.model, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	outputs, size := perCase[0].Dims()
	fisher := mat.NewDense(size, size, nil)
	for n, j := range perCase {
		middle := mat.NewDense(outputs, outputs, nil)
		at := 0
		for _, o := range c.outputs {
			z := run.Value(o.node).Data[n*o.cols : (n+1)*o.cols]
			f := mat.NewDense(o.cols, o.cols, plainFisher(o.head, z))
			f.Scale(o.weight/float64(len(perCase)), f)
			middle.Slice(at, at+o.cols, at, at+o.cols).(*mat.Dense).Copy(f)
			at += o.cols
		}
		var part mat.Dense
		part.Product(j.T(), middle, j)
		fisher.Add(fisher, &part)
	}
	return fisher
}

// elements are the positions of a layer's weights among all parameters: abar by abar, and within
// each output by output.
func elements(c *conductor[float64], l *layer) (at []int) {
	start, offset := map[*program.Node]int{}, 0
	for _, p := range c.order {
		start[p.leaf] = offset
		offset += len(p.grad)
	}
	for i := range l.in {
		for o := range l.out {
			if l.outByIn {
				at = append(at, start[l.weight]+o*l.in+i)
			} else {
				at = append(at, start[l.weight]+i*l.out+o)
			}
		}
	}
	if l.bias != nil {
		for o := range l.out {
			at = append(at, start[l.bias]+o)
		}
	}
	return at
}

// pick is the submatrix of the listed rows and columns.
func pick(m mat.Matrix, at []int) *mat.Dense {
	d := mat.NewDense(len(at), len(at), nil)
	for i, r := range at {
		for j, c := range at {
			d.Set(i, j, m.At(r, c))
		}
	}
	return d
}

// kronecker is A (x) G of the factors in next.
func kronecker(f *factors[float64]) *mat.Dense {
	var k mat.Dense
	k.Kronecker(wholeOf(&f.a), wholeOf(&f.g))
	return &k
}

// wholeOf is a factor in next as a matrix, also where only its diagonal is kept.
func wholeOf(f *moment[float64]) mat.Matrix {
	if f.diagonal {
		return mat.NewDiagDense(f.n, f.next)
	}
	return square(f.next)
}

// square is the n x n matrix of n^2 numbers.
func square(x []float64) *mat.Dense {
	n := int(math.Round(math.Sqrt(float64(len(x)))))
	return mat.NewDense(n, n, x)
}

// flatOf is the elements of a matrix, row by row.
func flatOf(m mat.Matrix) []float64 { return mat.DenseCopyOf(m).RawMatrix().Data }

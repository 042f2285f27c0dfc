package kfac

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/likelihood/likelihoodtest"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// fisherRoot is column k of a matrix B with B B^T = F_R, for one case.
func fisherRoot(h head, z []float64, k int) []float64 {
	column := make([]float64, len(z))
	switch l := h.Likelihood.(type) {
	case likelihood.Categorical:
		p := likelihoodtest.Softmax(z)
		for j := range z {
			column[j] = -p[j] * math.Sqrt(p[k])
		}
		column[k] += math.Sqrt(p[k])
	case likelihood.Bernoulli:
		p := 1 / (1 + math.Exp(-z[k]))
		column[k] = math.Sqrt(p * (1 - p))
	case likelihood.Gaussian:
		column[k] = 1 / math.Sqrt(l.Variance)
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
		o.Residual(seed[i:i+o.cols], all[sweep].Y, z[i:i+o.cols], o.cols)
		for k := range o.cols {
			seed[i+k] *= math.Sqrt(all[sweep].Prob)
		}
	}
	return seed
}

// seededAverages are the averages of the listed cases, nil for all, as if they were the first, with
// the moments of g added up over sweeps output by output. Each output has the given number of them.
func seededAverages(t rapid.TB, c *training[float64], rows []int, sweeps func(o *output) int,
	seeds seeding) averages[float64] {
	t.Helper()
	run := c.plan.model.run
	testnet.Check(t, run.Forward(rows))
	var avg averages[float64]
	sums := make([][][]float64, len(c.plan.blocks))
	for h, o := range c.plan.model.outputs {
		z := slices.Clone(run.Value(o.node).Data)
		for sweep := range sweeps(o) {
			seed := seeds(o, z, sweep)
			for i := range seed {
				seed[i] *= math.Sqrt(c.graph.weights[h])
			}
			testnet.Check(t, run.Reverse([]program.Seed[float64]{{Node: o.node, Data: seed}}, c.plan.path))
			avg = firstAverages(t, c)
			for i := range avg {
				for _, m := range gradientMoments(c, i) {
					if sums[i] == nil {
						sums[i] = make([][]float64, len(avg[i].Moments))
					}
					sums[i][m] = plus(sums[i][m], avg[i].Moments[m])
				}
			}
		}
	}
	for i := range avg {
		for _, m := range gradientMoments(c, i) {
			copy(avg[i].Moments[m], sums[i][m])
		}
	}
	return avg
}

// gradientMoments are the moments of g of a block: G of each layer, and of each way of one that is
// tied, the cross moments of chains, and those of parameters that act element by element. Diagonal
// blocks are left out: the moments of several sweeps do not add up to theirs.
func gradientMoments(c *training[float64], block int) (at []int) {
	b := c.plan.blocks[block]
	switch b.Block.(type) {
	case *curvature.Elementwise[float64], *curvature.Full[float64]:
		return []int{0}
	case *curvature.Diagonal[float64], *curvature.Identity[float64]:
		return nil
	}
	for m := 1; m < len(b.Copy().Moments); m += 2 { // A and G take turns
		at = append(at, m)
	}
	return at
}

// firstAverages are the averages of the model's run as if it were the first.
func firstAverages(t rapid.TB, c *training[float64]) averages[float64] {
	t.Helper()
	testnet.Check(t, observe(c.plan, false))
	avg, err := newAverages(c.plan.blocks, 0, true) // without those before
	testnet.Check(t, err)
	return avg
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

// exactAverages are the averages of the listed cases with their expectation over the model's
// targets.
func exactAverages(t rapid.TB, c *training[float64], rows []int) averages[float64] {
	t.Helper()
	return seededAverages(t, c, rows, func(o *output) int { return o.cols }, rootSeeds)
}

// jacobians are dz/dtheta of each case: z is its outputs side by side, theta all parameters in the
// order of the plan.
func jacobians(t rapid.TB, c *training[float64]) (perCase []*mat.Dense) {
	t.Helper()
	run, err := program.NewRun[float64](c.plan.model.Program, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	var leaves []*program.Node
	for _, p := range c.plan.order {
		leaves = append(leaves, p.leaf)
	}
	path := c.plan.model.Path(leaves...)
	for n := range c.plan.model.Cases {
		var j []float64
		rows := 0
		for _, o := range c.plan.model.outputs {
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
				slope := likelihoodtest.Derivative(func() float64 {
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
func denseFisher(t rapid.TB, c *training[float64], perCase []*mat.Dense) *mat.Dense {
	t.Helper()
	run, err := program.NewRun[float64](c.plan.model.Program, 1)
	testnet.Check(t, err)
	testnet.Check(t, run.Forward(nil))
	outputs, size := perCase[0].Dims()
	fisher := mat.NewDense(size, size, nil)
	for n, j := range perCase {
		middle := mat.NewDense(outputs, outputs, nil)
		at := 0
		for h, o := range c.plan.model.outputs {
			z := run.Value(o.node).Data[n*o.cols : (n+1)*o.cols]
			f := mat.NewDense(o.cols, o.cols, plainFisher(o.head, z))
			f.Scale(c.graph.weights[h]/float64(len(perCase)), f)
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
func elements(c *training[float64], l *layers.Layer) (at []int) {
	start, offset := map[*program.Node]int{}, 0
	for _, p := range c.plan.order {
		start[p.leaf] = offset
		offset += len(p.grad)
	}
	add := func(of *program.Node, part []int, i int) {
		if part != nil {
			i = part[i]
		}
		at = append(at, start[of]+i)
	}
	for i := range l.In {
		for o := range l.Out {
			if l.OutByIn {
				add(l.Weight, l.WeightAt, o*l.In+i)
			} else {
				add(l.Weight, l.WeightAt, i*l.Out+o)
			}
		}
	}
	if l.Bias != nil {
		for o := range l.Out {
			add(l.Bias, l.BiasAt, o)
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

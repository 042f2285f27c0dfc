package kfac_test

import (
	"fmt"
	"log"
	"math"
	"math/rand/v2"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// Trials is the distribution of the number of successes in so many trials, of which each has the
// probability sigmoid(z). Package likelihoodtest tests that a Likelihood is one.
type Trials float64

func (n Trials) Mean(dst, z []float64, _ int) {
	for i, v := range z {
		dst[i] = float64(n) / (1 + math.Exp(-v))
	}
}

func (n Trials) Sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, v := range z {
		y[i] = 0
		for range int(n) {
			if rng.Float64() < 1/(1+math.Exp(-v)) {
				y[i]++
			}
		}
	}
}

func (n Trials) Residual(r, y, z []float64, _ int) {
	for i, v := range z {
		r[i] = float64(n)/(1+math.Exp(-v)) - y[i]
	}
}

func (n Trials) FisherProduct(dst, v, z []float64, _ int) {
	for i, zi := range z {
		p := 1 / (1 + math.Exp(-zi))
		dst[i] = float64(n) * p * (1 - p) * v[i]
	}
}

func (n Trials) NegLogLikelihood(y, z []float64, _ int) (total float64) {
	for i, v := range z {
		total += float64(n)*(math.Max(v, 0)+math.Log1p(math.Exp(-math.Abs(v)))) - y[i]*v
	}
	return total // but for the binomial coefficient
}

// A distribution that the package does not have: of the number of successes in ten trials.
func ExampleCustom() {
	g := gorgonia.NewGraph()
	node := func(name string, data ...float64) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(len(data), 1),
			gorgonia.WithValue(tensor.New(tensor.WithShape(len(data), 1), tensor.WithBacking(data))))
	}
	must := gorgonia.Must
	dose, successes := node("dose", -2, -1, 0, 1, 2), node("successes", 1, 2, 5, 8, 9)
	slope := node("slope", 0)
	z := must(gorgonia.Mul(dose, slope))
	all := must(gorgonia.Mul(must(gorgonia.Softplus(z)), gorgonia.NewConstant(10.0)))
	cost := must(gorgonia.Mean(must(gorgonia.Sub(all, must(gorgonia.HadamardProd(successes, z))))))
	if _, err := gorgonia.Grad(cost, slope); err != nil {
		log.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(slope))
	defer vm.Close()

	solver, err := kfac.NewSolver(cost, kfac.Custom(z, Trials(10)))
	if err != nil {
		log.Fatal(err)
	}
	for range 10 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(gorgonia.Nodes{slope})); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Printf("slope %.3f\n", slope.Value().Data())
	// Output: slope [1.195]
}

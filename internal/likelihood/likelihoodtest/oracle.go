// Package likelihoodtest has what tests compare the predictive distributions with: their textbook
// definitions, without regard to range and cost.
package likelihoodtest

import (
	"fmt"
	"math"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
)

// Outcome is a target of one case with its probability.
type Outcome struct {
	Y    []float64
	Prob float64
}

// Outcomes enumerates the targets of one case with their probabilities. For the Gaussian these are
// the nodes z ± sqrt(variance) of the two-point Gauss-Hermite rule in each entry. The rule gives
// the expectation of every polynomial of degree three or less in an entry exactly. So does that for
// the Poisson up to degree two. The Laplace has only two residuals, and each has a target here.
func Outcomes(l likelihood.Likelihood, z []float64) []Outcome {
	if _, ok := l.(likelihood.Categorical); ok {
		var all []Outcome
		for k, p := range Softmax(z) {
			y := make([]float64, len(z))
			y[k] = 1
			all = append(all, Outcome{y, p})
		}
		return all
	}
	all := []Outcome{{nil, 1}}
	for _, zi := range z {
		var low, high, p float64
		switch l := l.(type) {
		case likelihood.Bernoulli:
			low, high, p = 0, 1, math.Exp(zi)/(math.Exp(zi)+1)
		case likelihood.Gaussian:
			low, high, p = zi-math.Sqrt(l.Variance), zi+math.Sqrt(l.Variance), 0.5
		case likelihood.Poisson:
			mean := math.Exp(zi)
			low, high, p = mean-math.Sqrt(mean), mean+math.Sqrt(mean), 0.5
		case likelihood.Laplace:
			low, high, p = zi-l.Scale, zi+l.Scale, 0.5
		default:
			panic(fmt.Sprintf("likelihoodtest: the outcomes of %T are not known", l))
		}
		var longer []Outcome
		for _, o := range all {
			longer = append(longer,
				Outcome{append(slices.Clone(o.Y), low), o.Prob * (1 - p)},
				Outcome{append(slices.Clone(o.Y), high), o.Prob * p})
		}
		all = longer
	}
	return all
}

// Fisher is the Fisher matrix F_R of one case, dense and row-major.
func Fisher(l likelihood.Likelihood, z []float64) []float64 {
	n := len(z)
	f := make([]float64, n*n)
	for i := range n {
		switch l := l.(type) {
		case likelihood.Categorical:
			p := Softmax(z)
			for j := range n {
				f[i*n+j] = -p[i] * p[j]
			}
			f[i*n+i] += p[i]
		case likelihood.Bernoulli:
			p := 1 / (1 + math.Exp(-z[i]))
			f[i*n+i] = p * (1 - p)
		case likelihood.Gaussian:
			f[i*n+i] = 1 / l.Variance
		case likelihood.Poisson:
			f[i*n+i] = math.Exp(z[i])
		case likelihood.Laplace:
			f[i*n+i] = 1 / l.Scale / l.Scale
		default:
			panic(fmt.Sprintf("likelihoodtest: the Fisher matrix of %T is not known", l))
		}
	}
	return f
}

// Softmax is the probabilities of the classes.
func Softmax(z []float64) []float64 {
	var sum float64
	for _, zk := range z {
		sum += math.Exp(zk)
	}
	p := make([]float64, len(z))
	for k, zk := range z {
		p[k] = math.Exp(zk) / sum
	}
	return p
}

// Derivative is the central difference of fourth order of f with respect to x[i].
func Derivative(f func() float64, x []float64, i int) float64 {
	const h = 1e-3
	at, steps := x[i], [4]float64{}
	for k, d := range [4]float64{h, -h, 2 * h, -2 * h} {
		x[i] = at + d
		steps[k] = f()
	}
	x[i] = at
	return (8*(steps[0]-steps[1]) - (steps[2] - steps[3])) / (12 * h)
}

// Package likelihood has the predictive distributions R(y|z) of the targets y of a model whose
// output is z (Martens & Grosse 2015, section 2).
//
// All methods work on rows of numbers. A slice is rows x cols, row-major, with one row per case;
// no rows is fine. z are the natural parameters of an exponential family. T(y) is the sufficient
// statistic that belongs to them: y itself, or y/variance for the [Gaussian]. Expectations and
// covariances are over targets drawn from R(y|z), row by row.
//
// Finite z of any size that can be squared give finite results. A NaN in z comes out as a NaN.
package likelihood

import (
	"fmt"
	"math/rand/v2"
)

// Likelihood is a predictive distribution R(y|z). Its methods neither allocate nor keep state.
type Likelihood interface {
	Essential
	// Variables is the number of independent target variables of a case of cols natural parameters.
	Variables(cols int) int
	// Discrete reports whether y is a class or a bit. T(y) and E[T(y)] are then in [0, 1], and
	// -log r(y|z) without its normalising constant is not negative.
	Discrete() bool
	// ImpliedTarget writes the y whose residual is r. A cost with the gradient r must have used
	// this target. y may alias r.
	ImpliedTarget(y, r, z []float64, cols int)
	// CheckTarget returns an error if a row of y is neither a possible target nor an expectation of
	// one. The error names row, column and value. tol is the rounding to allow in each entry, and
	// in the sum of a row where that sum is fixed.
	CheckTarget(y []float64, cols int, tol float64) error
}

// Essential is what no predictive distribution can do without.
type Essential interface {
	// Mean writes E[T(y)]: softmax(z), sigmoid(z), exp(z) or z/variance. Its derivative is F_R. dst
	// may alias z.
	Mean(dst, z []float64, cols int)
	// Sample draws y from R(y|z). A row of the Categorical is one-hot.
	Sample(y, z []float64, cols int, rng *rand.Rand)
	// Residual writes the gradient of -log r(y|z) with respect to z, which is E[T(y)] - T(y).
	// r may alias y.
	Residual(r, y, z []float64, cols int)
	// FisherProduct writes F_R v. F_R = Cov[T(y)] is the Fisher matrix of R(y|z) with respect to z
	// (Martens & Grosse 2015, appendix C). dst must alias neither v nor z.
	FisherProduct(dst, v, z []float64, cols int)
	// NegLogLikelihood returns -log r(y|z) in nats, summed over the rows. Normalising constants are
	// included. For targets that are probabilities it is the cross-entropy.
	NegLogLikelihood(y, z []float64, cols int) float64
}

// Scaled is a Likelihood whose residual is not E[T(y)] - T(y), so that the factor between it and
// the gradient of a cost shows in another way.
type Scaled interface {
	Likelihood
	// Factors writes, for each entry, the c with which grad is c times a residual at z. It is 0
	// where grad is 0.
	Factors(c, grad, z []float64, cols int)
}

// Fitted is a Likelihood whose residual is not E[T(y)] - T(y), so that factor and targets of a cost
// are told from its gradients at two points.
type Fitted interface {
	Likelihood
	// Fit writes, for each entry, the factor c and the target y with which c times the residual is
	// grad[k] at z[k], if there are any. c is 0 where grad is 0. All entries of z[1] are of one
	// size, and z[0] is -z[1].
	Fit(c, y []float64, grad, z [2][]float64, cols int)
}

func impossibleTarget(i, cols int, value float64, want string) error {
	return fmt.Errorf("the target at row %d, column %d is %.6g, where %s, is needed", i/cols, i%cols, value, want)
}

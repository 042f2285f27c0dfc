package kfac

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
)

// Likelihood is a predictive distribution R(y|z) of the user's, for [Custom]: that of targets y
// for an output z of the model, its natural parameters. Package likelihoodtest tests one in a line.
//
// Slices hold rows of cols float64, row-major, one for each case; there may be no rows. y has the
// layout of z. Rows are independent. Methods keep nothing from call to call and do not allocate.
// They may be called for any finite z.
//
// T(y) is the sufficient statistic that belongs to z: -log r(y|z) is a(z) - T(y).z, up to what does
// not depend on z. A likelihood of another form has to be a [FactorFinder] or a [Fitter]. It may
// also be a [VariableCounter], a [DiscreteLikelihood] and a [TargetChecker].
type Likelihood interface {
	// Mean writes E[T(y)]. dst may alias z. A FactorFinder or a Fitter is not asked for it.
	Mean(dst, z []float64, cols int)
	// Sample draws y from R(y|z), with the numbers of rng only.
	Sample(y, z []float64, cols int, rng *rand.Rand)
	// Residual writes the gradient of -log r(y|z) with respect to z, which is E[T(y)] - T(y). r may
	// alias y.
	Residual(r, y, z []float64, cols int)
	// FisherProduct writes F v, row by row, with F = E[r r^T] the Fisher matrix of R(y|z) with
	// respect to z. dst aliases neither v nor z.
	FisherProduct(dst, v, z []float64, cols int)
	// NegLogLikelihood returns -log r(y|z) in nats, summed over the rows.
	NegLogLikelihood(y, z []float64, cols int) float64
}

// VariableCounter is a Likelihood whose rows have another number of independent target variables
// than of natural parameters: one in a row of logits, say. If they are fewer, a row of the
// likelihood runs along the last axis of the output, so that an output of shape (B, T, cols) has
// targets at T positions of each case. The default is cols, and one row for each case.
type VariableCounter interface {
	Likelihood
	Variables(cols int) int
}

// DiscreteLikelihood is a Likelihood that may be of classes or of bits. If it is, T(y) and E[T(y)]
// are in [0, 1], and -log r(y|z) is never negative. The default is that it is not.
type DiscreteLikelihood interface {
	Likelihood
	Discrete() bool
}

// TargetChecker is a Likelihood that tells targets that are possible from others, so that the loss
// check finds those that are not.
type TargetChecker interface {
	Likelihood
	// ImpliedTarget writes the y whose residual is r. y may alias r.
	ImpliedTarget(y, r, z []float64, cols int)
	// CheckTarget returns an error if a row of y is neither a possible target nor an expectation of
	// one. tol is the rounding to allow in each entry.
	CheckTarget(y []float64, cols int, tol float64) error
}

// FactorFinder is a Likelihood whose residual need not be E[T(y)] - T(y), but tells the factor of a
// cost from its gradient.
type FactorFinder interface {
	Likelihood
	// Factors writes, for each entry, the c > 0 with which grad is c times a residual at z, of
	// whatever target. It is 0 where nothing can be told, as where grad is 0.
	Factors(c, grad, z []float64, cols int)
}

// Fitter is a Likelihood whose residual need not be E[T(y)] - T(y), but that tells factor and
// targets of a cost from its gradients at two points, as where a variance is predicted too.
type Fitter interface {
	Likelihood
	// Fit writes, for each entry, the c > 0 and the y with which grad[k] is c times the residual of
	// y at z[k], if there are such. It writes c = 0 where grad is 0. All entries of z[1] are of one
	// size s, and z[0] is -z[1]. If no y fits, a larger s is tried.
	Fit(c, y []float64, grad, z [2][]float64, cols int)
}

// Custom declares that the cost is the negative log-likelihood of a distribution of the user's, up
// to a positive factor and to terms that do not depend on the output.
//
// z is the node of its natural parameters, of any shape; see [VariableCounter] for its rows.
func Custom(z *gorgonia.Node, l Likelihood) Distribution {
	h := head{kind: "Custom", node: z, problem: checkNode(z)}
	if l == nil {
		h.problem = errors.New("the Likelihood is nil")
		return h
	}
	h.kind, h.Likelihood = fmt.Sprintf("Custom %T", l), likelihood.Complete(l)
	return h
}

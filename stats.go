package kfac

import (
	"fmt"
	"time"
)

// Stats tells what one Step did. Quantities are in the solver's own units: the cost divided by its scale, which makes it the
// mean over cases of the negative log-likelihood, in nats, plus whatever other terms the cost has.
type Stats struct {
	Step int // number of this step, from 1

	Cost   float64 // the user's cost as the VM left it, in the user's units, mean over the chunks; NaN if the VM did not keep it
	Scale  float64 // c, where cost = c x (sum over cases of the negative log-likelihood) + other terms; of the first output
	Cases  int     // in the batch, all chunks together
	Chunks int     // RunAlls of this update: 1, and one for each Accumulate

	Damping      float64 // lambda
	Gamma        float64 // sqrt(lambda + eta): what the factored Tikhonov damping splits between A and G
	LearningRate float64 // alpha of the quadratic model, or as set by WithLearningRate
	Shrink       float64 // factor in (0, 1] that the norm constraint put on a learning rate of the user's
	Momentum     float64 // mu of the quadratic model, or as set by WithMomentum

	// Of the quadratic model only.
	QuadModelChange float64 // M(delta) - M(0), damping included
	Rho             float64 // reduction ratio; 0 if the step did not compute one, -Inf if the objective rose on its own batch
	Rejected        bool    // the step raised the objective and was not taken (WithStepRejection)

	GradNorm   float64 // Euclidean norm of the gradient, L2 term included
	UpdateNorm float64 // Euclidean norm of the change of the weights
	KL         float64 // estimate 1/2 d^T F d in nats of what this step's direction, without momentum, does to the predictive distribution

	StatisticsCases int  // cases that the factors were estimated from; 0 if they were not updated
	InverseUpdated  bool // inverses were recomputed, or taken up from the background
	DampingRaised   int  // factors whose damping had to be raised before they could be factorised

	Time PhaseTimes
}

// PhaseTimes is where the time of a step went.
type PhaseTimes struct {
	Checks       time.Duration // loss and gradient check; first two steps only, and the loss check at the first of each graph
	Gradients    time.Duration // reading and checking the user's gradients
	Capture      time.Duration // private forward pass and sampled backward pass, and that of the gradient for the low-rank form
	Factors      time.Duration // Kronecker factors from what was captured
	Inverses     time.Duration
	Precondition time.Duration // inverse times gradient, in either form
	Model        time.Duration // exact-Fisher products for step length and momentum
	Rho          time.Duration // objective before and after the step
	Update       time.Duration // new weights
	Total        time.Duration
}

func (s Stats) String() string {
	return fmt.Sprintf("step %d: cost %.5g, damping %.3g, learning rate %.3g x %.3g, |gradient| %.3g, |update| %.3g, KL %.3g nats, %v",
		s.Step, s.Cost, s.Damping, s.LearningRate, s.Shrink, s.GradNorm, s.UpdateNorm, s.KL, s.Time.Total.Round(time.Microsecond))
}

package kfac

import (
	"fmt"
	"time"
)

// Stats tells what one Step did. Each field means the same with the quadratic model and with
// WithLearningRate; what was not computed is NaN. Quantities are in the solver's own units: the
// cost divided by its scale, which makes it the mean over cases of the negative log-likelihood, in
// nats, plus whatever other terms the cost has.
//
// The update that was made is
//
//	LearningRate Delta + Momentum delta0,
//
// where Delta = -F0^-1 grad is the negative preconditioned gradient, and delta0 the previous
// update. Of a step that was rejected, it is the update that was not made.
type Stats struct {
	Step int // number of this step, from 1

	// Cost is the user's cost as the VM left it, in the user's units: the mean over the chunks. It
	// is NaN if the VM did not keep it.
	Cost float64
	// Scale is c of the first output, where the cost is c times the sum over cases of the negative
	// log-likelihood, plus other terms.
	Scale  float64
	Cases  int // in the batch, all chunks together
	Chunks int // RunAlls of this update: 1, and one for each Accumulate

	Damping float64 // lambda that the step was made with
	Gamma   float64 // what factored Tikhonov damping splits between A and G; it starts at (lambda + eta)^1/2
	// LearningRate is alpha, the factor on Delta, and Momentum mu, the factor on the previous
	// update: as the quadratic model or the user has set them, and shortened.
	LearningRate float64
	Momentum     float64
	// Shrink is the factor in (0, 1] by which the step was shortened, by the norm constraint and,
	// with the quadratic model, by the provisions against noise. It is in LearningRate already;
	// with the quadratic model in Momentum too.
	Shrink float64

	QuadModelChange float64 // M(delta) - M(0), damping included; NaN with WithLearningRate
	Rho             float64 // reduction ratio; -Inf if the objective rose on its own batch, NaN if not computed
	Rejected        bool    // the step raised the objective and was not taken (WithStepRejection)

	GradNorm       float64 // Euclidean norm of the gradient, L2 term included
	PreconGradNorm float64 // norm of the gradient in the metric of the damped curvature, (grad^T F0^-1 grad)^1/2
	UpdateNorm     float64 // Euclidean norm of the change of the weights
	// KL is 1/2 delta^T F delta for the exact Fisher matrix, in nats: what the update does to the
	// predictive distribution of a case, to second order. NaN with WithLearningRate.
	KL float64

	StatisticsCases int  // cases that the factors were estimated from
	InverseUpdated  bool // inverses were computed, or taken up from the background
	// AveragesRestarted is the number of curvature blocks whose running averages have started anew
	// with this batch: those of an earlier batch that was far off could not be inverted, or had
	// dwarfed the inputs of ten updates.
	AveragesRestarted int
	DampingRaised     int // factors whose damping had to be raised before they could be factorised

	Time PhaseTimes
}

// PhaseTimes is where the time of a step went.
type PhaseTimes struct {
	Checks       time.Duration // loss and gradient check, where they are made
	Gradients    time.Duration // reading and checking the user's gradients
	Capture      time.Duration // private forward pass and sampled backward pass, and that of the low-rank form
	Factors      time.Duration // Kronecker factors from what was captured
	Inverses     time.Duration
	Precondition time.Duration // inverse times gradient, in either form
	Model        time.Duration // exact-Fisher products for step length and momentum
	Rho          time.Duration // objective before and after the step
	Update       time.Duration // new weights
	Total        time.Duration
}

func (s Stats) String() string {
	return fmt.Sprintf("step %d: cost %.5g, damping %.3g, learning rate %.3g (shortened to %.3g), momentum %.3g, "+
		"|gradient| %.3g, |update| %.3g, KL %.3g nats, %v", s.Step, s.Cost, s.Damping, s.LearningRate, s.Shrink,
		s.Momentum, s.GradNorm, s.UpdateNorm, s.KL, s.Time.Total.Round(time.Microsecond))
}

// stopwatch adds the time since its last reading to a phase.
type stopwatch struct{ last time.Time }

func (w *stopwatch) lap(d *time.Duration) {
	now := time.Now()
	*d += now.Sub(w.last)
	w.last = now
}

package kfac

import (
	"fmt"
	"time"
)

// Stats reports what one Step did. Each field has the same meaning with the quadratic model and
// with WithLearningRate. A quantity that was not computed is NaN. Quantities are in the solver's
// units: the cost divided by its scale and by the number of cases. This is the mean over cases of
// the negative log-likelihood, in nats, plus the other terms of the cost.
//
// The update is
//
//	LearningRate Delta + Momentum delta0.
//
// Delta = -F0^-1 grad is the negative preconditioned gradient. delta0 is the previous update. If
// the step was rejected, the update was not made. With WithInner and Precondition another solver
// makes the update, and LearningRate and Momentum are NaN.
type Stats struct {
	Step int // number of this step, from 1

	// Cost is the user's cost as the VM computed it, in the user's units. With several chunks it is
	// the mean over the chunks. It is NaN if the VM did not keep it.
	Cost float64
	// Scale is the factor c of the output: the cost is c times the sum over cases of the negative
	// log-likelihood, plus other terms. In a Joint it is the largest one: the objective counts that
	// output's negative log-likelihood in full, and those of the others in proportion to their c.
	Scale  float64
	Cases  int // in all chunks together
	Chunks int // RunAlls of this update: 1, plus 1 for each Accumulate

	Damping float64 // lambda of this step
	Gamma   float64 // factored Tikhonov damping, split between A and G; the first is (lambda + eta)^1/2
	// LearningRate is alpha, the factor on Delta. Momentum is mu, the factor on the previous
	// update. The quadratic model or the user has set them.
	LearningRate float64
	Momentum     float64
	// Shrink is the factor in (0, 1] that shortened the step. It comes from the norm constraint
	// and, with the quadratic model, from the rules against noise. LearningRate includes it.
	// Momentum includes it with the quadratic model only.
	Shrink float64

	QuadModelChange float64 // M(delta) - M(0), including the damping term; NaN with WithLearningRate
	Rho             float64 // reduction ratio; -Inf if the objective rose on the step's batch, NaN if not computed
	Rejected        bool    // the step raised the objective and was rejected (WithStepRejection)

	ParamNorm      float64 // Euclidean norm of the weights that were given, after the step
	GradNorm       float64 // Euclidean norm of the gradient, including the L2 term
	DirectionNorm  float64 // Euclidean norm of Delta, the preconditioned gradient
	PreconGradNorm float64 // norm of the gradient in the metric of the damped curvature, (grad^T F0^-1 grad)^1/2
	// UpdateNorm is the Euclidean norm of the step: of the change of the weights, but for what
	// WithWeightDecay takes off them. It is 0 if the step was rejected.
	UpdateNorm float64
	// KL is 1/2 delta^T F delta with the exact Fisher matrix, in nats. To second order this is the
	// KL divergence that the update causes in the predictive distribution of a case. It is NaN with
	// WithLearningRate.
	KL float64

	// Skipped says that the step was not made, since the gradient of its batch is not finite
	// (WithSkipNotFinite). Step is then the number of the step that the next batch will make.
	// SkippedBatches is the number of RunAlls left out so far, those of Accumulate among them.
	Skipped        bool
	SkippedBatches int

	StatisticsCases int  // cases that the factors were estimated from
	InverseUpdated  bool // new inverses were computed, or came from the background
	// AveragesRestarted is the number of curvature blocks whose running averages restarted with
	// this batch. An earlier batch was far off: its averages could not be inverted, or dwarfed the
	// inputs of ten updates.
	AveragesRestarted int
	DampingRaised     int // factors that could be factorised only with more damping

	Layers   []LayerStats // by block, at the steps that WithLayerStats asks for; otherwise nil
	Warnings []Warning    // that are new with this step

	Time PhaseTimes
}

// LayerStats tells what a step did with a layer, that is a weight and perhaps a bias, or with the
// parameters of a block outside layers, and how its curvature is after the step. The norms are of
// the parameters that were given.
type LayerStats struct {
	Params []string // their names, the weight first; a part is called as in w[0]

	ParamNorm  float64 // Euclidean norm of the weights after the step
	GradNorm   float64 // that of the gradient, including the L2 term
	UpdateNorm float64 // that of the step, without weight decay; 0 if rejected; NaN with Precondition
	Share      float64 // of the squared norm of the whole update, in [0, 1]; NaN if that is 0

	// A and G are the factors of a layer; a tied weight has those of the product that stands for
	// the two of its uses. F is the block of parameters outside layers. NaN is what there is none
	// of.
	A, G, F FactorStats
	// Pi splits the damping: pi gamma is added to A and gamma / pi to G (Martens & Grosse 2015,
	// section 6.3). It is that of the present A and G.
	Pi float64
}

// FactorStats tells about a running average. It is in the coordinates that lambda counts in; see
// WithDamping.
type FactorStats struct {
	Trace float64
	// Damping is what was added to the diagonal for the inverse that the step used. That may be
	// older than the average, and the damping is raised where a factor could not be factorised. It
	// is NaN for A and G of a layer with WithEKFAC or WithExactDamping, where gamma^2 is added to
	// the whole block.
	Damping float64
	// Largest and Smallest estimate eigenvalues from 32 products with the factor. They are exact
	// for a diagonal and up to 32 rows. Otherwise the largest eigenvalue is no less than Largest,
	// mostly by little, and the smallest no more than Smallest, perhaps by far. By
	// WithSpatiallyUncorrelated they are those of the factor of a pixel's channels.
	Largest, Smallest float64
}

// PhaseTimes says how long each phase of a step took.
type PhaseTimes struct {
	Checks       time.Duration // loss check and gradient check; 0 if there was none
	Gradients    time.Duration // reading and checking the user's gradients
	Capture      time.Duration // private forward pass, sampled backward pass, backward pass for the low-rank form
	Factors      time.Duration // second moments and running averages
	Inverses     time.Duration
	Precondition time.Duration // inverse times gradient, whole or low-rank
	Model        time.Duration // exact Fisher products, for step length and momentum
	Rho          time.Duration // objective before and after the step, and trial steps
	Update       time.Duration // new weights
	Layers       time.Duration // statistics of layers (WithLayerStats)
	Total        time.Duration
}

func (s Stats) String() string {
	return fmt.Sprintf("step %d: cost %.5g, damping %.3g, learning rate %.3g (shrink %.3g in it), momentum %.3g, "+
		"|gradient| %.3g, |update| %.3g, KL %.3g nats, %v", s.Step, s.Cost, s.Damping, s.LearningRate, s.Shrink,
		s.Momentum, s.GradNorm, s.UpdateNorm, s.KL, s.Time.Total.Round(time.Microsecond))
}

// stopwatch measures phases: lap adds the time since the last lap to a phase.
type stopwatch struct{ last time.Time }

func (w *stopwatch) lap(d *time.Duration) {
	now := time.Now()
	*d += now.Sub(w.last)
	w.last = now
}

package kfac

import (
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// An Option changes one setting of a solver. NewSolver checks its value and returns a *ConfigError
// if the value is out of range. A gorgonia.SolverOpt is not an Option of this solver. The compiler
// refuses it, so it can't be ignored silently.
type Option func(*config) error

// config holds every setting. The options below document them.
type config struct {
	// Direction of the step.
	ema           float64
	inversePeriod int     // T3; 0: see inversePeriod
	backgroundLag int     // steps until a background inverse is used; 0: no background inverses
	statsFraction float64 // tau1
	minStatsCases int     // 0: see leastStatistics
	tridiagonal   bool
	ekfac         bool
	exactDamping  bool
	maxDim        int
	fullBlock     int
	sharing       WeightSharing
	timing        TimeCorrelation
	uncorrelated  bool
	estimate      FisherEstimate
	samples       int

	// Length of the step.
	l2        float64
	damping   float64 // lambda; 0: found by trial steps
	normLimit float64 // 0: the default, which depends on the outputs
	clipNorm  float64 // 0: none
	decay     float64 // of the weights, by step

	// Used with a learning rate.
	learningRate float64 // 0: use the quadratic model
	momentum     float64
	inner        gorgonia.Solver // that makes the steps; nil: none

	// Used with the quadratic model.
	noMomentum    bool
	modelFraction float64 // tau2
	minModelCases int
	reject        bool
	paperRules    bool
	undampedRho   bool
	lambdaPeriod  int     // T1
	lambdaDecay   float64 // omega1
	gammaPeriod   int     // T2
	gammaAgain    bool    // search at every T2-th step, not by the default schedule
	gammaDecay    float64 // omega2
	maxGamma      float64

	rateOptions  []string // options given that need a learning rate
	modelOptions []string // options given that need the quadratic model

	averaging   float64 // xi; 0: no average
	averageFrom int

	schedules [knobs]Schedule // of the dials; nil where there is none
	groups    paramGroups     // with settings of their own
	// standardises: lambda counts in coordinates that do not depend on the units of data. It counts
	// in the weights' own where the user has set it, and by the paper's rules.
	standardises bool

	ranks       *ranks // nil: this process is alone
	placement   placement
	sameWeights bool // the ranks compare their first weights, and are not given those of rank 0

	skipInRow int // batches whose gradient is not finite that may be left out in a row

	layerStats int // steps from one Stats.Layers to the next; 0: none

	seed          uint64
	gradientCheck bool
	lossCheck     bool
	strict        bool
	unreached     bool
	onStats       func(Stats)
	recorders     []Recorder
	logger        func() *slog.Logger // returns nil for none
}

func defaults() config {
	return config{
		ema:           0.95,
		statsFraction: 1.0 / 8,
		maxDim:        4096,
		fullBlock:     512,
		sharing:       AutoSharing,
		timing:        TimeIndependent,
		estimate:      SampledFisher,
		samples:       1,
		momentum:      0.9,
		modelFraction: 1.0 / 4,
		minModelCases: 256,
		lambdaPeriod:  5,
		lambdaDecay:   math.Pow(19.0/20, 5),
		gammaPeriod:   20,
		gammaDecay:    math.Pow(19.0/20, 10),
		maxGamma:      math.Inf(1),
		seed:          1,
		placement:     placement{worth: worthSending},
		gradientCheck: true,
		lossCheck:     true,
		logger:        slog.Default,
	}
}

// approximation returns the form of the factors that the options ask for.
func (c *config) approximation() layers.Approximation {
	sharing := map[WeightSharing]layers.Sharing{AutoSharing: layers.Auto, Expand: layers.Expand, Reduce: layers.Reduce}
	return layers.Approximation{MaxDim: c.maxDim, Sharing: sharing[c.sharing], Uncorrelated: c.uncorrelated}
}

// eigenproblems reports whether inverses take these.
func (c *config) eigenproblems() bool {
	return c.tridiagonal || c.eigen() || c.timing != TimeIndependent
}

// longestPeriod is the paper's T3 (Martens & Grosse 2015, section 8).
const longestPeriod = 20

// validate checks the options together and sets the defaults that depend on several of them.
func (c *config) validate() error {
	byRate := c.learningRate > 0
	switch {
	case !byRate && len(c.rateOptions) > 0:
		return &ConfigError{c.rateOptions[0], "no WithLearningRate",
			"WithLearningRate too: without it the quadratic model finds the step length and the momentum"}
	case byRate && len(c.modelOptions) > 0:
		return &ConfigError{c.modelOptions[0], "WithLearningRate too",
			"one of them: with a learning rate there is no quadratic model"}
	case c.inner != nil && slices.Contains(c.rateOptions, "WithMomentum"):
		return &ConfigError{"WithMomentum", "WithInner too", "one of them: the inner solver has a momentum of its own"}
	case byRate && c.damping == 0:
		c.damping = 0.03
	}
	if c.backgroundLag > 0 && (c.gammaAgain || c.paperRules) {
		return &ConfigError{"WithBackgroundInverses", "WithGammaAdaptation or WithPaperRules too",
			"one of them: a search for gamma needs inverses of all blocks at once"}
	}
	if c.placement.fraction > 0 && c.ranks == nil {
		return &ConfigError{"WithPlacement", "no WithCommunicator", "WithCommunicator too: there are no ranks else"}
	}
	if c.sameWeights && c.ranks == nil {
		return &ConfigError{"WithSameWeights", "no WithCommunicator", "that option too: one process compares nothing"}
	}
	if c.tridiagonal && c.eigen() {
		return &ConfigError{"WithBlockTridiagonal", "WithEKFAC or WithExactDamping too", "one of them"}
	}
	if c.samples > 1 && (c.estimate == EmpiricalFisher || c.estimate == ExactFisher) {
		return &ConfigError{"WithFisherSamples", fmt.Sprintf("WithFisherEstimate(%q) too", c.estimate),
			"one of them: nothing is sampled by this estimate"}
	}
	if c.inversePeriod == 0 && (c.backgroundLag > 0 || c.paperRules) {
		c.inversePeriod = longestPeriod
	}
	if c.backgroundLag > c.inversePeriod {
		return &ConfigError{"WithBackgroundInverses", fmt.Sprint(c.backgroundLag),
			fmt.Sprintf("no more than WithInverseUpdatePeriod, %d steps", c.inversePeriod)}
	}
	scheduled := c.schedules[dialOf(L2Reg)] != nil
	c.standardises = !c.paperRules && !byRate && c.damping == 0 && !c.hasL2() && !scheduled
	return nil
}

// rateOption marks an option that is valid only with WithLearningRate.
func rateOption(name string, o Option) Option {
	return func(c *config) error { c.rateOptions = append(c.rateOptions, name); return o(c) }
}

// modelOption marks an option that is valid only with the quadratic model.
func modelOption(name string, o Option) Option {
	return func(c *config) error { c.modelOptions = append(c.modelOptions, name); return o(c) }
}

// number makes an option that takes a number in a range.
func number(name string, v float64, inRange bool, want string, set func(*config)) Option {
	return func(c *config) error {
		if !inRange || math.IsNaN(v) {
			return &ConfigError{name, fmt.Sprint(v), want}
		}
		set(c)
		return nil
	}
}

// WithLearningRate sets a fixed learning rate, finite and greater than 0. Every step is -rate times
// the preconditioned gradient, plus the previous update times the factor of WithMomentum. Default:
// none. The quadratic model then finds the step length and the momentum.
//
// With a learning rate lambda is fixed. A step costs about half as much and makes less progress.
// The rate needs tuning; 0.1 has worked for the examples. The norm constraint lowers the rate where
// a step would change the predictions too much (see WithNormConstraint).
func WithLearningRate(rate float64) Option {
	return number("WithLearningRate", rate, rate > 0 && !math.IsInf(rate, 1), "a finite number > 0",
		func(c *config) { c.learningRate = rate })
}

// WithMomentum sets the fraction, in [0, 1), of the previous update that is added to each update.
// It is valid only with WithLearningRate. Default 0.9.
func WithMomentum(mu float64) Option {
	return rateOption("WithMomentum", number("WithMomentum", mu, mu >= 0 && mu < 1, "a number in [0, 1)",
		func(c *config) { c.momentum = mu }))
}

// WithDamping sets the first lambda, in (0, 1e30]. lambda is the Tikhonov damping of
// the curvature, in nats per squared unit of a parameter. Its meaning does not depend on the scale
// of the cost. A larger lambda makes steps more careful.
//
// Default: found by trial steps on the first batch, and counted in coordinates in which the units
// of inputs and targets do not matter: inputs that are data minus their medians, divided by a
// typical distance from these, and outputs in units of the first batch's errors. A lambda that is
// given counts in the weights as they are, and so it does with WithL2Reg. The paper sets 150 for
// its autoencoders and leaves other problems to the user (Martens & Grosse 2015, section 6.5).
//
// With WithLearningRate lambda stays fixed and the default is 0.03. This lies between the best
// values for the MNIST autoencoder (0.003 to 0.03) and for the MNIST classifier (0.03 to 0.1) of
// graph_examples.
func WithDamping(lambda float64) Option {
	return number("WithDamping", lambda, lambda > 0 && lambda <= largest, "a number in (0, 1e30]",
		func(c *config) { c.damping = lambda })
}

// WithNormConstraint sets kappa, greater than 0, in nats: the limit on how far one step may change
// the predictions. +Inf turns it off.
//
// With WithLearningRate, the learning rate lr is multiplied by min(1, sqrt(kappa/(lr^2 V.U))). V is
// the gradient, U is the preconditioned gradient, and V.U = U^T F U (Ba, Grosse & Martens 2017,
// section 5). The default is 0.001 sqrt(d), where d is the number of target variables of a case: 1
// for Categorical, the number of outputs for most others. On MNIST this is about the best value of
// a grid for both the autoencoder (d = 784) and the classifier (d = 1).
//
// With the quadratic model, kappa limits delta^T F delta for the update delta. The default is 2 d
// B/(B+16) for B cases. So a step from a large batch may change the predictive distribution by one
// nat per target variable. Of a Gaussian, that is by sqrt(2) standard deviations, those of the
// batch's residuals where these are larger than the declared ones. In a Joint, each output counts
// with its weight in the cost. With an output declared by [Policy] the default is 0.02. With
// WithPaperRules it is no limit.
func WithNormConstraint(kappa float64) Option {
	return number("WithNormConstraint", kappa, kappa > 0, "a number > 0 (nats)",
		func(c *config) { c.normLimit = kappa })
}

// WithL2Reg adds (eta/2) |theta|^2 to the objective, over all parameters including biases (Martens
// & Grosse 2015, section 6.1). eta is in [0, 1e30]. The objective is in the solver's
// units: mean negative log-likelihood per case. The term adds eta theta to the gradient and eta to
// the curvature. The user's cost must not contain the term too. Default 0. The paper's experiments
// use 1e-5.
func WithL2Reg(eta float64) Option {
	return number("WithL2Reg", eta, eta >= 0 && eta <= largest, "a number in [0, 1e30]",
		func(c *config) { c.l2 = eta })
}

// WithWeightDecay has every step take this fraction of each weight away, in [0, 1), beside the
// update: theta becomes (1 - fraction) theta + delta. It is decoupled (Loshchilov & Hutter 2019):
// unlike WithL2Reg it is no part of the objective. Gradient, curvature, the quadratic model, rho,
// KL and the norm constraint don't see it, it does not depend on the learning rate, and the
// previous update that momentum goes on with does not hold it. What others call a decay of 0.01 at
// a learning rate of 0.001 is a fraction of 1e-5. It holds for all parameters that the step is
// given, including biases; see GroupDecay. A step that is rejected takes nothing away. With
// WithInner it comes on top of the inner solver's step; Precondition leaves it to the caller.
// Default 0.
func WithWeightDecay(fraction float64) Option {
	return number("WithWeightDecay", fraction, fraction >= 0 && fraction < 1, "a number in [0, 1)",
		func(c *config) { c.decay = fraction })
}

// WithClipNorm limits the gradient's Euclidean norm, Stats.GradNorm, to this, greater than 0: the
// step of a batch with a larger norm is multiplied by norm / GradNorm. That is the step which the
// gradient times this factor would give, by the quadratic model too, where alpha and mu are as
// before. rho still compares what the step does with what the gradient promised for it. Clipping
// comes before the norm constraint, and the smaller of the two factors holds; Stats.Shrink has it.
// The norm is over all parameters that K-FAC steps, in the solver's units, with the L2 term. The
// curvature is not clipped. The norm constraint does much the same in nats, whatever the scale of
// weights and inputs. Default: none.
func WithClipNorm(norm float64) Option {
	return number("WithClipNorm", norm, norm > 0 && !math.IsInf(norm, 1), "a finite number > 0",
		func(c *config) { c.clipNorm = norm })
}

// WithCurvatureEMA sets ema, in [0, 1): the largest weight of the old value in the running averages
// of the factors. At step k this weight is min(1 - 1/k, ema). Default 0.95 (Martens & Grosse 2015,
// section 5).
func WithCurvatureEMA(ema float64) Option {
	return number("WithCurvatureEMA", ema, ema >= 0 && ema < 1, "a number in [0, 1)", func(c *config) { c.ema = ema })
}

// WithInverseUpdatePeriod sets T3, at least 1: the inverses are recomputed at the first three steps
// and then at every T3-th step (Martens & Grosse 2015, section 8).
//
// Default: the smallest number from 1 to 20 for which the inverses take at most 1/25 of the
// operations of the user's RunAll. The operations are counted, not timed. The default is 1 where
// layers are small compared with the batch. It is 20, the paper's value, with
// WithBackgroundInverses and with WithPaperRules.
func WithInverseUpdatePeriod(steps int) Option {
	return number("WithInverseUpdatePeriod", float64(steps), steps >= 1, "a number of steps >= 1",
		func(c *config) { c.inversePeriod = steps })
}

// WithBackgroundInverses computes the inverses in goroutines, beside the training steps, after the
// first three steps. The blocks take turns within the period of WithInverseUpdatePeriod. A block
// uses its new inverse lag steps after its turn, even if the inverse is ready earlier. lag is at
// least 1 and at most that period.
//
// All steps then take nearly the same time, and less time where cores are idle. The same run always
// gives the same numbers. Each factor needs memory for one more factor.
//
// A search for gamma needs the inverses of all blocks at once. So the search at step 20 is the last
// one. WithGammaAdaptation and WithPaperRules can't be combined with this option.
//
// Default: off. The steps that need new inverses compute them.
func WithBackgroundInverses(lag int) Option {
	return number("WithBackgroundInverses", float64(lag), lag >= 1, "a number of steps >= 1",
		func(c *config) { c.backgroundLag = lag })
}

// WithStatisticsFraction sets tau1, in (0, 1]: the fraction of the batch that the factors are
// estimated from. Default 1/8 (Martens & Grosse 2015, section 8). WithMinStatisticsCases sets a
// lower bound on the number of cases.
func WithStatisticsFraction(tau float64) Option {
	return number("WithStatisticsFraction", tau, tau > 0 && tau <= 1, "a number in (0, 1]",
		func(c *config) { c.statsFraction = tau })
}

// WithMinStatisticsCases sets the smallest number of cases, at least 1, that the factors are
// estimated from. A batch with no more cases is used whole. Default 128, because small samples make
// the curvature too noisy. The default uses a batch of up to 256 cases whole if the quadratic model
// uses it whole too (see WithMinModelCases). One forward pass then serves both.
func WithMinStatisticsCases(cases int) Option {
	return number("WithMinStatisticsCases", float64(cases), cases >= 1, "a number of cases >= 1",
		func(c *config) { c.minStatsCases = cases })
}

// WithMaxDim sets the largest dimension, at least 1, of a factor A or G that is kept whole. A
// larger factor is reduced to its diagonal. The other factor of the layer is not affected: a layer
// of 10,000 inputs and 100 outputs has a diagonal A and a whole G.
//
// A whole factor of dimension n takes 36 n^2 bytes in float32 and 48 n^2 bytes in float64. The time
// for its inverse is proportional to n^3. Default 4096: 0.6 GB, and on two cores some seconds every
// twenty steps.
//
// The A of an embedding is always diagonal. This is exact, because the inputs are one-hot.
func WithMaxDim(n int) Option {
	return number("WithMaxDim", float64(n), n >= 1, "a dimension >= 1", func(c *config) { c.maxDim = n })
}

// WithFullBlocks sets the size n, at least 1, up to which parameters that act element by element
// get a full block of the Fisher matrix. Examples are a learned temperature, or the scales and the
// shifts of a normalisation, which have one block together. With more elements than n, the scale
// and the shift of a channel have a block of 2 x 2 (Osawa et al. 2019), and other such parameters a
// diagonal. Inverses of more than 32 rows are made as often as those of layers. Default 512. With
// 1, only diagonals are kept.
func WithFullBlocks(n int) Option {
	return number("WithFullBlocks", float64(n), n >= 1, "a size >= 1", func(c *config) { c.fullBlock = n })
}

// WeightSharing says how to approximate a layer that is used at several positions of each case
// (Eschenhagen et al. 2023).
type WeightSharing string

const (
	// Expand treats positions like cases. A is the mean of abar abar^T over cases and positions. G
	// is the mean over cases of the sum of g g^T over positions. It is exact for deep linear
	// networks with a loss that is a sum over positions. For convolutions it is KFC (Grosse &
	// Martens 2016).
	Expand WeightSharing = "expand"
	// Reduce averages abar and sums g over the positions of each case, and then takes the second
	// moments. It is exact for deep linear networks that average or sum the positions before the
	// loss.
	Reduce WeightSharing = "reduce"
	// AutoSharing chooses for each layer. It uses Reduce if the graph sums or averages the layer's
	// positions before the outputs, with only dense layers and elementwise functions in between.
	// Otherwise it uses Expand.
	AutoSharing WeightSharing = "auto"
)

// WithWeightSharing sets the approximation for layers that are used at several positions of each
// case: AutoSharing, Expand or Reduce. Default AutoSharing.
func WithWeightSharing(s WeightSharing) Option {
	return func(c *config) error {
		switch s {
		case AutoSharing, Expand, Reduce:
			c.sharing = s
			return nil
		}
		return &ConfigError{"WithWeightSharing", fmt.Sprintf("%q", s), "AutoSharing, Expand or Reduce"}
	}
}

// TimeCorrelation says how the uses of a recurrent weight at different time steps are taken to
// depend on each other (Martens, Ba & Johnson 2018, section 3.5).
type TimeCorrelation string

const (
	// TimeIndependent: the time steps are independent. F is the sum of the time steps' Kronecker
	// products, as for any other shared weight.
	TimeIndependent TimeCorrelation = "independent"
	// TimeSymmetric: the time steps are a linear Gaussian chain with symmetric cross moments. A
	// step depends on the step before it in the same way as the step before depends on it ("option
	// 1" of the paper).
	TimeSymmetric TimeCorrelation = "symmetric"
	// TimeStationary: the time steps are a linear Gaussian chain without end ("option 2" of the
	// paper). It is meant for long sequences.
	TimeStationary TimeCorrelation = "stationary"
)

// WithTimeCorrelation sets the approximation for recurrent weights: TimeIndependent, TimeSymmetric
// or TimeStationary. A recurrent weight is one that the graph uses in several products with the
// same number of rows in each. Sequences must be unrolled in the order of time. Default
// TimeIndependent.
//
// TimeSymmetric and TimeStationary cost more for each such weight. Each inverse needs an
// eigenproblem of each factor. Each step needs two to four times the products of TimeIndependent.
func WithTimeCorrelation(t TimeCorrelation) Option {
	return func(c *config) error {
		switch t {
		case TimeIndependent, TimeSymmetric, TimeStationary:
			c.timing = t
			return nil
		}
		return &ConfigError{"WithTimeCorrelation", fmt.Sprintf("%q", t),
			"TimeIndependent, TimeSymmetric or TimeStationary"}
	}
}

// FisherEstimate says from which gradients at the model's outputs the factors are estimated. F_R is
// the Fisher matrix of the predictive distribution of a case.
type FisherEstimate string

const (
	// SampledFisher: the gradients are those of targets that are sampled from the model's
	// predictions (Martens & Grosse 2015, section 5). It costs a backward sweep for each sample.
	SampledFisher FisherEstimate = "sampled"
	// EmpiricalFisher: the gradients are those of the data's own targets. This is not the Fisher
	// matrix, and tells nothing of the curvature where the model is far off (Kunstner, Balles &
	// Hennig 2019). It costs one sweep. It needs targets, so that no output may be a [Policy].
	EmpiricalFisher FisherEstimate = "empirical"
	// ExactFisher: the gradients are the columns of a B with B B^T = F_R, one after the other.
	// Where cases do not meet in the model, the factors are exact for the cases that they are
	// computed from. It costs a sweep for each natural parameter of a case: each class, output, or
	// position and class.
	ExactFisher FisherEstimate = "exact"
	// CurvaturePropagation: the gradients are B v for vectors v of random signs (Martens, Sutskever
	// & Swersky 2012). It costs as much as SampledFisher. It is exact for a model with one output.
	CurvaturePropagation FisherEstimate = "curvature propagation"
)

// WithFisherEstimate sets how the factors are estimated: SampledFisher, EmpiricalFisher,
// ExactFisher or CurvaturePropagation. Default SampledFisher. The quadratic model uses the exact
// Fisher matrix with each of them.
//
// Diagonal blocks of parameters outside layers are estimated from what all cases together have
// added to their gradients, so that they are not exact with ExactFisher, but right in expectation.
func WithFisherEstimate(e FisherEstimate) Option {
	return func(c *config) error {
		switch e {
		case SampledFisher, EmpiricalFisher, ExactFisher, CurvaturePropagation:
			c.estimate = e
			return nil
		}
		return &ConfigError{"WithFisherEstimate", fmt.Sprintf("%q", e),
			"SampledFisher, EmpiricalFisher, ExactFisher or CurvaturePropagation"}
	}
}

// WithFisherSamples sets the number, at least 1, of gradients that are drawn for each case by
// SampledFisher or CurvaturePropagation. Each costs a backward sweep and second moments of its
// gradients; those of the inputs are computed once. Default 1. More than 1000 are refused: the
// estimate's error falls with their root, and [ExactFisher] has none.
func WithFisherSamples(n int) Option {
	return number("WithFisherSamples", float64(n), n >= 1 && n <= mostSamples,
		"a number of samples in [1, 1000]; WithFisherEstimate(ExactFisher) is without an error of sampling",
		func(c *config) { c.samples = n })
}

// mostSamples: with as many what sampling adds to the error of the estimate is 3 % of what it is
// with one.
const mostSamples = 1000

// estimates reports an output that the estimate of the Fisher matrix is not for.
func (c *config) estimates(heads []head) error {
	for _, h := range heads {
		if h.policy && c.estimate == EmpiricalFisher {
			return &ConfigError{h.name(), "WithFisherEstimate(EmpiricalFisher)",
				"another estimate: the cost has no targets of this output"}
		}
	}
	return nil
}

// WithSpatiallyUncorrelated takes the activations of convolutions to be uncorrelated from pixel to
// pixel (SUA; Grosse & Martens 2016, section 4.3). For C input channels and kernels of kh x kw, a
// factor of C+1 rows replaces a factor of C kh kw + 1 rows. This loses what neighbouring pixels
// have in common and makes very wide convolutions cheap: a convolution of 512 channels and 3 x 3
// pixels has a factor of 513 rows, not of 4608. WithMaxDim then applies to C+1. Default off.
func WithSpatiallyUncorrelated() Option {
	return func(c *config) error { c.uncorrelated = true; return nil }
}

// WithSeed sets the seed of everything random, such as the choice of cases for the statistics and
// the sampled targets. Any value is valid. Default 1.
func WithSeed(seed uint64) Option {
	return func(c *config) error { c.seed = seed; return nil }
}

// WithoutGradientCheck turns off the gradient check. The check compares gradients with the solver's
// own: at the first two RunAlls, at every power of two and the one after it, at every 101st, and
// where something is odd: no gradient at all, or, at the steps that adapt lambda, another cost than
// the solver's own. It costs a forward and a backward pass each time, some hundredth of the
// training. Where a graph has Dropout or random nodes, gradients are checked if the numbers that
// the VM has drawn can be read from the graph. Default: the check is on.
func WithoutGradientCheck() Option {
	return func(c *config) error { c.gradientCheck = false; return nil }
}

// WithoutLossCheck takes a cost that is not the declared negative log-likelihood, such as one that
// is nobody's. What it gives up: a slip in the cost or in the declaration goes on unseen, and then
// the curvature is that of another function. Where the cost has no factor to the likelihood it is
// taken to be a mean over cases; if it is a sum, steps and damping are in other units than this
// documentation says. The objective limits no step. Where only some outputs are not what the cost
// is made of, declare these by [Policy]. Default: the check is on.
func WithoutLossCheck() Option {
	return func(c *config) error { c.lossCheck = false; return nil }
}

// WithStrict makes it an error if a parameter does not get a Kronecker block: a *ParamError with
// ErrStrict. Default off.
func WithStrict() Option {
	return func(c *config) error { c.strict = true; return nil }
}

// WithoutReachCheck accepts parameters given to Step that the cost does not depend on. They stay
// unchanged. By default such a parameter is an error, because usually a part of the model was not
// connected.
func WithoutReachCheck() Option {
	return func(c *config) error { c.unreached = true; return nil }
}

// WithStats sets a function that is called after each successful step, in the goroutine that called
// Step. It must not be nil. Default: none.
func WithStats(f func(Stats)) Option {
	return func(c *config) error {
		if f == nil {
			return &ConfigError{"WithStats", "nil", "a function"}
		}
		c.onStats = f
		return nil
	}
}

// WithRecorder adds a Recorder, which is told about each successful step, and about each batch
// that WithSkipNotFinite leaves out, in the goroutine that called Step. Several are told in the
// order of the options.
//
// A recorder can't break a step: the weights have been written when it is called, and an error
// that it returns, or its panic, is a [Warning], once for each recorder, and nothing else. Default:
// none.
func WithRecorder(r Recorder) Option {
	return func(c *config) error {
		if r == nil {
			return &ConfigError{"WithRecorder", "nil", "a Recorder"}
		}
		c.recorders = append(c.recorders, r)
		return nil
	}
}

// WithLogger sets where the first error of Step or Accumulate is logged, once for a solver, at
// level Error. So it shows also in a program that drops the errors that Step returns. nil is
// nowhere. Default slog.Default(), as it is at the time.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		c.logger = func() *slog.Logger { return l }
		return nil
	}
}

// WithBlockTridiagonal makes the approximate inverse of the Fisher matrix block-tridiagonal instead
// of block-diagonal, along the chains of layers that feed each other (Martens & Grosse 2015,
// section 4.3). Solver.Plan lists the chains. Inverses cost several times as much, and applying
// them costs twice as much. Each step makes more progress. Default off, as the paper prefers.
func WithBlockTridiagonal() Option {
	return func(c *config) error { c.tridiagonal = true; return nil }
}

// WithEKFAC keeps second moments of the gradient in the eigenbasis of the factors A and G, and
// inverts the curvature that is diagonal there, in place of A (x) G (George et al. 2018). This is
// never further from the Fisher matrix of the layer. The damping is added to the second moments, as
// in WithExactDamping. The basis is computed anew as often as inverses are; the second moments are
// averaged at every step, of each case's gradient over all its positions.
//
// It is for dense layers and convolutions, shared or not. Embeddings, tied weights, and layers of
// WithTimeCorrelation and WithSpatiallyUncorrelated keep their inverses. It can't be combined with
// WithBlockTridiagonal. Default off: see docs/results.md for where it helps.
func WithEKFAC() Option {
	return func(c *config) error { c.ekfac = true; return nil }
}

// WithExactDamping inverts A (x) G + gamma^2 I by the eigenvalues of A and G, in place of damping
// both factors, which adds more than that to the curvature. It is for the same layers as WithEKFAC,
// which includes it, and can't be combined with WithBlockTridiagonal. Default off.
func WithExactDamping() Option {
	return func(c *config) error { c.exactDamping = true; return nil }
}

// eigen reports whether inverses are those of eigenvalues.
func (c *config) eigen() bool { return c.ekfac || c.exactDamping }

// WithIterateAveraging keeps a running average of the weights for Solver.UseAverage: mean = xi mean
// + (1 - xi) theta (Martens & Grosse 2015, section 8). xi is in (0, 1). from, at least 1, is the
// first step that counts. The k-th average uses min(1 - 1/k, xi) in place of xi, so the first
// averages are plain means. Default: no average. The paper uses 0.99 from step 1; its authors' code
// averages from step 200.
func WithIterateAveraging(xi float64, from int) Option {
	return number("WithIterateAveraging", xi, xi > 0 && xi < 1 && from >= 1,
		fmt.Sprintf("a number in (0, 1), and a step >= 1 (not %d)", from),
		func(c *config) { c.averaging, c.averageFrom = xi, from })
}

// WithDampingAdaptation sets how lambda is adapted. interval is T1, at least 1: the number of steps
// from one adaptation to the next. decay, in (0, 1), is per step: lambda is multiplied or divided
// by omega1 = decay^T1. It is valid only with the quadratic model. Default 5 and 19/20 (Martens &
// Grosse 2015, section 6.5).
func WithDampingAdaptation(interval int, decay float64) Option {
	omega := math.Pow(decay, float64(interval))
	inRange := interval >= 1 && decay > 0 && decay < 1 && omega >= 1e-6
	return modelOption("WithDampingAdaptation", number("WithDampingAdaptation", decay, inRange,
		fmt.Sprintf("a decay in (0, 1), and an interval >= 1 (not %d), with decay^interval >= 1e-6", interval),
		func(c *config) { c.lambdaPeriod, c.lambdaDecay = interval, omega }))
}

// WithGammaAdaptation sets how gamma is searched for. interval is T2, at least 1: the number of
// steps from one search to the next. decay, in (0, 1), is per step. The candidates are gamma, gamma
// times omega2 and gamma divided by omega2, with omega2 = sqrt(decay)^T2. Each candidate needs its
// own inverses and its own step. It is valid only with the quadratic model. The paper uses 20 and
// 19/20 (Martens & Grosse 2015, section 6.6).
//
// The first gamma is a guess, so gamma is also searched for at steps T2/4 and T2/2.
//
// Default: the paper's omega2, with searches at steps 5, 10, 20, 40, 80 and so on. This costs less
// than the paper's schedule and trains small batches better.
func WithGammaAdaptation(interval int, decay float64) Option {
	omega := math.Pow(decay, float64(interval)/2)
	inRange := interval >= 1 && decay > 0 && decay < 1 && omega >= 1e-12
	return modelOption("WithGammaAdaptation", number("WithGammaAdaptation", decay, inRange,
		fmt.Sprintf("a decay in (0, 1), and an interval >= 1 (not %d), with sqrt(decay)^interval >= 1e-12", interval),
		func(c *config) { c.gammaPeriod, c.gammaDecay, c.gammaAgain = interval, omega, true }))
}

// WithoutMomentum leaves the previous update out of the quadratic model. The update is then alpha
// Delta alone (Martens & Grosse 2015, section 6.4). It is valid only with the quadratic model.
// Default off.
func WithoutMomentum() Option {
	return modelOption("WithoutMomentum", func(c *config) error { c.noMomentum = true; return nil })
}

// WithModelFraction sets tau2, in (0, 1]: the fraction of the batch that the exact Fisher products
// are estimated from. It is valid only with the quadratic model. Default 1/4 (Martens & Grosse
// 2015, section 8). WithMinModelCases sets a lower bound on the number of cases.
func WithModelFraction(tau float64) Option {
	return modelOption("WithModelFraction", number("WithModelFraction", tau, tau > 0 && tau <= 1, "a number in (0, 1]",
		func(c *config) { c.modelFraction = tau }))
}

// WithMinModelCases sets the smallest number of cases, at least 1, that the exact Fisher products
// are estimated from. A batch with no more cases is used whole. It is valid only with the quadratic
// model. Default 256.
func WithMinModelCases(cases int) Option {
	return modelOption("WithMinModelCases", number("WithMinModelCases", float64(cases), cases >= 1,
		"a number of cases >= 1",
		func(c *config) { c.minModelCases = cases }))
}

// WithMaxGamma sets the upper limit of gamma, greater than 0. The upper candidate of a search is
// min(gamma/omega2, highest), even if that is below gamma. It is valid only with the quadratic
// model. Default +Inf, as in the paper. The authors' code uses 1.
func WithMaxGamma(highest float64) Option {
	return modelOption("WithMaxGamma", number("WithMaxGamma", highest, highest > 0, "a number > 0",
		func(c *config) { c.maxGamma = highest }))
}

// WithStepRejection evaluates the objective on the step's own batch before and after every step,
// and rejects a step that raises it. The weights then stay unchanged, lambda rises, and
// Stats.Rejected is true. It costs two more forward passes per step. It is valid only with the
// quadratic model. Default off, as in the paper.
func WithStepRejection() Option {
	return modelOption("WithStepRejection", func(c *config) error { c.reject = true; return nil })
}

// WithPaperRules uses exactly the rules of Martens & Grosse (2015). They judge a step by its own
// batch only. They suit large batches. With small batches lambda vanishes, and training gets worse
// again or diverges. It is valid only with the quadratic model.
//
// Default off. Additional rules then guard against the noise of small batches. They shorten steps
// that other batches do not confirm, raise lambda where the objective no longer falls, and bound
// lambda, gamma and the change of the predictions.
func WithPaperRules() Option {
	return modelOption("WithPaperRules", func(c *config) error { c.paperRules = true; return nil })
}

// WithUndampedRho leaves the damping term lambda/2 |delta|^2 out of the predicted change, the
// denominator of the reduction ratio. It is valid only with the quadratic model. Default: the term
// is included, as in the paper (Martens & Grosse 2015, section 6.5). The authors' later
// implementations leave it out.
func WithUndampedRho() Option {
	return modelOption("WithUndampedRho", func(c *config) error { c.undampedRho = true; return nil })
}

// A StateOption says what of a state Save writes or Load reads. The default is everything.
type StateOption func(*stateOptions)

type stateOptions struct{ noWeights, noFactors, noInner, otherSettings bool }

func stateOptionsOf(opts []StateOption) (o stateOptions) {
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	return o
}

// WithoutWeights leaves the weights out of a file, or those of the graph as they are. They are then
// for the program to save. A file without them can only be loaded by this option.
func WithoutWeights() StateOption { return func(o *stateOptions) { o.noWeights = true } }

// WithoutFactors leaves the curvature's averages and inverses out: most of a file. They begin anew
// with the next step, from its batch alone, and the training is another than it would have been.
// The loss after the next dozen of updates is between 21 % lower and 4 % higher than with the
// factors (a small net with one batch that repeats, saved after 5, 20 and 40 updates).
func WithoutFactors() StateOption { return func(o *stateOptions) { o.noFactors = true } }

// WithoutInner has Save leave out the state of the solvers of WithInner and GroupSolver, say the
// means of Adam. That state is not to be had from outside, so that without this option Save returns
// ErrInner. A program that loads the file goes on with whatever state its own such solver has. A
// gorgonia.VanillaSolver has no state, and needs no option.
func WithoutInner() StateOption { return func(o *stateOptions) { o.noInner = true } }

// WithOtherSettings has Load accept a state of a solver with other options, and go on with those of
// this solver, say with another learning rate. Options that the form of the factors depends on,
// such as WithMaxDim, can only be others if the factors are left out; see WithoutFactors.
func WithOtherSettings() StateOption { return func(o *stateOptions) { o.otherSettings = true } }

// WithSchedule has a knob follow a schedule: at step k it is s(k), in place of what its own option
// says. Values are those that this option takes; another one is a *ConfigError of the Step that it
// is for, which changes nothing. Of LearningRate it takes the place of WithLearningRate. With
// Precondition and WithInner, the schedule of the other solver is the caller's matter. The default
// is no schedule.
//
// A training that is loaded goes on at its step, by the schedules of the solver that it is loaded
// into. Save writes only which knobs have one.
func WithSchedule(k Knob, s Schedule) Option {
	return func(c *config) error {
		i := dialOf(k)
		if i < 0 || s == nil {
			got := fmt.Sprintf("the knob %q", k)
			if i >= 0 {
				got = fmt.Sprintf("no schedule of the %s", k)
			}
			return &ConfigError{"WithSchedule", got,
				"LearningRate, Momentum, Damping, NormConstraint, L2Reg or WeightDecay, and a schedule"}
		}
		d := &dials[i]
		v := s(1)
		if err := d.valid(fmt.Sprintf("WithSchedule of %s at step 1", k), v); err != nil {
			return err
		}
		c.schedules[i] = s
		if k == Momentum || k == Damping {
			c.rateOptions = append(c.rateOptions, d.option)
		}
		*d.of(c) = v
		return nil
	}
}

// A dial is what there is to know of a knob.
type dial struct {
	Knob
	option string
	byRate bool                                // it needs a learning rate
	of     func(c *config) *float64            // where it is
	check  func(v float64) func(*config) error // its option
}

func optionOf(option func(float64) Option) func(float64) func(*config) error {
	return func(v float64) func(*config) error { return option(v) }
}

// dialOf is where a knob is in dials, or -1.
func dialOf(k Knob) int {
	for i := range dials {
		if dials[i].Knob == k {
			return i
		}
	}
	return -1
}

// valid reports a value that the knob's option would refuse.
func (d *dial) valid(call string, v float64) error {
	var scratch config
	if err := d.check(v)(&scratch); err != nil {
		refused := err.(*ConfigError)
		return &ConfigError{call, refused.Got, refused.Want}
	}
	return nil
}

var dials = []dial{
	{LearningRate, "WithLearningRate", true, func(c *config) *float64 { return &c.learningRate },
		optionOf(WithLearningRate)},
	{Momentum, "WithMomentum", true, func(c *config) *float64 { return &c.momentum }, optionOf(WithMomentum)},
	{Damping, "WithDamping", true, func(c *config) *float64 { return &c.damping }, optionOf(WithDamping)},
	{NormConstraint, "WithNormConstraint", false, func(c *config) *float64 { return &c.normLimit },
		optionOf(WithNormConstraint)},
	{L2Reg, "WithL2Reg", false, func(c *config) *float64 { return &c.l2 }, optionOf(WithL2Reg)},
	{WeightDecay, "WithWeightDecay", false, func(c *config) *float64 { return &c.decay }, optionOf(WithWeightDecay)},
}

// WithGroup gives the parameters whose names match a pattern settings of their own. The pattern is
// one of path.Match: * stands for any characters but a slash.
//
//	kfac.New(
//		kfac.WithL2Reg(1e-4),
//		kfac.WithGroup("b*", kfac.GroupL2(0)),
//		kfac.WithGroup("body/*", kfac.GroupFrozen()))
//
// The settings of all parameters hold for the group too, but for those that are the group's own.
// Factors multiply what schedules and [Solver.Set] give.
//
// The first Step or Accumulate looks for the parameters. A pattern that none of them matches, and
// parameters in two groups, are a *ConfigError that lists names. A bad pattern is one of New and
// NewSolver. The default is no group.
func WithGroup(pattern string, settings ...GroupOption) Option {
	return func(c *config) error {
		g := paramGroup{option: fmt.Sprintf("WithGroup(%q)", pattern), pattern: pattern}
		if _, err := path.Match(pattern, ""); err != nil {
			return &ConfigError{g.option, err.Error(), "a pattern of path.Match"}
		}
		return c.add(g, settings)
	}
}

// WithGroupOf is WithGroup for parameters that are given by their nodes. In other graphs they are
// those of the same name and shape.
func WithGroupOf(params gorgonia.Nodes, settings ...GroupOption) Option {
	return func(c *config) error {
		g := paramGroup{nodes: slices.Clone(params)}
		var names []string
		for _, n := range params {
			if n == nil {
				return &ConfigError{"WithGroupOf", "a nil node", "parameters"}
			}
			names = append(names, program.NameOf(n))
		}
		if len(params) == 0 {
			return &ConfigError{"WithGroupOf", "no nodes", "parameters"}
		}
		g.option = fmt.Sprintf("WithGroupOf(%s)", strings.Join(names, ", "))
		return c.add(g, settings)
	}
}

// add adds a group to the settings.
func (c *config) add(g paramGroup, settings []GroupOption) (err error) {
	if g, err = g.with(settings); err == nil {
		c.groups = append(c.groups, g)
	}
	return err
}

// hasL2 reports whether a parameter may have an eta.
func (c *config) hasL2() bool { return c.l2 > 0 || c.groups.hasL2() }

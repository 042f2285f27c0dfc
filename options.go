package kfac

import (
	"fmt"
	"math"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// An Option changes one setting of a solver. NewSolver checks the values and returns a *ConfigError
// for one out of range. gorgonia.SolverOpt values are not options of this solver, so the compiler
// refuses what would otherwise silently do nothing.
type Option func(*config) error

// config holds every setting; the options below say what each means.
type config struct {
	// Which way.
	ema           float64
	inversePeriod int     // T3; 0: see inversePeriod
	backgroundLag int     // steps until an inverse from the background is taken up; 0: none are
	statsFraction float64 // tau1
	minStatsCases int     // 0: see leastStatistics
	tridiagonal   bool
	maxDim        int
	fullBlock     int
	sharing       WeightSharing
	timing        TimeCorrelation
	uncorrelated  bool

	// How far.
	l2        float64
	damping   float64 // lambda; 0: to be found
	normLimit float64 // 0: the default, which depends on the outputs

	// By a learning rate.
	learningRate float64 // 0: by the quadratic model
	momentum     float64

	// By the quadratic model.
	noMomentum    bool
	modelFraction float64 // tau2
	minModelCases int
	reject        bool
	paperRules    bool
	undampedRho   bool
	lambdaPeriod  int     // T1
	lambdaDecay   float64 // omega1
	gammaPeriod   int     // T2
	gammaAgain    bool    // searched for at every T2-th step, whatever the default is
	gammaDecay    float64 // omega2
	maxGamma      float64

	rateOptions  []string // given options that only a learning rate has use for
	modelOptions []string // given options that only the quadratic model has use for

	averaging   float64 // xi; 0: no average
	averageFrom int

	seed          uint64
	gradientCheck bool
	strict        bool
	unreached     bool
	onStats       func(Stats)
}

func defaults() config {
	return config{
		ema:           0.95,
		statsFraction: 1.0 / 8,
		maxDim:        4096,
		fullBlock:     32,
		sharing:       AutoSharing,
		timing:        TimeIndependent,
		momentum:      0.9,
		modelFraction: 1.0 / 4,
		minModelCases: 256,
		lambdaPeriod:  5,
		lambdaDecay:   math.Pow(19.0/20, 5),
		gammaPeriod:   20,
		gammaDecay:    math.Pow(19.0/20, 10),
		maxGamma:      math.Inf(1),
		seed:          1,
		gradientCheck: true,
	}
}

// approximation is the wanted form of the factors.
func (c *config) approximation() layers.Approximation {
	sharing := map[WeightSharing]layers.Sharing{AutoSharing: layers.Auto, Expand: layers.Expand, Reduce: layers.Reduce}
	return layers.Approximation{MaxDim: c.maxDim, Sharing: sharing[c.sharing], Uncorrelated: c.uncorrelated}
}

// longestPeriod is the paper's T3 (Martens & Grosse 2015, section 8).
const longestPeriod = 20

// validate checks what options mean together.
func (c *config) validate() error {
	byRate := c.learningRate > 0
	switch {
	case !byRate && len(c.rateOptions) > 0:
		return &ConfigError{c.rateOptions[0], "no WithLearningRate",
			"it too, since without a learning rate the quadratic model finds step length and momentum by itself"}
	case byRate && len(c.modelOptions) > 0:
		return &ConfigError{c.modelOptions[0], "WithLearningRate too",
			"one of them: with a learning rate there is no quadratic model"}
	case byRate && c.damping == 0:
		c.damping = 0.03
	}
	if c.backgroundLag > 0 && (c.gammaAgain || c.paperRules) {
		return &ConfigError{"WithBackgroundInverses", "WithGammaAdaptation or WithPaperRules too",
			"one of them: a search for gamma needs inverses of all blocks at once"}
	}
	if c.inversePeriod == 0 && (c.backgroundLag > 0 || c.paperRules) {
		c.inversePeriod = longestPeriod
	}
	if c.backgroundLag > c.inversePeriod {
		return &ConfigError{"WithBackgroundInverses", fmt.Sprint(c.backgroundLag),
			fmt.Sprintf("no more than WithInverseUpdatePeriod, %d steps", c.inversePeriod)}
	}
	return nil
}

// largest is the largest setting that has a unit. In float32 its products with numbers near 1 are
// finite.
const largest = 1e30

// rateOption and modelOption mark an option that makes sense only without, or only with, the
// quadratic model.
func rateOption(name string, o Option) Option {
	return func(c *config) error { c.rateOptions = append(c.rateOptions, name); return o(c) }
}

func modelOption(name string, o Option) Option {
	return func(c *config) error { c.modelOptions = append(c.modelOptions, name); return o(c) }
}

// number is an option that takes a number in a range.
func number(name string, v float64, inRange bool, want string, set func(*config)) Option {
	return func(c *config) error {
		if !inRange || math.IsNaN(v) {
			return &ConfigError{name, fmt.Sprint(v), want}
		}
		set(c)
		return nil
	}
}

// WithLearningRate makes every step alpha = rate, greater than 0, times the preconditioned
// gradient, with WithMomentum, in place of the step length and momentum that the quadratic model
// finds. lambda is fixed then. A step costs about half as much, does not go as far, and needs
// tuning; 0.1 has served the examples. The norm constraint makes the rate smaller where a step
// would change the predictions too much.
func WithLearningRate(rate float64) Option {
	return number("WithLearningRate", rate, rate > 0 && !math.IsInf(rate, 1), "a finite number > 0",
		func(c *config) { c.learningRate = rate })
}

// WithMomentum sets the fraction, in [0, 1), of the previous update that is added to each update
// with WithLearningRate. Default 0.9.
func WithMomentum(mu float64) Option {
	return rateOption("WithMomentum", number("WithMomentum", mu, mu >= 0 && mu < 1, "a number in [0, 1)",
		func(c *config) { c.momentum = mu }))
}

// WithDamping sets the first lambda, in (0, 1e30]: the Tikhonov damping of the curvature, in nats
// per squared unit of a parameter, whatever the scale of the cost. Larger is more careful. Default:
// found by trial steps on the first batch (the paper sets 150 for its autoencoders and leaves the
// rest to the user). With WithLearningRate it stays as it is, and its default is 0.03: between what
// suited the MNIST autoencoder (0.003 to 0.03) and the MNIST classifier (0.03 to 0.1) of
// graph_examples best.
func WithDamping(lambda float64) Option {
	return number("WithDamping", lambda, lambda > 0 && lambda <= largest, "a number in (0, 1e30]",
		func(c *config) { c.damping = lambda })
}

// WithNormConstraint sets kappa, greater than 0, in nats: the learning rate lr is multiplied by
// min(1, sqrt(kappa/(lr^2 V.U))), where V is the gradient, U the preconditioned gradient and V.U =
// U^T F U (Ba, Grosse & Martens 2017, section 5). +Inf turns it off. Default with WithLearningRate
// 0.001 sqrt(d), where d is the number of target variables of a case: 1 for Categorical, the number
// of outputs for Bernoulli and Gaussian. On MNIST that is about the best of a grid for both the
// autoencoder (d = 784) and the classifier (d = 1). With the quadratic model it limits delta^T F
// delta, and the default is 2 d B/(B+16) for B cases: a step from a large batch may change the
// predictive distribution by one nat per variable.
func WithNormConstraint(kappa float64) Option {
	return number("WithNormConstraint", kappa, kappa > 0, "a number > 0 (nats)",
		func(c *config) { c.normLimit = kappa })
}

// WithL2Reg adds (eta/2) |theta|^2 over all parameters, biases included, to the cost in the
// solver's units (mean negative log-likelihood per case): eta theta enters the gradient and eta the
// curvature (Martens & Grosse 2015, section 6.1). The user's cost must not contain that term too.
// Default 0 (the paper's experiments have 1e-5).
func WithL2Reg(eta float64) Option {
	return number("WithL2Reg", eta, eta >= 0 && eta <= largest, "a number in [0, 1e30]",
		func(c *config) { c.l2 = eta })
}

// WithCurvatureEMA sets the largest weight, in [0, 1), that the running average of the factors
// keeps from step to step; at step k it keeps min(1 - 1/k, ema). Default 0.95 (Martens & Grosse
// 2015, section 5).
func WithCurvatureEMA(ema float64) Option {
	return number("WithCurvatureEMA", ema, ema >= 0 && ema < 1, "a number in [0, 1)", func(c *config) { c.ema = ema })
}

// WithInverseUpdatePeriod sets T3 >= 1: the inverses are recomputed at the first three steps and at
// every T3-th. The default is the least number from 1 to the paper's 20 (Martens & Grosse 2015,
// section 8) for which inverses take at most 1/25 of the operations of the user's RunAll, by
// counting: 1 where layers are small beside the batch. It is 20 with WithBackgroundInverses and
// WithPaperRules.
func WithInverseUpdatePeriod(steps int) Option {
	return number("WithInverseUpdatePeriod", float64(steps), steps >= 1, "a number of steps >= 1",
		func(c *config) { c.inversePeriod = steps })
}

// WithBackgroundInverses has the inverses computed beside the training steps, by goroutines of
// their own, after the first three steps: the blocks have their turns one after the other within
// the period of WithInverseUpdatePeriod, and each takes up its new inverse lag steps later, from 1
// to that period, however early it is ready. Steps then take nearly equal time, less where cores
// are idle, and the same run gives the same numbers. A search for gamma needs inverses of all
// blocks at once, so that the one at step 20 is the last, and WithGammaAdaptation and
// WithPaperRules do not go with it. Each factor takes the memory of one more. By default the steps
// that need new inverses compute them.
func WithBackgroundInverses(lag int) Option {
	return number("WithBackgroundInverses", float64(lag), lag >= 1, "a number of steps >= 1",
		func(c *config) { c.backgroundLag = lag })
}

// WithStatisticsFraction sets tau1 in (0, 1]: the part of the batch that the factors are estimated
// from. Default 1/8 (Martens & Grosse 2015, section 8), but see WithMinStatisticsCases.
func WithStatisticsFraction(tau float64) Option {
	return number("WithStatisticsFraction", tau, tau > 0 && tau <= 1, "a number in (0, 1]",
		func(c *config) { c.statsFraction = tau })
}

// WithMinStatisticsCases sets the number of cases, at least 1, below which WithStatisticsFraction
// does not go; a batch that has no more is used whole. Default 128: small samples make the
// curvature too noisy to trust. By default a batch of up to 256 that the quadratic model is
// computed from whole (WithMinModelCases) is used whole here too, as one forward pass serves both
// then.
func WithMinStatisticsCases(cases int) Option {
	return number("WithMinStatisticsCases", float64(cases), cases >= 1, "a number of cases >= 1",
		func(c *config) { c.minStatsCases = cases })
}

// WithMaxDim sets the largest dimension, at least 1, of a factor A or G that is kept whole. Of a
// larger one only the diagonal is kept, while the other side of the layer stays as it is: a layer
// of 10,000 inputs and 100 outputs has a diagonal A and a whole G. A whole factor of dimension n
// takes 36 n^2 bytes in float32 and 48 n^2 in float64, and its inverse takes time in proportion to
// n^3. Default 4096: 0.6 GB, and on two cores some seconds every twenty steps.
//
// The A of an embedding is diagonal in any case, and loses nothing by it: its inputs are one-hot.
func WithMaxDim(n int) Option {
	return number("WithMaxDim", float64(n), n >= 1, "a dimension >= 1", func(c *config) { c.maxDim = n })
}

// WithFullBlocks sets the size, at least 1, up to which parameters that act element by element (a
// learned temperature, a scale and a shift) get a full block of the Fisher matrix. The scale and
// the shift of a normalisation have a block of 2 x 2 for each channel, as in Osawa et al. 2019;
// another such parameter has one for all its elements together, if there are no more than n.
// Default 32. 1 means that only diagonals are kept.
func WithFullBlocks(n int) Option {
	return number("WithFullBlocks", float64(n), n >= 1, "a size >= 1", func(c *config) { c.fullBlock = n })
}

// WeightSharing is how a layer that is used at several positions of each case is approximated
// (Eschenhagen et al. 2023).
type WeightSharing string

const (
	// Expand treats positions as if they were cases: A is the mean over cases and positions of abar
	// abar^T, and G the mean over cases of the sum over positions of g g^T. Exact for deep linear
	// networks whose loss is a sum over positions; for convolutions this is KFC (Grosse & Martens
	// 2016).
	Expand WeightSharing = "expand"
	// Reduce averages abar and sums g over the positions of each case before the second moments are
	// taken. Exact for deep linear networks whose positions are averaged or summed before the loss.
	Reduce WeightSharing = "reduce"
	// AutoSharing is Reduce for the layers whose positions the graph sums or averages before the
	// outputs, with nothing but dense layers and elementwise functions in between, and Expand for
	// the others.
	AutoSharing WeightSharing = "auto"
)

// WithWeightSharing sets the approximation for layers that are used at several positions of each
// case: AutoSharing (the default), Expand or Reduce.
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

// TimeCorrelation is how the uses of a recurrent weight at different time steps are taken to depend
// on each other (Martens, Ba & Johnson 2018).
type TimeCorrelation string

const (
	// TimeIndependent: not at all. F is the sum of the time steps' own Kronecker products, as for
	// any other shared weight.
	TimeIndependent TimeCorrelation = "independent"
	// TimeSymmetric: as a linear Gaussian chain in which a step depends on the one before as that
	// on it ("option 1" of the paper).
	TimeSymmetric TimeCorrelation = "symmetric"
	// TimeStationary: as a linear Gaussian chain without end ("option 2" of the paper); for long
	// sequences.
	TimeStationary TimeCorrelation = "stationary"
)

// WithTimeCorrelation sets what is made of recurrent weights, those that the graph uses in several
// products with as many rows in each: TimeIndependent (the default), TimeSymmetric or
// TimeStationary. The last two cost, for each such weight, an eigenproblem of each factor with the
// inverse, and two to four times the products of the independent approximation in each step.
// Sequences have to be unrolled in the order of time.
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

// WithSpatiallyUncorrelated takes the activations of convolutions to be uncorrelated from pixel to
// pixel (SUA; Grosse & Martens 2016, section 4.3), so that a factor of C+1 rows takes the place of
// one of C kh kw + 1, for C input channels and kernels of kh x kw. It loses what neighbouring
// pixels have in common, and makes very wide convolutions cheap: one of 512 channels and 3 x 3
// pixels has a factor of 513 rows, not of 4608. Default off. WithMaxDim counts C+1 rows then.
func WithSpatiallyUncorrelated() Option {
	return func(c *config) error { c.uncorrelated = true; return nil }
}

// WithSeed seeds everything random: which cases the statistics use, and the sampled targets.
// Default 1.
func WithSeed(seed uint64) Option {
	return func(c *config) error { c.seed = seed; return nil }
}

// WithoutGradientCheck leaves out the comparison of the first two steps' gradients with the
// solver's own, which costs one more forward and two backward passes at each of them. Where other
// graphs are attached, it is made again at some of them (see Solver.Attach). Graphs with Dropout or
// random nodes are not compared in any case, since their masks are drawn anew.
func WithoutGradientCheck() Option {
	return func(c *config) error { c.gradientCheck = false; return nil }
}

// WithStrict makes it an error that a parameter gets no Kronecker block.
func WithStrict() Option {
	return func(c *config) error { c.strict = true; return nil }
}

// WithoutReachCheck accepts parameters in the list given to Step that the cost does not depend on,
// and leaves them as they are. By default they are an error, since more often than not a part of
// the model was not connected.
func WithoutReachCheck() Option {
	return func(c *config) error { c.unreached = true; return nil }
}

// WithStats calls f after each successful step, from the goroutine that called Step.
func WithStats(f func(Stats)) Option {
	return func(c *config) error {
		if f == nil {
			return &ConfigError{"WithStats", "nil", "a function"}
		}
		c.onStats = f
		return nil
	}
}

// WithBlockTridiagonal approximates the inverse of the Fisher matrix by a block-tridiagonal one in
// place of a block-diagonal one, along the chains of layers that feed each other (Martens & Grosse
// 2015, section 4.3). The plan says which these are. Inverses cost several times as much and
// applying them twice; a step goes further. Default off, as the paper prefers.
func WithBlockTridiagonal() Option {
	return func(c *config) error { c.tridiagonal = true; return nil }
}

// WithIterateAveraging keeps an average of the weights, mean = xi mean + (1 - xi) theta, from step
// from on, for Solver.UseAverage. xi is in (0, 1); the paper has 0.99 and averages from step 1, its
// authors' code from step 200 (Martens & Grosse 2015, section 8). Until xi is reached it is the
// plain mean of the iterates. Default: none.
func WithIterateAveraging(xi float64, from int) Option {
	return number("WithIterateAveraging", xi, xi > 0 && xi < 1 && from >= 1,
		fmt.Sprintf("a number in (0, 1), and a step >= 1 (not %d)", from),
		func(c *config) { c.averaging, c.averageFrom = xi, from })
}

// WithDampingAdaptation sets T1 >= 1, the number of steps from one adaptation of lambda to the
// next, and the decay in (0, 1) per step: lambda is multiplied or divided by omega1 = decay^T1.
// Default 5 and 19/20 (Martens & Grosse 2015, section 6.5).
func WithDampingAdaptation(interval int, decay float64) Option {
	omega := math.Pow(decay, float64(interval))
	inRange := interval >= 1 && decay > 0 && decay < 1 && omega >= 1e-6
	return modelOption("WithDampingAdaptation", number("WithDampingAdaptation", decay, inRange,
		fmt.Sprintf("a decay in (0, 1), and an interval >= 1 (not %d), with decay^interval >= 1e-6", interval),
		func(c *config) { c.lambdaPeriod, c.lambdaDecay = interval, omega }))
}

// WithGammaAdaptation sets T2 >= 1, the number of steps from one search for gamma to the next, and
// the decay in (0, 1) per step: the candidates are gamma and gamma times and over omega2 =
// sqrt(decay)^T2, each with inverses and a step of its own. The paper has 20 and 19/20 (Martens &
// Grosse 2015, section 6.6). As its start is a guess, gamma is also searched for at steps T2/4 and
// T2/2. By default it is searched for at steps 5, 10, 20, 40, 80 and so on, with the same omega2 as
// in the paper, which costs less and trains small batches better.
func WithGammaAdaptation(interval int, decay float64) Option {
	omega := math.Pow(decay, float64(interval)/2)
	inRange := interval >= 1 && decay > 0 && decay < 1 && omega >= 1e-12
	return modelOption("WithGammaAdaptation", number("WithGammaAdaptation", decay, inRange,
		fmt.Sprintf("a decay in (0, 1), and an interval >= 1 (not %d), with sqrt(decay)^interval >= 1e-12", interval),
		func(c *config) { c.gammaPeriod, c.gammaDecay, c.gammaAgain = interval, omega, true }))
}

// WithoutMomentum leaves the previous update out of the quadratic model: a step is alpha Delta
// alone (Martens & Grosse 2015, section 6.4).
func WithoutMomentum() Option {
	return modelOption("WithoutMomentum", func(c *config) error { c.noMomentum = true; return nil })
}

// WithModelFraction sets tau2 in (0, 1]: the part of the batch that the products with the exact
// Fisher matrix are estimated from. Default 1/4 (Martens & Grosse 2015, section 8), but see
// WithMinModelCases.
func WithModelFraction(tau float64) Option {
	return modelOption("WithModelFraction", number("WithModelFraction", tau, tau > 0 && tau <= 1, "a number in (0, 1]",
		func(c *config) { c.modelFraction = tau }))
}

// WithMinModelCases sets the number of cases, at least 1, below which WithModelFraction does not
// go; a batch that has no more is used whole. Default 256.
func WithMinModelCases(cases int) Option {
	return modelOption("WithMinModelCases", number("WithMinModelCases", float64(cases), cases >= 1,
		"a number of cases >= 1",
		func(c *config) { c.minModelCases = cases }))
}

// WithMaxGamma caps gamma, greater than 0: the upper candidate of its search is min(gamma/omega2,
// highest), even where that is below gamma, as in the authors' code, which has 1. Default +Inf, as
// in the paper.
func WithMaxGamma(highest float64) Option {
	return modelOption("WithMaxGamma", number("WithMaxGamma", highest, highest > 0, "a number > 0",
		func(c *config) { c.maxGamma = highest }))
}

// WithStepRejection evaluates every step on its own batch and does not take one that raises the
// objective: the weights stay, lambda goes up, and Stats.Rejected says so. It costs two more
// forward passes per step. Default off, as in the paper.
func WithStepRejection() Option {
	return modelOption("WithStepRejection", func(c *config) error { c.reject = true; return nil })
}

// WithPaperRules judges steps by their own batch only, by the rules of Martens & Grosse (2015) and
// no others. It suits large batches: on small ones lambda vanishes, and training gets worse again
// or blows up. Default off: provisions against the noise of small batches are at work, which
// shorten steps that other batches do not confirm, raise lambda where the objective no longer
// falls, and bound lambda, gamma and the change of the predictions.
func WithPaperRules() Option {
	return modelOption("WithPaperRules", func(c *config) error { c.paperRules = true; return nil })
}

// WithUndampedRho leaves the damping term out of the predicted change that the reduction ratio
// divides by. Default: it is in, as in the paper (section 6.5); the authors' later implementations
// leave it out.
func WithUndampedRho() Option {
	return modelOption("WithUndampedRho", func(c *config) error { c.undampedRho = true; return nil })
}

package kfac

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Distribution declares R(y|z): the distribution that the model's output z predicts for the targets
// y. The cost must be a multiple of the negative log-likelihood -log r(y|z) (Martens & Grosse 2015,
// section 2). K-FAC needs the distribution because the Fisher matrix is an expectation over targets
// drawn from the model, not over the targets of the data.
//
// Make one with [Categorical], [Bernoulli], [Poisson], [NegativeBinomial], [SquaredError],
// [Gaussian], [Heteroscedastic], [AbsoluteError], [Laplace] or [StudentT], with [Custom] for one
// that this package does not have, or with [Joint] for a model with several outputs. [GaussNewton]
// is for costs that are nobody's negative log-likelihood, and [Policy] for those that are not that
// of what the model predicts. These functions accept any arguments. [NewSolver] reports invalid
// ones as a *ConfigError.
type Distribution interface {
	heads() []head
}

// head is one output of the model with its predictive distribution. z are the natural parameters of
// the distribution. A head is a Distribution with one output.
type head struct {
	kind    string
	node    *gorgonia.Node // the node of z; may be nil only if problem is set
	beside  *gorgonia.Node // of further columns of z, or nil
	last    int            // the axis of the node that is the last of z; 0: as it is
	problem error          // what is wrong with the arguments, without the head's name

	likelihood.Likelihood // may be nil only if problem is set

	weight *gorgonia.Node // its weights, if they were declared
	policy bool           // the cost is not its negative log-likelihood
	byCost bool           // its curvature is that of the cost; it has no likelihood

	// The variance of the targets is unknown. The likelihood is that of variance 1, and what counts
	// in standard deviations counts in those of the residuals.
	ownUnit bool

	found string // how it was found, where it was not declared but inferred from the cost
}

// bounded reports whether the negative log-likelihood, without its normalising constant, can't fall
// below zero.
func (h head) bounded() bool { return !h.policy && !h.byCost && (h.ownUnit || h.Discrete()) }

// together returns the number of natural parameters along the last axis where these have fewer
// target variables, as the classes of a Categorical have; else 0.
func (h head) together() int {
	shape := h.as().Shape()
	if len(shape) == 0 {
		return 0
	}
	if n := shape[len(shape)-1]; n > 1 && h.Variables(n) < n {
		return n
	}
	return 0
}

// name returns the kind and the name of the output, for messages and for the plan:
// "Categorical(logits)".
func (h head) name() string {
	if h.node == nil {
		return h.kind + "(nil)"
	}
	names := program.NameOf(h.node)
	if h.beside != nil {
		names += ", " + program.NameOf(h.beside)
	}
	return fmt.Sprintf("%s(%s)", h.kind, names)
}

// plan returns what the plan says of the output.
func (h head) plan() string {
	if h.found == "" {
		return h.name()
	}
	return fmt.Sprintf("%s, inferred from the cost: %s", h.name(), h.found)
}

func (h head) output() *gorgonia.Node { return h.node }

// as is the output as the likelihood has it.
func (h head) as() program.Output {
	nodes := []*gorgonia.Node{h.node}
	if h.beside != nil {
		nodes = append(nodes, h.beside)
	}
	return program.Output{Nodes: nodes, Last: h.last}
}

// outputsOf are the outputs of heads.
func outputsOf(heads []head) []program.Output {
	outputs := make([]program.Output, len(heads))
	for i, h := range heads {
		outputs[i] = h.as()
	}
	return outputs
}

func (h head) err() error { return h.problem }

func (h head) heads() []head { return []head{h} }

// Joint declares a model with several outputs, each with its own distribution. Given the input, the
// outputs are independent, so the negative log-likelihood is the sum over the parts. A Joint inside
// a Joint is replaced by its parts. [NewSolver] refuses a nil part and a Joint without parts, with
// a *ConfigError.
func Joint(parts ...Distribution) Distribution {
	var all joint
	for i, part := range parts {
		if part == nil {
			part = head{
				kind:    "Joint",
				problem: fmt.Errorf("part %d is a nil Distribution; declare one for each output of the model", i),
			}
		}
		all = append(all, partsOf(part)...)
	}
	return all
}

// Policy declares what the model predicts where the cost is not its negative log-likelihood:
// policy gradients (REINFORCE, PPO, the actor of an actor-critic), whose terms have advantages of
// either sign, or distillation by other terms. The curvature is the Fisher matrix of dist, while
// gradient and objective are those of the cost. There is no loss check for these outputs.
//
// Each step changes the predictions by a divergence of 0.01 nats per case (Schulman et al. 2015),
// which [WithNormConstraint] changes; not by less, as the unit of such a cost means nothing:
// rewards may be in any. With other outputs beside these, such as a critic's, and with
// [WithLearningRate], as in ACKTR (Wu et al. 2017), that is the largest divergence, and the cost is
// taken to be a mean over cases (and over positions, for a [Categorical] at several).
//
// A critic beside it is declared as it is:
//
//	kfac.Joint(kfac.Policy(kfac.Categorical(logits)), kfac.SquaredError(value))
func Policy(dist Distribution) Distribution {
	if dist == nil {
		return Joint(nil)
	}
	var all joint
	for _, h := range partsOf(dist) {
		if h.byCost && h.problem == nil {
			h.problem = errors.New("GaussNewton says nothing of what is predicted, so there is no policy of it")
		}
		h.kind, h.policy = "Policy "+h.kind, true
		all = append(all, h)
	}
	return all
}

// partsOf are the heads of a distribution, which may be a type of the user's that embeds none.
func partsOf(d Distribution) (heads []head) {
	defer func() {
		if recover() != nil {
			heads = []head{{kind: fmt.Sprintf("%T", d), problem: errors.New("it was not made by this package")}}
		}
	}()
	return d.heads()
}

type joint []head

func (j joint) heads() []head { return j }

// Categorical declares that each case has one of K >= 2 classes, with P(class k) = softmax(z)_k.
// Its negative log-likelihood is the softmax cross-entropy. Targets are one-hot, or probabilities
// that sum to one.
//
// logits is the node of z, of shape (B, K) for B cases, or (K) for a single case. With shape (B, T,
// K), or more axes between, each case has a class at each of T positions, and its negative
// log-likelihood is the sum over them. It may also be the node of SoftMax or LogSoftMax of such a
// z, or the node of Log of SoftMax. The solver then finds z itself, and the axis of the classes: a
// z of shape (B, K, H, W) with a softmax over axis 1 has a class at each of H W pixels. Other
// shapes, fewer than two classes and a softmax over the cases are errors, which [NewSolver]
// reports. K-1 logits are declared by the node that joins them with the constant one.
func Categorical(logits *gorgonia.Node) Distribution {
	node, axis, err := traceSoftmax(logits)
	if err != nil {
		return head{kind: "Categorical", node: node, problem: err}
	}
	return categorical(node, axis)
}

// categorical is that of logits whose classes lie along an axis; 0: the last one.
func categorical(logits *gorgonia.Node, axis int) Distribution {
	h := head{kind: "Categorical", node: logits, last: axis, Likelihood: likelihood.Categorical{}}
	h.problem = checkClasses(h.as().Shape())
	return h
}

func checkClasses(shape tensor.Shape) error {
	if len(shape) == 0 {
		return fmt.Errorf("the logits have shape %v, where (cases, classes), (cases, positions, classes) or, for a "+
			"single case, (classes) is needed; reshape them in the model", shape)
	}
	if classes := shape[len(shape)-1]; classes < 2 {
		return fmt.Errorf("the logits have shape %v, which leaves each case fewer than two classes; a single logit "+
			"per case is a Bernoulli", shape)
	}
	return nil
}

// Bernoulli declares that every entry of the output is the logit of an independent binary target,
// P(y = 1) = sigmoid(z). Its negative log-likelihood is the binary cross-entropy, summed over the
// entries of a case. Targets are in [0, 1].
//
// logits is the node of z, of any shape. It may also be the node of Sigmoid of z. The solver then
// finds z itself. This works even where Gorgonia has rewritten the cost without the sigmoid, as it
// does for BinaryXent.
func Bernoulli(logits *gorgonia.Node) Distribution {
	node, err := traceSigmoid(logits)
	return head{kind: "Bernoulli", node: node, problem: err, Likelihood: likelihood.Bernoulli{}}
}

// Poisson declares that every entry of the output is the logarithm of the mean of an independent
// count, exp(z). Its negative log-likelihood is exp(z) - y z + log(y!), summed over the entries of
// a case; the cost may lack log(y!). Targets are at least 0.
//
// logRate is the node of z, of any shape.
func Poisson(logRate *gorgonia.Node) Distribution {
	return head{kind: "Poisson", node: logRate, problem: checkNode(logRate), Likelihood: likelihood.Poisson{}}
}

// NegativeBinomial declares that every entry of the output is the logarithm of the mean of an
// independent count whose variance is larger than that of a [Poisson]: exp(z) + exp(2z)/size. Its
// negative log-likelihood is (y + size) log(1 + exp(z)/size) - y z, summed over the entries of a
// case, up to what does not depend on z; the cost is a sum or a mean of it, in any scale. Targets
// are at least 0. size is positive and finite.
//
// logMean is the node of z, of any shape.
func NegativeBinomial(logMean *gorgonia.Node, size float64) Distribution {
	err := checkNode(logMean)
	if err == nil {
		err = checkPositive("size", size)
	}
	return head{kind: "NegativeBinomial", node: logMean, problem: err,
		Likelihood: likelihood.NegativeBinomial{Size: size}}
}

// StudentT declares that every entry of the output is the middle of an independent target of heavy
// tails, of Student's t distribution, so that outliers count little. The negative log-likelihood is
// (freedom+1)/2 log(1 + (z-y)^2/(freedom scale^2)), summed over the entries of a case, up to a
// constant; the cost is a sum or a mean of it, in any scale. With 1 degree of freedom that is the
// Cauchy or Lorentz loss.
//
// The cost has freedom times scale^2 in it, so that neither can be estimated. Both are positive and
// finite.
//
// middle is the node of z, of any shape.
func StudentT(middle *gorgonia.Node, freedom, scale float64) Distribution {
	err := checkNode(middle)
	if err == nil {
		err = errors.Join(checkPositive("number of degrees of freedom", freedom), checkPositive("scale", scale))
	}
	return head{kind: "StudentT", node: middle, problem: err,
		Likelihood: likelihood.StudentT{Freedom: freedom, Scale: scale}}
}

// Heteroscedastic declares that the model predicts both mean and variance of independent normal
// targets. The negative log-likelihood is (s + (m-y)^2 / exp(s))/2 with the mean m and the
// logarithm s of the variance, summed over the entries of a case, up to a constant; the cost is a
// sum or a mean of it, in any scale.
//
// mean and logVariance are nodes of one shape: two layers, or slices of one. As vectors they have a
// case in each entry.
func Heteroscedastic(mean, logVariance *gorgonia.Node) Distribution {
	h := head{kind: "Heteroscedastic", node: mean, beside: logVariance, Likelihood: likelihood.Heteroscedastic{}}
	for _, n := range []*gorgonia.Node{mean, logVariance} {
		if h.problem = checkNode(n); h.problem != nil {
			h.node, h.beside = mean, nil
			return h
		}
	}
	switch a, b := mean.Shape(), logVariance.Shape(); {
	case mean == logVariance:
		h.problem = errors.New("mean and logarithm of the variance are the same node")
	case !a.Eq(b):
		h.problem = fmt.Errorf("the mean has the shape %v and the logarithm of the variance %v, where they need the "+
			"same; broadcast in the model", a, b)
	}
	return h
}

func checkPositive(what string, v float64) error {
	if square := v * v; !(v > 0) || math.IsInf(square, 0) || math.IsInf(1/square, 0) {
		return fmt.Errorf("the %s is %g, where a positive, finite number is needed", what, v)
	}
	return nil
}

// AbsoluteError declares that the cost is an absolute error: every entry of the output is the
// median of an independent target of the Laplace distribution, all with the same scale, which is
// not known. The cost is a sum or a mean of |z-y|, in any scale. The scale is estimated by the mean
// absolute residual of the batch, and follows it as training goes, as the variance of
// [SquaredError] does.
//
// median is the node of z, of any shape.
func AbsoluteError(median *gorgonia.Node) Distribution {
	return head{kind: "AbsoluteError", node: median, problem: checkNode(median), ownUnit: true,
		Likelihood: likelihood.Laplace{Scale: 1}}
}

// ownScale reports whether the scale of absolute errors is not known.
func (h head) ownScale() bool {
	_, absolute := h.Likelihood.(likelihood.Laplace)
	return absolute && h.ownUnit
}

// Laplace declares that the cost is an absolute error: every entry of the output is the median of
// an independent target whose density falls by e at every scale. The negative log-likelihood is
// |z-y|/scale + log(2 scale), summed over the entries of a case; the cost is a sum or a mean of
// |z-y|, in any scale. Its Fisher matrix is that of a Gaussian of variance scale^2.
//
// scale is positive and finite, in the unit of the targets: the mean absolute error of the model's
// best predictions. It says how much a change of the predictions means, as the variance of a
// [Gaussian] does. Where it is not known, declare [AbsoluteError]; Laplace(median, 0) is the same.
//
// median is the node of z, of any shape.
func Laplace(median *gorgonia.Node, scale float64) Distribution {
	if scale == 0 {
		return AbsoluteError(median)
	}
	err := checkNode(median)
	if err == nil {
		err = checkPositive("scale", scale)
	}
	return head{kind: "Laplace", node: median, problem: err, Likelihood: likelihood.Laplace{Scale: scale}}
}

// Gaussian declares that every entry of the output is the mean of an independent normal target with
// the given variance. The variance is positive and finite. The negative log-likelihood is
// (z-y)^2/(2 variance) + log(2 pi variance)/2, summed over the entries of a case.
//
// The variance is that of the targets about the model's best prediction: their noise. It says how
// much a change of the predictions means. By default a step from a large batch changes them by
// sqrt(2) standard deviations at most, the declared one or that of the batch's residuals, whichever
// is larger. Where the variance is not known, declare [SquaredError]; Gaussian(mean, 0) is the
// same.
//
// The scale of the cost does not matter: the solver finds the factor between the cost and the
// declared likelihood.
//
// mean is the node of z, of any shape.
func Gaussian(mean *gorgonia.Node, variance float64) Distribution {
	if variance == 0 {
		return SquaredError(mean)
	}
	err := checkNode(mean)
	if err == nil {
		err = checkVariance(variance)
	}
	return head{kind: "Gaussian", node: mean, problem: err, Likelihood: likelihood.Gaussian{Variance: variance}}
}

// SquaredError declares that the cost is a squared error: every entry of the output is the mean of
// an independent normal target, all with the same variance, which is not known. The cost is a sum
// or a mean of (z-y)^2, in any scale.
//
// The variance is estimated by the mean squared residual of the batch, and follows it as training
// goes. So a step may be as long whether targets are in metres or in millimetres: with a large
// batch it changes the predictions by sqrt(2) times the residuals' standard deviation at most.
//
// mean is the node of z, of any shape.
func SquaredError(mean *gorgonia.Node) Distribution {
	h := head{kind: "SquaredError", node: mean, problem: checkNode(mean), ownUnit: true}
	h.Likelihood = likelihood.Gaussian{Variance: 1}
	return h
}

func checkVariance(variance float64) error {
	if !(variance > 0) || math.IsInf(variance, 0) || math.IsInf(1/variance, 0) {
		return fmt.Errorf("the variance is %g, where a positive, finite number is needed; declare "+
			"SquaredError where it is not known", variance)
	}
	return nil
}

func checkNode(n *gorgonia.Node) error {
	if n == nil {
		return errors.New("the node is nil; pass the node of the model's output")
	}
	if n.Graph() == nil {
		return errors.New("the node belongs to no graph: it is a constant, or Gorgonia took it out when it rewrote " +
			"an expression; pass a node that the cost is computed from")
	}
	return checkType(n)
}

// checkType returns an error if n.Dtype() would panic.
func checkType(n *gorgonia.Node) error {
	t := n.Type()
	for {
		of, ok := t.(gorgonia.TensorType)
		if !ok {
			break
		}
		t = of.Of
	}
	if _, ok := t.(tensor.Dtype); !ok {
		return errors.New("the node has no type of elements; make it with a Dtype, or by an operation on nodes that " +
			"have one")
	}
	return nil
}

// traceSoftmax returns z if n is SoftMax(z), LogSoftMax(z) or the Log of SoftMax(z), and otherwise
// n; and the axis of the classes, where that is not the last one, else 0. Gorgonia turns
// Log(SoftMax(z)) into the log form of the SoftMax node in place, unless its stabilisation is
// switched off.
func traceSoftmax(n *gorgonia.Node) (*gorgonia.Node, int, error) {
	if err := checkNode(n); err != nil {
		return n, 0, err
	}
	softmax := n
	if opIs(n, "gorgonia.elemUnaryOp", "ln") {
		softmax = onlyOperand(n)
	}
	if fmt.Sprintf("%T", softmax.Op()) != "*gorgonia.softmaxOp" {
		return n, 0, nil
	}
	logits := onlyOperand(softmax)
	var axis int
	if _, err := fmt.Sscanf(softmax.Op().String(), "Softmax{%d,", &axis); err != nil {
		return logits, 0, fmt.Errorf("the axis of %q is unreadable (%w); pass the node of the logits",
			program.NameOf(softmax), err)
	}
	switch last := len(logits.Shape()) - 1; {
	case axis == -1 || axis == last: // Gorgonia stores the last axis as -1
		return logits, 0, nil
	case axis == 0:
		return logits, 0, fmt.Errorf("the softmax is over axis 0 of an output of shape %v, where the cases are; a "+
			"case's classes lie along another one", logits.Shape())
	}
	return logits, axis, nil
}

// traceSigmoid returns z if n is Sigmoid(z), and otherwise n.
func traceSigmoid(n *gorgonia.Node) (*gorgonia.Node, error) {
	if err := checkNode(n); err != nil {
		return n, err
	}
	if opIs(n, "gorgonia.elemUnaryOp", "sigmoid") {
		return onlyOperand(n), nil
	}
	return n, nil
}

func opIs(n *gorgonia.Node, kind, name string) bool {
	op := n.Op()
	return op != nil && fmt.Sprintf("%T", op) == kind && op.String() == name
}

// onlyOperand returns the operand of a node with a unary op. It reads a subgraph made for this
// purpose, because the node index of the user's graph is out of date after Gorgonia has removed a
// node.
func onlyOperand(n *gorgonia.Node) *gorgonia.Node {
	operands := n.Graph().ExactSubgraphRoots(n).From(n.ID())
	operands.Next()
	return operands.Node().(*gorgonia.Node)
}

package kfac

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
)

// Distribution declares R(y|z), the distribution of the targets y that the model predicts by its
// output z. The cost has to be a multiple of the negative log-likelihood -log r(y|z) (Martens &
// Grosse 2015, section 2). K-FAC needs the distribution because the Fisher matrix takes the
// expectation over targets drawn from the model, not over those of the data.
//
// Make one with [Categorical], [Bernoulli], [Gaussian] or, for a model with several outputs,
// [Joint]. They accept whatever they are given; [NewSolver] reports what is wrong with it.
type Distribution interface {
	heads() []head
}

// head is one output of the model with its own predictive distribution, in its natural parameters
// z. It is a Distribution with one output.
type head struct {
	kind    string
	node    *gorgonia.Node // of z; nil only if problem is not
	problem error          // what was wrong with the arguments, without the name

	likelihood.Likelihood // nil only if problem is not
}

// name is the kind and the output's name, for messages and for the plan: "Categorical(logits)".
func (h head) name() string {
	if h.node == nil {
		return h.kind + "(nil)"
	}
	return fmt.Sprintf("%s(%s)", h.kind, h.node.Name())
}

func (h head) output() *gorgonia.Node { return h.node }

func (h head) err() error { return h.problem }

func (h head) heads() []head { return []head{h} }

// Joint declares a model with several outputs, each with its own distribution. They are independent
// of each other given the input: the negative log-likelihood is the sum of theirs. A Joint inside a
// Joint counts as its parts. A Joint of nothing is refused by [NewSolver].
func Joint(parts ...Distribution) Distribution {
	var all joint
	for i, part := range parts {
		if part == nil {
			part = head{
				kind:    "Joint",
				problem: fmt.Errorf("part %d is a nil Distribution; declare one for each output of the model", i),
			}
		}
		all = append(all, part.heads()...)
	}
	return all
}

type joint []head

func (j joint) heads() []head { return j }

// Categorical declares that each case has one of K >= 2 classes, with P(class k) = softmax(z)_k.
// Its negative log-likelihood is the softmax cross-entropy. Targets are one-hot, or probabilities
// that sum to one.
//
// logits is the node of z, of shape (B, K), or (K) for a single case. The node of SoftMax or
// LogSoftMax over the last axis of such a z, or Log of the former, does as well: it is traced to z.
func Categorical(logits *gorgonia.Node) Distribution {
	node, err := traceSoftmax(logits)
	if err == nil {
		err = checkClasses(node)
	}
	return head{"Categorical", node, err, likelihood.Categorical{}}
}

func checkClasses(logits *gorgonia.Node) error {
	shape := logits.Shape()
	if dims := len(shape); dims != 1 && dims != 2 {
		return fmt.Errorf("the logits have shape %v, where (cases, classes) or, for a single case, (classes) is "+
			"needed; reshape them in the model", shape)
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
// logits is the node of z, of any shape. The node of Sigmoid does as well: it is traced to z. So it
// is where Gorgonia has rewritten the cost, as it does for BinaryXent, and the sigmoid is no longer
// part of it.
func Bernoulli(logits *gorgonia.Node) Distribution {
	node, err := traceSigmoid(logits)
	return head{"Bernoulli", node, err, likelihood.Bernoulli{}}
}

// Gaussian declares that every entry of the output is the mean of an independent normal target of
// the given variance, which is positive and finite. Its negative log-likelihood is
// (z-y)^2/(2 variance) + log(2 pi variance)/2, summed over the entries of a case.
//
// The sum of (z-y)^2/2 is thus the likelihood of variance 1, and the sum of (z-y)^2 that of
// variance 1/2. The choice does not matter to the training: the solver finds the factor c by which
// the cost differs from the likelihood declared, and scales the curvature with it. The mean of
// (z-y)^2 over B cases of K entries is c = 1/(B K) with variance 1/2, or c = 2/(B K) with variance
// 1, and c/variance, the curvature at the output, is the same. Hence Gaussian(mean, 1) serves every
// squared-error cost. The variance matters where a number is reported in nats.
//
// mean is the node of z, of any shape.
func Gaussian(mean *gorgonia.Node, variance float64) Distribution {
	err := checkNode(mean)
	if err == nil {
		err = checkVariance(variance)
	}
	return head{"Gaussian", mean, err, likelihood.Gaussian{Variance: variance}}
}

func checkVariance(variance float64) error {
	if !(variance > 0) || math.IsInf(variance, 0) || math.IsInf(1/variance, 0) {
		return fmt.Errorf("the variance is %g, where a positive, finite number is needed; 1 serves every squared-"+
			"error cost", variance)
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

// checkType returns an error where the Dtype of n would panic.
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

// traceSoftmax returns the operand of n if n is SoftMax or LogSoftMax, or Log of one, and else n
// itself. Gorgonia turns Log(SoftMax(z)) into the log form of the SoftMax node in place, unless its
// stabilisation is switched off.
func traceSoftmax(n *gorgonia.Node) (*gorgonia.Node, error) {
	if err := checkNode(n); err != nil {
		return n, err
	}
	softmax := n
	if opIs(n, "gorgonia.elemUnaryOp", "ln") {
		softmax = onlyOperand(n)
	}
	if fmt.Sprintf("%T", softmax.Op()) != "*gorgonia.softmaxOp" {
		return n, nil
	}
	logits := onlyOperand(softmax)
	var axis int
	if _, err := fmt.Sscanf(softmax.Op().String(), "Softmax{%d,", &axis); err != nil {
		return logits, fmt.Errorf("the axis of %q is unreadable (%w); pass the node of the logits", softmax.Name(), err)
	}
	// Gorgonia keeps -1 for the last axis.
	if last := len(logits.Shape()) - 1; axis != -1 && axis != last {
		return logits, fmt.Errorf("the softmax is over axis %d of an output of shape %v; a case's classes must lie "+
			"along the last axis, %d", axis, logits.Shape(), last)
	}
	return logits, nil
}

// traceSigmoid returns the operand of n if n is Sigmoid, and else n itself.
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

// onlyOperand returns the operand of a node with a unary op. It asks a subgraph made for the
// purpose: the index that the user's graph keeps of its nodes is stale once Gorgonia has removed
// one.
func onlyOperand(n *gorgonia.Node) *gorgonia.Node {
	operands := n.Graph().ExactSubgraphRoots(n).From(n.ID())
	operands.Next()
	return operands.Node().(*gorgonia.Node)
}

package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"gorgonia.org/gorgonia"
)

// Distribution declares R(y|z), the distribution of the targets y that the model predicts by its output z, so that
// the cost is a multiple of the negative log-likelihood -log r(y|z) (Martens & Grosse 2015, section 2). K-FAC needs
// it because the Fisher matrix takes the expectation over targets drawn from the model, not over those of the data.
//
// Make one with [Categorical], [Bernoulli], [Gaussian] or, for a model with several outputs, [Joint]. They accept
// whatever they are given; [NewSolver] reports what is wrong with it.
type Distribution interface {
	heads() []head
}

// head is one output of the model with its own predictive distribution, in its natural parameters z.
//
// Slices are rows x cols, row-major, one row per case; no rows is fine. The numeric methods neither allocate nor keep
// state, and are finite for finite z of any size that can be squared; a NaN in z comes out as a NaN. T(y) is the
// sufficient statistic that belongs to z: y itself, or y/variance for the Gaussian.
type head interface {
	// name is the kind and the output's name, for messages and for the plan: "Categorical(logits)".
	name() string
	// output is the node of z. It is nil only if err is not.
	output() *gorgonia.Node
	// err says what was wrong with the arguments, without the name.
	err() error

	// variables is the number of independent target variables of a case with cols natural parameters.
	variables(cols int) int
	// discrete reports whether y is, so that a likelihood is at most 1.
	discrete() bool
	// mean writes E[T(y)] under R(y|z): softmax(z), sigmoid(z), z/variance. dst may alias z.
	mean(dst, z []float64, cols int)
	// sample draws y from R(y|z); one-hot rows for the categorical.
	sample(y, z []float64, cols int, rng *rand.Rand)
	// residual writes d(-log r(y|z))/dz = E[T(y)] - T(y). r may alias y.
	residual(r, y, z []float64, cols int)
	// fisherProduct writes F_R v, where F_R = Cov[T(y)] is the Fisher matrix of R(y|z) with respect to z, row by row
	// (Martens & Grosse 2015, appendix C). dst must alias neither v nor z.
	fisherProduct(dst, v, z []float64, cols int)
	// negLogLikelihood returns -log r(y|z) summed over the rows, in nats, normalising constants included. For targets
	// that are probabilities it is the cross-entropy.
	negLogLikelihood(y, z []float64, cols int) float64
	// impliedTarget writes the y for which residual is r: the target that a cost with this gradient must have used.
	// y may alias r.
	impliedTarget(y, r, z []float64, cols int)
	// checkTarget returns an error naming row, column and value if a row of y is no possible target or expectation of
	// one. tol is the rounding to allow in each entry, and in the sum of a row where that is fixed.
	checkTarget(y []float64, cols int, tol float64) error
}

// declared is what every head knows of itself.
type declared struct {
	kind    string
	node    *gorgonia.Node
	problem error
}

func (d declared) name() string {
	if d.node == nil {
		return d.kind + "(nil)"
	}
	return fmt.Sprintf("%s(%s)", d.kind, d.node.Name())
}

func (d declared) output() *gorgonia.Node { return d.node }

func (d declared) err() error { return d.problem }

// Joint declares a model with several outputs, each with its own distribution, independent of each other given the
// input: the negative log-likelihood is the sum of theirs. A Joint inside a Joint counts as its parts. A Joint of
// nothing is refused by [NewSolver].
func Joint(parts ...Distribution) Distribution {
	var all joint
	for i, part := range parts {
		if part == nil {
			part = gaussian{declared: declared{
				kind:    "Joint",
				problem: fmt.Errorf("part %d is a nil Distribution; declare one for each output of the model", i),
			}}
		}
		all = append(all, part.heads()...)
	}
	return all
}

type joint []head

func (j joint) heads() []head { return j }

// Categorical declares that each case has one of K >= 2 classes, with P(class k) = softmax(z)_k. Its negative
// log-likelihood is the softmax cross-entropy, with targets one-hot or probabilities that sum to one.
//
// logits is the node of z, of shape (B, K), or (K) for a single case. The node of SoftMax or LogSoftMax over the last
// axis of such a z, or Log of the former, does as well: it is traced to z.
func Categorical(logits *gorgonia.Node) Distribution {
	node, err := traceSoftmax(logits)
	if err == nil {
		err = checkClasses(node)
	}
	return categorical{declared{kind: "Categorical", node: node, problem: err}}
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

type categorical struct{ declared }

func (categorical) variables(int) int { return 1 }

func (categorical) discrete() bool { return true }

func (c categorical) heads() []head { return []head{c} }

func (categorical) mean(dst, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		p := dst[i : i+cols]
		_, sum := expShifted(p, z[i:i+cols])
		for k := range p {
			p[k] /= sum
		}
	}
}

// sample inverts the distribution function: one uniform number and no division per row.
func (categorical) sample(y, z []float64, cols int, rng *rand.Rand) {
	for i := 0; i < len(z); i += cols {
		row := y[i : i+cols]
		_, sum := expShifted(row, z[i:i+cols])
		left := rng.Float64() * sum
		var class int
		for k, e := range row {
			if e > 0 { // what has probability zero is not drawn, not even through rounding
				class = k
			}
			if left -= e; left < 0 {
				break
			}
		}
		clear(row)
		row[class] = 1
	}
}

func (categorical) residual(r, y, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		row := z[i : i+cols]
		top, rest := expRest(row)
		shift, sum := row[top], 1+rest
		for k, zk := range row {
			r[i+k] = math.Exp(zk-shift)/sum - y[i+k]
		}
	}
}

// fisherProduct computes (diag(p) - p p^T) v. F_R is blind to a constant added to v; taking away the entry of the
// likeliest class keeps full precision where p is nearly one-hot.
func (categorical) fisherProduct(dst, v, z []float64, cols int) {
	for i := 0; i < len(z); i += cols {
		d, w := dst[i:i+cols], v[i:i+cols]
		top, sum := expShifted(d, z[i:i+cols])
		shift, pv := w[top], 0.0
		for k := range d {
			d[k] /= sum
			pv += d[k] * (w[k] - shift)
		}
		for k := range d {
			d[k] *= w[k] - shift - pv
		}
	}
}

func (categorical) negLogLikelihood(y, z []float64, cols int) float64 {
	var total float64
	for i := 0; i < len(z); i += cols {
		row := z[i : i+cols]
		top, rest := expRest(row)
		nll := math.Log1p(rest)
		for k, zk := range row {
			if t := y[i+k]; t != 0 {
				nll += t * (row[top] - zk)
			}
		}
		total += nll
	}
	return total
}

// impliedTarget: y -> softmax(z) - y is its own inverse.
func (c categorical) impliedTarget(y, r, z []float64, cols int) { c.residual(y, r, z, cols) }

func (categorical) checkTarget(y []float64, cols int, tol float64) error {
	for i := 0; i < len(y); i += cols {
		var sum float64
		for k, t := range y[i : i+cols] {
			if !(t >= -tol) {
				return impossibleTarget(i+k, cols, t, "a probability, at least 0")
			}
			sum += t
		}
		if !(math.Abs(sum-1) <= tol) {
			return fmt.Errorf("the target of row %d sums to %.6g over its %d columns, where 1 is needed: a one-hot row "+
				"or class probabilities", i/cols, sum, cols)
		}
	}
	return nil
}

// expShifted writes exp(z_k - max z) to dst, which may alias z, and returns where the maximum is and the sum.
func expShifted(dst, z []float64) (top int, sum float64) {
	top = largest(z)
	shift := z[top]
	for k, zk := range z {
		e := math.Exp(zk - shift)
		dst[k] = e
		sum += e
	}
	return top, sum
}

// expRest returns where the maximum of z is and the sum of exp(z_k - max z) over all other k, so that
// log sum_k exp(z_k) = z_top + log1p(rest).
func expRest(z []float64) (top int, rest float64) {
	top = largest(z)
	shift := z[top]
	for k, zk := range z {
		if k != top {
			rest += math.Exp(zk - shift)
		}
	}
	return top, rest
}

func largest(z []float64) int {
	top := 0
	for k, zk := range z {
		if zk > z[top] {
			top = k
		}
	}
	return top
}

// Bernoulli declares that every entry of the output is the logit of an independent binary target,
// P(y = 1) = sigmoid(z). Its negative log-likelihood is the binary cross-entropy, summed over the entries of a case;
// targets are in [0, 1].
//
// logits is the node of z, of any shape. The node of Sigmoid does as well: it is traced to z, also where Gorgonia has
// rewritten the cost (as it does for BinaryXent) so that the sigmoid is no longer part of it.
func Bernoulli(logits *gorgonia.Node) Distribution {
	node, err := traceSigmoid(logits)
	return bernoulli{declared{kind: "Bernoulli", node: node, problem: err}}
}

type bernoulli struct{ declared }

func (b bernoulli) heads() []head { return []head{b} }

func (bernoulli) variables(cols int) int { return cols }

func (bernoulli) discrete() bool { return true }

func (bernoulli) mean(dst, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = logistic(zi)
	}
}

func (bernoulli) sample(y, z []float64, _ int, rng *rand.Rand) {
	for i, zi := range z {
		y[i] = 0
		if rng.Float64() < logistic(zi) {
			y[i] = 1
		}
	}
}

func (bernoulli) residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		r[i] = logistic(zi) - y[i]
	}
}

// fisherProduct computes p (1-p) v. With e = exp(-|z|) the factor is e/(1+e)^2, which does not cancel.
func (bernoulli) fisherProduct(dst, v, z []float64, _ int) {
	for i, zi := range z {
		e := math.Exp(-math.Abs(zi))
		dst[i] = v[i] * e / ((1 + e) * (1 + e))
	}
}

// negLogLikelihood sums log(1+exp(z)) - y z = max(z,0) - y z + log(1+e), e = exp(-|z|). The last terms need few
// logarithms: (1+e1)(1+e2)... - 1 is built up without cancellation, as far as it fits into a float64.
func (bernoulli) negLogLikelihood(y, z []float64, _ int) float64 {
	var total, product float64 // product less one
	for i, zi := range z {
		e := math.Exp(-math.Abs(zi))
		product += e + product*e
		if product > 1e300 {
			total += math.Log1p(product)
			product = 0
		}
		total += max(zi, 0) - y[i]*zi
	}
	return total + math.Log1p(product)
}

// impliedTarget: y -> sigmoid(z) - y is its own inverse.
func (b bernoulli) impliedTarget(y, r, z []float64, cols int) { b.residual(y, r, z, cols) }

func (bernoulli) checkTarget(y []float64, cols int, tol float64) error {
	for i, t := range y {
		if !(t >= -tol && t <= 1+tol) {
			return impossibleTarget(i, cols, t, "a value in [0, 1]")
		}
	}
	return nil
}

// logistic is exact to rounding for every z: where exp(-z) overflows, the quotient is 0.
func logistic(z float64) float64 { return 1 / (1 + math.Exp(-z)) }

// Gaussian declares that every entry of the output is the mean of an independent normal target of the given variance,
// which is positive and finite. Its negative log-likelihood is (z-y)^2/(2 variance) + log(2 pi variance)/2, summed
// over the entries of a case.
//
// The sum of (z-y)^2/2 is thus the likelihood of variance 1, and the sum of (z-y)^2 that of variance 1/2. The choice
// does not matter to the training: the solver finds the factor c by which the cost differs from the likelihood
// declared, and scales the curvature with it. The mean of (z-y)^2 over B cases of K entries is c = 1/(B K) with
// variance 1/2, or c = 2/(B K) with variance 1, and c/variance, the curvature at the output, is the same. Hence
// Gaussian(mean, 1) serves every squared-error cost; the variance matters where a number is reported in nats.
//
// mean is the node of z, of any shape.
func Gaussian(mean *gorgonia.Node, variance float64) Distribution {
	err := checkNode(mean)
	if err == nil {
		err = checkVariance(variance)
	}
	return gaussian{declared{kind: "Gaussian", node: mean, problem: err}, variance}
}

func checkVariance(variance float64) error {
	if !(variance > 0) || math.IsInf(variance, 0) || math.IsInf(1/variance, 0) {
		return fmt.Errorf("the variance is %g, where a positive, finite number is needed; 1 serves every squared-error "+
			"cost", variance)
	}
	return nil
}

type gaussian struct {
	declared
	variance float64
}

func (g gaussian) heads() []head { return []head{g} }

func (gaussian) variables(cols int) int { return cols }

func (gaussian) discrete() bool { return false }

func (g gaussian) mean(dst, z []float64, _ int) {
	for i, zi := range z {
		dst[i] = zi / g.variance
	}
}

func (g gaussian) sample(y, z []float64, _ int, rng *rand.Rand) {
	deviation := math.Sqrt(g.variance)
	for i, zi := range z {
		y[i] = zi + deviation*rng.NormFloat64()
	}
}

func (g gaussian) residual(r, y, z []float64, _ int) {
	for i, zi := range z {
		r[i] = (zi - y[i]) / g.variance
	}
}

func (g gaussian) fisherProduct(dst, v, _ []float64, _ int) {
	for i, vi := range v {
		dst[i] = vi / g.variance
	}
}

func (g gaussian) negLogLikelihood(y, z []float64, _ int) float64 {
	var squares float64
	for i, zi := range z {
		squares += (zi - y[i]) * (zi - y[i])
	}
	return (squares/g.variance + float64(len(z))*math.Log(2*math.Pi*g.variance)) / 2
}

func (g gaussian) impliedTarget(y, r, z []float64, _ int) {
	for i, zi := range z {
		y[i] = zi - g.variance*r[i]
	}
}

func (gaussian) checkTarget(y []float64, cols int, _ float64) error {
	for i, t := range y {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return impossibleTarget(i, cols, t, "a finite number")
		}
	}
	return nil
}

func impossibleTarget(i, cols int, value float64, want string) error {
	return fmt.Errorf("the target at row %d, column %d is %.6g, where %s, is needed", i/cols, i%cols, value, want)
}

func checkNode(n *gorgonia.Node) error {
	if n == nil {
		return errors.New("the node is nil; pass the node of the model's output")
	}
	if n.Graph() == nil {
		return errors.New("the node belongs to no graph: it is a constant, or Gorgonia took it out when it rewrote " +
			"an expression; pass a node that the cost is computed from")
	}
	return nil
}

// traceSoftmax returns the operand of n if n is SoftMax or LogSoftMax, or Log of one, and else n itself. Gorgonia
// turns Log(SoftMax(z)) into the log form of the SoftMax node in place, unless its stabilisation is switched off.
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
	if last := len(logits.Shape()) - 1; axis != -1 && axis != last { // -1 is what Gorgonia keeps for "the last"
		return logits, fmt.Errorf("the softmax is over axis %d of an output of shape %v; a case's classes must lie along "+
			"the last axis, %d", axis, logits.Shape(), last)
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

// onlyOperand returns the operand of a node with a unary op. It asks a subgraph made for the purpose: the index that
// the user's graph keeps of its nodes is stale once Gorgonia has removed one.
func onlyOperand(n *gorgonia.Node) *gorgonia.Node {
	operands := n.Graph().ExactSubgraphRoots(n).From(n.ID())
	operands.Next()
	return operands.Node().(*gorgonia.Node)
}

package kfac

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/likelihood"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Where a check fails, the data that it has tell which of the usual slips it was. Each is a
// hypothesis about the gradients, which has to hold as exactly as the check itself would have.

// slipTolerance is how far gradients may be from those of a slip, relative to their norm, as in the
// checks.
const slipTolerance = 1e-2

// anySlip is the hint where none of the slips explains the gradients at the probes.
const anySlip = "declare the distribution that the cost is the negative log-likelihood of, at the output that " +
	"it is computed from; what the cost does to the output after that has to be the logarithm of its probability, " +
	"plus what does not depend on it"

const minus = "the cost is minus what it should be: it grows as the predictions get better; take its Neg"

// A mismatch is what the loss check has of an output that is not what was declared: at two points
// the output, the gradient of the cost and the mean of the declared distribution.
type mismatch struct {
	likelihood.Likelihood
	output        string // its name
	shape         []int
	cols          int
	z, grad, mean [2][]float64
}

// slip says by which slip the gradients are not those of the declared distribution.
func (m mismatch) slip() string {
	gradient := changeOf(m.grad)
	if c, ok := factorOf(gradient, changeOf(m.mean)); ok && c < 0 {
		hint := minus
		if _, bits := m.Likelihood.(likelihood.Bernoulli); bits {
			hint += ". If it is Log(1 - D) that a generator minimises, minimise -Log(D), which has the same minimum"
		}
		return hint
	}
	for _, hint := range []string{m.otherFamily(gradient), m.ofProbabilities(), m.function()} {
		if hint != "" {
			return hint
		}
	}
	return anySlip
}

// largestOf is the largest absolute value.
func largestOf(x []float64) (largest float64) {
	for _, v := range x {
		largest = max(largest, math.Abs(v))
	}
	return largest
}

// changeOf is the change from the first to the second.
func changeOf(x [2][]float64) []float64 {
	change := make([]float64, len(x[0]))
	for i := range change {
		change[i] = x[1][i] - x[0][i]
	}
	return change
}

// factorOf is c where y is c x, and whether it is.
func factorOf(y, x []float64) (c float64, ok bool) {
	c, _, ok = factorsOf(y, x, make([]float64, len(x)))
	return c, ok
}

// factorsOf are a and b where y is a u + b v, and whether it is. v may be zero; b is 0 then.
func factorsOf(y, u, v []float64) (a, b float64, ok bool) {
	top := largestOf(y)
	var uu, uv, vv, yu, yv, yy, miss float64
	for i := range y { // in these units no square over- or underflows
		uu += u[i] * u[i]
		uv += u[i] * v[i]
		vv += v[i] * v[i]
		yu += y[i] / top * u[i]
		yv += y[i] / top * v[i]
		yy += y[i] / top * y[i] / top
	}
	if vv == 0 {
		a = yu / uu
	} else {
		det := uu*vv - uv*uv
		a, b = (yu*vv-yv*uv)/det, (yv*uu-yu*uv)/det
	}
	for i := range y {
		e := y[i]/top - a*u[i] - b*v[i]
		miss += e * e
	}
	return a * top, b * top, math.Sqrt(miss) <= slipTolerance*math.Sqrt(yy) && !math.IsInf(a*top, 0)
}

// haveFactors reports whether each row of y, of so many columns, is a multiple of that of x, which
// is not negative.
func haveFactors(y, x []float64, cols int) bool {
	for at := 0; at < len(y); at += cols {
		if row := y[at : at+cols]; largestOf(row) > 0 {
			if c, ok := factorOf(row, x[at:at+cols]); !ok || c < 0 {
				return false
			}
		}
	}
	return true
}

// otherFamily finds another distribution, of the same output, that the gradients are those of.
func (m mismatch) otherFamily(gradient []float64) string {
	families := []struct {
		likelihood.Likelihood
		words string
	}{
		{likelihood.Gaussian{Variance: 1}, "a squared error of %s: declare kfac.SquaredError"},
		{likelihood.Bernoulli{}, "a binary cross-entropy of %s, with a sigmoid for each entry: declare kfac.Bernoulli"},
		{likelihood.Categorical{}, "the cross-entropy of a softmax over the rows of %s: declare kfac.Categorical"},
		{likelihood.Poisson{}, "that of counts, whose log rate is %s: declare kfac.Poisson"},
	}
	for _, f := range families {
		if c, ok := factorOf(gradient, meanChange(f, m.z, m.cols)); ok && c > 0 {
			return "the cost is " + fmt.Sprintf(f.words, m.output)
		}
	}
	if m.isAbsolute() {
		return fmt.Sprintf("the cost is an absolute error of %s: declare kfac.AbsoluteError", m.output)
	}
	return m.otherAxis(gradient)
}

// isAbsolute reports whether all gradients are of one size.
func (m mismatch) isAbsolute() bool {
	size := math.Abs(m.grad[0][0])
	for _, g := range append(slices.Clone(m.grad[0]), m.grad[1]...) {
		if !(math.Abs(math.Abs(g)-size) <= slipTolerance*size) {
			return false
		}
	}
	return len(m.grad[0]) > 1
}

// otherAxis finds a softmax over another axis of the output than the last.
func (m mismatch) otherAxis(gradient []float64) string {
	for axis := range max(len(m.shape)-1, 0) {
		if m.shape[axis] < 2 {
			continue
		}
		turned := [2][]float64{turn(m.z[0], m.shape, axis), turn(m.z[1], m.shape, axis)}
		change := meanChange(likelihood.Categorical{}, turned, m.shape[axis])
		switch {
		case !haveFactors(turn(gradient, m.shape, axis), change, m.shape[axis]):
		case axis == 0:
			return fmt.Sprintf("the cost has a softmax over another axis of %s, over its cases: SoftMax and "+
				"LogSoftMax over the last axis make a distribution for each case", m.output)
		default:
			return fmt.Sprintf("the cost has a softmax over another axis of %s than the last, axis %d: declare "+
				"kfac.Categorical of the node of that SoftMax or LogSoftMax", m.output, axis)
		}
	}
	return ""
}

// meanChange is the change of the mean of a likelihood.
func meanChange(l likelihood.Likelihood, z [2][]float64, cols int) []float64 {
	var means [2][]float64
	for i := range 2 {
		means[i] = make([]float64, len(z[i]))
		l.Mean(means[i], z[i], cols)
	}
	return changeOf(means)
}

// turn has an axis of x last.
func turn(x []float64, shape []int, axis int) []float64 {
	n, inner := shape[axis], 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	y := make([]float64, 0, len(x))
	for at := 0; at < len(x); at += n * inner {
		for i := range inner {
			for k := range n {
				y = append(y, x[at+k*inner+i])
			}
		}
	}
	return y
}

// ofProbabilities finds a cost that is another function of the probabilities than their logarithm.
// Divided by the derivative of the softmax or of the sigmoid its gradient is that with respect to
// the probabilities: constant where the cost is linear in them, and of constant slope where it is
// their squared error.
func (m mismatch) ofProbabilities() string {
	cols := 0 // of classes
	switch m.Likelihood.(type) {
	case likelihood.Categorical:
		cols = m.cols
	case likelihood.Bernoulli:
	default:
		return ""
	}
	var inner, p [2][]float64
	for i := range 2 {
		inner[i], p[i] = slices.Clone(m.grad[i]), slices.Clone(m.mean[i])
		for j, q := range m.mean[i] {
			inner[i][j] /= q
			if cols == 0 {
				inner[i][j] /= 1 - q
			}
		}
		centre(inner[i], cols)
		centre(p[i], cols)
	}
	change := changeOf(inner)
	var size, moved float64
	for j := range change {
		size += inner[0][j]*inner[0][j] + inner[1][j]*inner[1][j]
		moved += change[j] * change[j]
	}
	if math.Sqrt(moved) <= slipTolerance*math.Sqrt(size) {
		return "the cost is linear in the probabilities, so a logarithm is missing: take the Log of them before " +
			"they are multiplied with the targets, or, if it is meant, declare kfac.Policy of the distribution"
	}
	if c, ok := factorOf(change, changeOf(p)); ok && c > 0 {
		return fmt.Sprintf("the cost is a squared error of the probabilities of %s: declare kfac.SquaredError of the "+
			"node of the probabilities", m.output)
	}
	return ""
}

// centre takes the mean of each row of so many columns away.
func centre(x []float64, cols int) {
	for at := 0; cols > 0 && at < len(x); at += cols {
		row := x[at : at+cols]
		var sum float64
		for _, v := range row {
			sum += v
		}
		for j := range row {
			row[j] -= sum / float64(cols)
		}
	}
}

// function finds a cost that is a function of the likelihood, such as its root, by a factor that is
// one at one point and another at the other, so that mean - gradient/c is the same at both.
func (m mismatch) function() string {
	a, b, ok := factorsOf(changeOf(m.mean), m.grad[1], m.grad[0])
	if !ok || !(a > 0) || !(b < 0) {
		return ""
	}
	return "the cost is a function of the likelihood, as a root mean square is its root: what is under the root has " +
		"the same minimum, so minimise that"
}

// notFinite says where in the tail of the cost a NaN or an infinity comes from.
func notFinite[T program.Float](run *program.Run[T], path program.Path) string {
	for _, n := range run.Program().Nodes {
		v := run.Value(n).Data
		if v == nil || linalg.Finite(v) {
			continue
		}
		if n.IsLeaf() {
			return fmt.Sprintf("there is a NaN or an infinity in %q: look at the inputs and the targets", n.Name())
		}
		return outOfRange(run, n, path)
	}
	return "its gradient overflows, or is not defined at some values of the output"
}

// logarithmOfLogarithm is a hint where a cost takes the logarithm of a log-softmax, or of 1 less
// it; else "". Log(SoftMax(z)) makes the SoftMax a LogSoftMax, in place.
func logarithmOfLogarithm(p *program.Program) string {
	for _, n := range p.Nodes {
		if op, ok := n.Op.(program.Unary); !ok || op.Kind != "ln" && op.Kind != "log1p" {
			continue
		}
		for from := []*program.Node{n.Kids[0]}; len(from) > 0; from = from[1:] {
			switch op := from[0].Op.(type) {
			case program.SoftMax:
				if op.Log {
					return fmt.Sprintf("the cost takes the logarithm of what is a logarithm already, that of the "+
						"SoftMax of %s: Gorgonia v0.9.18 makes a SoftMax that Log is taken of a LogSoftMax, in place. "+
						"Where probabilities are needed too take the Exp of it", from[0].Kids[0].Name())
				}
			case program.Unary:
				if op.Kind == "neg" {
					from = append(from, from[0].Kids...)
				}
			case program.Binary:
				if op.Kind == "+" || op.Kind == "-" || op.Kind == "⊙" {
					from = append(from, from[0].Kids...)
				}
			case program.Reshape, program.Transpose, program.Slice, program.Repeat, program.Sum:
				from = append(from, from[0].Kids...)
			}
		}
	}
	return ""
}

// roundedSigmoid reports whether a node is a sigmoid, or 1 less one.
func roundedSigmoid(n *program.Node) bool {
	if op, ok := n.Op.(program.Binary); ok && op.Kind == "-" {
		n = n.Kids[1]
	}
	op, ok := n.Op.(program.Unary)
	return ok && op.Kind == "sigmoid"
}

// outOfRange says what is wrong with the operands of the first node that is not finite.
func outOfRange[T program.Float](run *program.Run[T], n *program.Node, path program.Path) string {
	op, _ := n.Op.(program.Unary)
	low := math.Inf(1)
	for _, v := range run.Value(n.Kids[0]).Data {
		low = min(low, float64(v))
	}
	least, limited := map[string]float64{"ln": 0, "log2": 0, "sqrt": 0, "invSqrt": 0, "log1p": -1}[op.Kind]
	switch of := n.Kids[0].Name(); {
	case limited && low < least && path.Has(n):
		return fmt.Sprintf("the cost takes the %s of %q, which is negative for some values of the output that was "+
			"declared: an output that has to be positive, or less than 1, is no logit. Declare the node before the "+
			"SoftMax, Sigmoid or Exp that makes it so", functions[op.Kind], of)
	case limited && low < least:
		return fmt.Sprintf("the cost takes the %s of %q, which is %.4g somewhere: look at the data",
			functions[op.Kind], of, low)
	case limited && low == least && roundedSigmoid(n.Kids[0]):
		return fmt.Sprintf("the cost takes the logarithm of %q, which has rounded to 0, as 1 - Sigmoid(z) does from "+
			"a z of 37 on, in float32 of 17: write Neg(Softplus(z)) for Log(1 - Sigmoid(z)), and "+
			"Neg(Softplus(Neg(z))) for Log(Sigmoid(z))", of)
	case limited && low == least:
		return fmt.Sprintf("the cost takes the %s of %q, which is %g somewhere: Log(HadamardProd(softmax, y)) is the "+
			"logarithm of the targets too, where HadamardProd(Log(softmax), y) is meant", functions[op.Kind], of, low)
	}
	return fmt.Sprintf("%s overflows, or is not defined at its operands: are the targets or the inputs so large that "+
		"the cost overflows?", n.Name())
}

var functions = map[string]string{"ln": "logarithm", "log2": "logarithm", "log1p": "logarithm of 1 and", "sqrt": "root",
	"invSqrt": "root"}

// changedGradient says how a gradient that is not that of the cost was made from it: clipped, or
// multiplied by a factor; else "".
func changedGradient[T program.Float](got, want []T) string {
	if len(got) < 2 {
		return "" // one number always has a factor
	}
	y, x := make([]float64, len(got)), make([]float64, len(got))
	linalg.Convert(y, got)
	linalg.Convert(x, want)
	top := largestOf(y)
	clipped := make([]float64, len(x))
	for i, v := range x {
		clipped[i] = max(-top, min(top, v))
	}
	const remedy = ": was it clipped or scaled after RunAll? Leave it as it is: the solver bounds its steps by " +
		"itself, and a factor in the cost changes nothing"
	if c, ok := factorOf(y, clipped); ok && top < largestOf(x) && math.Abs(c-1) < slipTolerance {
		return fmt.Sprintf("it is that of the cost, cut off at %.4g", top) + remedy
	}
	if c, ok := factorOf(y, x); ok {
		return fmt.Sprintf("it is that of the cost, multiplied by %.4g", c) + remedy
	}
	return ""
}

// viewOfColumns is a hint where an input of a run is a view of columns of another tensor; else "".
// Of one Gorgonia v0.9.18 multiplies the wrong numbers.
func viewOfColumns(p *program.Program) string {
	for _, n := range p.Nodes {
		if d, ok := n.Src.Value().(*tensor.Dense); ok && n.IsLeaf() && n.Src.Op() == nil && d.IsView() &&
			d.RequiresIterator() {
			return fmt.Sprintf("%q is a view of columns of a larger tensor, of which Gorgonia v0.9.18 multiplies the "+
				"wrong numbers: give it a copy, view.Materialize()", n.Name())
		}
	}
	return ""
}

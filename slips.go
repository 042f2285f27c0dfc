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

// A mismatch is what the loss check has of an output that is not what was declared: at two points
// the output, the gradient of the cost and the mean of the declared distribution.
type mismatch struct {
	likelihood.Likelihood
	output        string // its name
	cols          int
	z, grad, mean [2][]float64
}

// slip says by which slip the gradients are not those of the declared distribution.
func (m mismatch) slip() string {
	gradient := changeOf(m.grad)
	if c, ok := factorOf(gradient, changeOf(m.mean)); ok && c < 0 {
		return "the cost is minus what it should be: it grows as the predictions get better; take its Neg"
	}
	for _, hint := range []string{m.otherFamily(gradient), m.ofProbabilities(), m.weighted(gradient), m.function()} {
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

// rowFactors are the least and the largest factor between the rows of y and x, of so many columns,
// and whether each row has one.
func rowFactors(y, x []float64, cols int) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for at := 0; at < len(y); at += cols {
		var c float64
		if row := y[at : at+cols]; largestOf(row) > 0 {
			if c, ok = factorOf(row, x[at:at+cols]); !ok {
				return 0, 0, false
			}
		}
		low, high = min(low, c), max(high, c)
	}
	return low, high, true
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
	rows := len(gradient) / m.cols
	if rows < 2 || m.cols < 2 {
		return ""
	}
	turned := [2][]float64{turn(m.z[0], rows), turn(m.z[1], rows)}
	change := meanChange(likelihood.Categorical{}, turned, rows)
	if low, high, ok := rowFactors(turn(gradient, rows), change, rows); ok && low >= 0 && high > 0 {
		return fmt.Sprintf("the cost has a softmax over another axis of %s, over its cases: SoftMax and LogSoftMax "+
			"over the last axis make a distribution for each case", m.output)
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

// turn is the transpose of a matrix of so many rows.
func turn(x []float64, rows int) []float64 {
	cols := len(x) / rows
	y := make([]float64, len(x))
	for i := range rows {
		for j := range cols {
			y[j*rows+i] = x[i*cols+j]
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

// weighted finds factors that differ from case to case.
func (m mismatch) weighted(gradient []float64) string {
	if m.cols < 2 {
		return "" // one number always has a factor
	}
	low, high, ok := rowFactors(gradient, changeOf(m.mean), m.cols)
	if !ok {
		return ""
	}
	hint := fmt.Sprintf("the cost weighs its cases differently, by factors from %.4g to 1", low/high)
	if _, classes := m.Likelihood.(likelihood.Categorical); classes {
		hint += ": by weights, or by targets whose rows do not sum to 1, where one-hot rows or probabilities are needed"
	}
	return hint
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

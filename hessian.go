package kfac

import (
	"math"
	"math/bits"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// A hessian holds the second derivatives of a cost with respect to outputs, in the place of the
// Fisher matrix of a distribution. It is block-diagonal and has no negative eigenvalue.
//
// Vectors are laid out by case: what a case has of each output, one after the other.
type hessian struct {
	blockForm
	heads   []int // the outputs that it is of
	offsets []int // where each begins in a case
	perCase int
	rows    int // the length of the last axis, where it is not all of a case; else 0

	grad   []float64 // of the cost
	blocks []float64 // width x width each, all symmetric
	roots  []float64 // of the blocks: R R^T

	rounded, x, y, v, values, left []float64 // scratch
}

// blockForm is what is known of the hessian of a graph.
type blockForm struct {
	width   int  // of a block; 0: not known yet
	coupled bool // there is something outside the blocks
	kinked  bool // some were zero but for rounded kinks
	saddle  bool // some had negative eigenvalues, which count by their absolute value
}

const (
	widestBlock  = 256 // that is computed in full
	signPatterns = 8   // that the blocks of a coupled hessian are estimated from
)

// A curve computes y = H x, for a hessian as it is or with kinks rounded off. It may change x.
type curve func(y, x []float64, rounded bool) error

// compute computes the blocks from products. exact is the relative precision of these.
func (h *hessian) compute(of curve, exact float64, rng *rand.Rand) (err error) {
	h.x, h.y = linalg.Resized(h.x, len(h.grad)), linalg.Resized(h.y, len(h.grad))
	known := h.width > 0
	if !known {
		if err := h.findWidth(of, exact, rng); err != nil {
			return err
		}
	}
	if h.blocks, err = h.columns(h.blocks, of, false, rng); err != nil {
		return err
	}
	if known && !h.coupled {
		if whole, err := h.isWhole(of, exact, rng); err != nil {
			return err
		} else if !whole {
			h.width = 0
			return h.compute(of, exact, rng)
		}
	}
	return h.roundKinks(of, rng)
}

// findWidth finds the narrowest blocks outside of which the hessian is zero: single entries, rows
// along the last axis, or cases. Otherwise cases are coupled.
func (h *hessian) findWidth(of curve, exact float64, rng *rand.Rand) error {
	h.coupled = false
	for _, width := range []int{1, h.rows, h.perCase} {
		if width == 0 || width > widestBlock {
			continue
		}
		h.width = width
		if apart, err := h.isApart(of, exact, rng); apart || err != nil {
			return err
		}
	}
	h.coupled = true
	return nil
}

// isApart reports whether no block depends on another. Of any two blocks there is a bit in which
// their numbers differ, so that one of them is moved and the other is not.
func (h *hessian) isApart(of curve, exact float64, rng *rand.Rand) (bool, error) {
	last := len(h.grad)/h.width - 1
	for bit := range bits.Len(uint(last)) {
		moved := func(i int) bool { return i/h.width>>bit&1 == 1 }
		for i := range h.x {
			h.x[i] = 0
			if moved(i) {
				h.x[i] = rng.NormFloat64()
			}
		}
		if err := of(h.y, h.x, true); err != nil {
			return false, err
		}
		most := largestOf(h.y)
		for i, y := range h.y {
			if !moved(i) && !(math.Abs(y) <= exact*most) {
				return false, nil
			}
		}
	}
	return true, nil
}

// columns computes all blocks, a column of each at a time. What couples them counts for nothing on
// average over random signs.
func (h *hessian) columns(into []float64, of curve, rounded bool, rng *rand.Rand) ([]float64, error) {
	w, patterns := h.width, 1
	if h.coupled {
		patterns = signPatterns
	}
	into = zeros(into, len(h.grad)*w)
	for range patterns {
		for k := range w {
			clear(h.x)
			for i := k; i < len(h.x); i += w {
				h.x[i] = 1
				if h.coupled && rng.Uint64()&1 == 0 {
					h.x[i] = -1
				}
			}
			signs := h.values[:0]
			for i := k; i < len(h.x); i += w {
				signs = append(signs, h.x[i]/float64(patterns))
			}
			h.values = signs
			if err := of(h.y, h.x, rounded); err != nil {
				return into, err
			}
			for i, y := range h.y {
				into[i*w+k] += signs[i/w] * y
			}
		}
	}
	for b := 0; b < len(into); b += w * w {
		symmetrise(into[b:b+w*w], w)
	}
	return into, nil
}

func symmetrise(a []float64, n int) {
	for i := range n {
		for j := range i {
			mean := (a[i*n+j] + a[j*n+i]) / 2
			a[i*n+j], a[j*n+i] = mean, mean
		}
	}
}

// isWhole reports whether there is nothing outside the blocks, by a random product.
func (h *hessian) isWhole(of curve, exact float64, rng *rand.Rand) (bool, error) {
	for i := range h.x {
		h.x[i] = rng.NormFloat64()
	}
	h.v = append(h.v[:0], h.x...)
	if err := of(h.y, h.x, false); err != nil {
		return false, err
	}
	h.product(h.x, h.v)
	limit := exact * math.Max(largestOf(h.y), largestOf(h.x))
	floats.Sub(h.x, h.y)
	return largestOf(h.x) <= limit || !linalg.Finite(h.y), nil
}

// product computes y = H x by the blocks.
func (h *hessian) product(y, x []float64) { multiplyBlocks(y, h.blocks, x, h.width) }

// multiply computes the products of what each output has.
func (h *hessian) multiply(v, into [][]float64) {
	h.gather(h.x, func(i int) []float64 { return v[i] })
	h.product(h.y, h.x)
	h.scatter(h.y, func(i int) []float64 { return into[i] })
}

func multiplyBlocks(y, blocks, x []float64, w int) {
	for i := range y {
		from := i / w * w
		y[i] = floats.Dot(blocks[i*w:(i+1)*w], x[from:from+w])
	}
}

// roundKinks takes the blocks with rounded kinks where a block is zero, if some such block has a
// gradient. On the flat side of a kink there is none, but a step that does not know of the kink
// goes too far beyond it.
func (h *hessian) roundKinks(of curve, rng *rand.Rand) (err error) {
	w := h.width
	zero := func(b int) bool { return largestOf(h.blocks[b*w*w:(b+1)*w*w]) == 0 }
	some := false
	for b := range len(h.grad) / w {
		some = some || zero(b) && largestOf(h.grad[b*w:(b+1)*w]) > 0
	}
	if !some {
		return nil
	}
	if h.rounded, err = h.columns(h.rounded, of, true, rng); err != nil {
		return err
	}
	for b := range len(h.grad) / w {
		if block := h.rounded[b*w*w : (b+1)*w*w]; zero(b) && largestOf(block) > 0 {
			copy(h.blocks[b*w*w:], block)
			h.kinked = true
		}
	}
	return nil
}

// makePositive replaces negative eigenvalues by their absolute value, as saddle-free Newton does
// (Dauphin et al. 2014), and finds the roots. With the positive part alone there is nothing to
// bound a step where all curvature is negative: a Dice loss that is at -0.87 rises to -0.67.
func (h *hessian) makePositive(exact float64) error {
	w := h.width
	h.roots, h.values = linalg.Resized(h.roots, len(h.blocks)), linalg.Resized(h.values, w)
	h.left = linalg.Resized(h.left, w*w)
	for b := 0; b < len(h.blocks); b += w * w {
		block, root := h.blocks[b:b+w*w], h.roots[b:b+w*w]
		if rootOf(root, h.left, block, w, exact) {
			continue
		}
		h.saddle = true
		copy(root, block)
		if err := linalg.EigenSym(w, root, h.values); err != nil {
			return err
		}
		for j, v := range h.values {
			for i := range w {
				root[i*w+j] *= math.Sqrt(math.Abs(v))
			}
		}
		for i := range w {
			for j := range w {
				block[i*w+j] = floats.Dot(root[i*w:(i+1)*w], root[j*w:(j+1)*w])
			}
		}
	}
	return nil
}

// rootOf makes root a root R of a, by Cholesky, and reports whether it has one: a may be singular,
// but has no negative eigenvalue but for rounding. left is scratch.
func rootOf(root, left, a []float64, n int, exact float64) bool {
	clear(root)
	copy(left, a)
	limit := 0.0
	for k := range n {
		limit = math.Max(limit, exact*float64(n)*a[k*n+k])
	}
	for k := range n {
		pivot := left[k*n+k]
		if !(pivot > limit) {
			continue
		}
		for i := range n {
			root[i*n+k] = left[i*n+k] / math.Sqrt(pivot)
		}
		for i := range n {
			for j := range n {
				left[i*n+j] -= root[i*n+k] * root[j*n+k]
			}
		}
	}
	return largestOf(left) <= limit
}

// draw makes r = R e, of the covariance H where the numbers of e are independent and of variance
// one.
func (h *hessian) draw(r func(head int) []float64, e func(x []float64)) {
	e(h.x)
	multiplyBlocks(h.y, h.roots, h.x, h.width)
	h.scatter(h.y, r)
}

// unit is the variance of the residuals where H is 1: the square of the gradient, and the trace of
// H that divides it. They are 0 where H is.
func (h *hessian) unit() (squares, trace float64) {
	if trace = h.trace(); trace > 0 {
		return floats.Dot(h.grad, h.grad), trace
	}
	return 0, 0
}

// trace is the sum of the eigenvalues.
func (h *hessian) trace() (sum float64) {
	for i := range h.grad {
		sum += h.blocks[i*h.width+i%h.width]
	}
	return sum
}

// gather lays out by case what each output has.
func (h *hessian) gather(to []float64, of func(head int) []float64) {
	for k, i := range h.heads {
		x, n := of(i), h.length(k)
		for c := 0; c*n < len(x); c++ {
			copy(to[c*h.perCase+h.offsets[k]:], x[c*n:(c+1)*n])
		}
	}
}

// scatter is the inverse of gather.
func (h *hessian) scatter(from []float64, to func(head int) []float64) {
	for k, i := range h.heads {
		x, n := to(i), h.length(k)
		for c := 0; c*n < len(x); c++ {
			copy(x[c*n:(c+1)*n], from[c*h.perCase+h.offsets[k]:])
		}
	}
}

// length is what a case has of the output at a place.
func (h *hessian) length(k int) int {
	if k+1 < len(h.offsets) {
		return h.offsets[k+1] - h.offsets[k]
	}
	return h.perCase - h.offsets[k]
}

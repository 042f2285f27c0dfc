package program

import (
	"errors"
	"math"
)

// The numbers that Dropout and random nodes have drawn can be taken from the user's VM, which
// leaves a node's value with it, kept with inputs, and used again by runs of other programs that
// share the nodes.

// ErrOtherDraws says that the numbers that the user's VM has drawn are not to be had.
var ErrOtherDraws = errors.New("the VM's random numbers are not to be had")

// Draws reports whether an op draws random numbers.
func Draws(op Op) bool {
	switch op.(type) {
	case Dropout, Random:
		return true
	}
	return false
}

// Adopt is Forward of the whole batch with the numbers that the user's VM has drawn in its last
// run. The error wraps ErrOtherDraws if they are not there, or if a Dropout's result is not that of
// the present inputs. What a random node has drawn can't be told from what the VM has written over
// it.
func (r *Run[T]) Adopt() error {
	r.adopts = true
	defer func() { r.adopts = false }()
	return r.Forward(nil)
}

// KeepDrawn keeps the numbers that the last Forward of the whole batch has drawn. Runs that Use in
// draw the same.
func (in *Inputs[T]) KeepDrawn(run *Run[T]) {
	in.prepare()
	for i := range run.calls {
		c := &run.calls[i]
		var drawn []T
		switch c.node.Op.(type) {
		case Dropout:
			drawn = c.buf(0, len(c.out.Data))
		case Random:
			drawn = c.out.Data
		default:
			continue
		}
		in.own[c.node.Src] = append(in.own[c.node.Src][:0], drawn...)
		in.floats[c.node.Src] = in.own[c.node.Src]
	}
}

// DrawAnew says whether the following runs draw by their seed even where inputs hold numbers.
func (r *Run[T]) DrawAnew(on bool) { r.anew = on }

// draw computes the result of an op that draws.
func (r *Run[T]) draw(c *call[T], rows []int) error {
	if r.inputs != nil && !r.adopts && !r.anew {
		if kept := r.inputs.floats[c.node.Src]; kept != nil {
			return r.drawKept(c, kept, rows)
		}
	}
	if err := c.rule.forward(c); err != nil || !r.adopts {
		return err
	}
	return c.adopt()
}

// drawKept uses numbers that were drawn before.
func (r *Run[T]) drawKept(c *call[T], kept []T, rows []int) error {
	_, dropout := c.node.Op.(Dropout)
	into := c.out.Data
	if dropout {
		into = c.buf(0, len(c.out.Data))
	}
	if rows != nil && c.node.CaseAxis >= 0 {
		pickCases(into, kept, c.node, c.batch.all, rows)
	} else {
		copy(into, kept)
	}
	if dropout {
		return c.rule.reverse(c, 0, c.in[0].Data, c.out.Data)
	}
	return nil
}

// adopt replaces what the call has drawn by what the user's VM has.
func (c *call[T]) adopt() error {
	v := c.node.Src.Value()
	if v == nil {
		return ErrOtherDraws
	}
	result, err := floats[T](v, c.node.Shape)
	if err != nil {
		return ErrOtherDraws
	}
	op, dropout := c.node.Op.(Dropout)
	if !dropout {
		copy(c.out.Data, result)
		return nil
	}
	p, training := op.Settings()
	if !training || p == 0 {
		return nil
	}
	if !adoptMask(c.buf(0, len(result)), c.in[0].Data, result, T(1/(1-p))) {
		return ErrOtherDraws
	}
	return c.rule.reverse(c, 0, c.in[0].Data, c.out.Data)
}

// adoptMask finds the mask of a Dropout by its result: 0, or kept times its input. Where the input
// is 0 too, the mask stays as it is. It reports false if the result is neither.
func adoptMask[T Float](mask, input, result []T, kept T) bool {
	var size float64
	for _, x := range input {
		size = math.Max(size, math.Abs(float64(x)))
	}
	tolerance := math.Sqrt(epsilonOf[T]()) / 10 * size * float64(kept)
	for i, x := range input {
		switch {
		case result[i] != 0:
			mask[i] = kept
			if !(math.Abs(float64(result[i]-kept*x)) <= tolerance) { // true for NaN too
				return false
			}
		case x != 0:
			mask[i] = 0
		}
	}
	return true
}

// epsilonOf is the relative rounding error of T.
func epsilonOf[T Float]() float64 {
	if dtypeOf[T]().Size() == 4 {
		return 0x1p-24
	}
	return 0x1p-53
}

package kfac

import (
	"math"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// quadratic is the exact-Fisher model of the objective around the present parameters (Martens & Grosse 2015, sections 6.4 and 7),
//
//	M(delta) = 1/2 delta^T (F + (lambda+eta) I) delta + grad^T delta + h(theta),
//
// restricted to the span of two directions: the proposal Delta and the previous update delta0. F = E[J^T F_R J] is the Fisher
// matrix itself, not its approximation; J is the Jacobian of the outputs. All that is needed of it are the numbers u^T F v, which take
// one forward-mode sweep per direction and no backward pass (appendix C).
type quadratic[T program.Float] struct {
	run        *program.Run[T]
	outputs    []*output
	path       program.Path // of the parameters that the outputs can be differentiated by
	directions []program.Seed[T]

	// For each of the two directions and each output, J v and F_R J v on the cases being run.
	jv, fjv [2][][]float64
}

const (
	proposal = 0 // Delta
	previous = 1 // delta0
)

// prepare runs the forward pass on the cases that the products are to be estimated from.
func (q *quadratic[T]) prepare(rows []int) error {
	if err := q.run.Forward(rows); err != nil {
		return graphError(err)
	}
	for _, o := range q.outputs {
		if !read(o, q.run) {
			return &GraphError{Node: o.node.Name(), What: "reading the model's output", Err: ErrNotFinite,
				Hint: "a NaN or an infinity in the input or in the weights, or an overflow in between"}
		}
	}
	return nil
}

// along computes J v and F_R J v for v given by pick as the part of each parameter.
func (q *quadratic[T]) along(which int, params []*parameter[T], pick func(*parameter[T]) []T) error {
	q.directions = q.directions[:0]
	for _, p := range params {
		if p.given && p.leaf != nil && p.reached {
			q.directions = append(q.directions, program.Seed[T]{Node: p.leaf, Data: q.run.Pick(p.leaf, pick(p))})
		}
	}
	if err := q.run.Tangent(q.directions, q.path); err != nil {
		return graphError(err)
	}
	for len(q.jv[which]) < len(q.outputs) {
		q.jv[which], q.fjv[which] = append(q.jv[which], nil), append(q.fjv[which], nil)
	}
	for i, o := range q.outputs {
		n := len(o.z)
		if cap(q.jv[which][i]) < n {
			q.jv[which][i], q.fjv[which][i] = make([]float64, n), make([]float64, n)
		}
		q.jv[which][i], q.fjv[which][i] = q.jv[which][i][:n], q.fjv[which][i][:n]
		linalg.Convert(q.jv[which][i], q.run.Directional(o.node))
		o.head.fisherProduct(q.fjv[which][i], q.jv[which][i], o.z, o.cols)
	}
	return nil
}

// fisher is u^T F v for two of the directions.
func (q *quadratic[T]) fisher(u, v int) float64 {
	var s float64
	for i, o := range q.outputs {
		s += o.weight * floats.Dot(q.jv[u][i], q.fjv[v][i])
	}
	return s / float64(q.run.Cases())
}

// step is the minimum of the quadratic model over alpha Delta + mu delta0.
type step struct {
	alpha, mu float64
	change    float64 // M(delta) - M(0) = 1/2 grad^T delta
	curvature float64 // delta^T F delta, without damping
}

// span is the quadratic model over the two directions: F's part, the inner products of the directions, and the slopes.
type span struct {
	f, dots [2][2]float64
	slope   [2]float64 // grad^T Delta, grad^T delta0
}

// minimise solves for (alpha, mu), with damping c = lambda + eta, or for alpha alone if there is no previous update or the two directions
// are (nearly) parallel (sections 6.4 and 7).
func (s *span) minimise(c float64, momentum bool) step {
	a := s.f[0][0] + c*s.dots[0][0]
	b := s.f[0][1] + c*s.dots[0][1]
	d := s.f[1][1] + c*s.dots[1][1]
	if a == 0 && s.slope[0] == 0 {
		return step{} // the gradient is zero
	}
	r := step{alpha: -s.slope[0] / a}
	if det := a*d - b*b; momentum && det > parallel*a*d {
		r.alpha = -(d*s.slope[0] - b*s.slope[1]) / det
		r.mu = -(a*s.slope[1] - b*s.slope[0]) / det
	}
	r.change = (s.slope[0]*r.alpha + s.slope[1]*r.mu) / 2
	r.curvature = r.alpha*r.alpha*s.f[0][0] + 2*r.alpha*r.mu*s.f[0][1] + r.mu*r.mu*s.f[1][1]
	return r
}

// parallel: below this 1 - cos^2 (in the metric of the model) the two directions count as one.
const parallel = 1e-10

// shrunk is the step times a factor below 1.
func (r step) shrunk(by float64, m *span, c float64) step {
	r.alpha, r.mu, r.curvature = by*r.alpha, by*r.mu, by*by*r.curvature
	linear := r.alpha*m.slope[0] + r.mu*m.slope[1]
	norm := r.alpha*r.alpha*m.dots[0][0] + 2*r.alpha*r.mu*m.dots[0][1] + r.mu*r.mu*m.dots[1][1]
	r.change = linear + (r.curvature+c*norm)/2
	return r
}

func (r step) finite() bool {
	return !math.IsNaN(r.alpha+r.mu+r.change) && !math.IsInf(r.alpha+r.mu+r.change, 0)
}

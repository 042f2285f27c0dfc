package kfac

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// quadratic is the quadratic model of the objective around the present parameters, with the exact
// Fisher matrix (Martens & Grosse 2015, sections 6.4 and 7):
//
//	M(delta) = 1/2 delta^T (F + lambda L + H) delta + grad^T delta + h(theta).
//
// L is diagonal: each parameter's factor on lambda, 1 by default. H is the curvature of what the
// objective has beside the likelihood: each parameter's eta, and the cost's other terms.
//
// delta is restricted to the span of two directions: the proposal Delta and the previous update
// delta0. F = E[J^T F_R J] is the exact Fisher matrix, not its approximation. J is the Jacobian of
// the outputs. Only the Fisher products u^T F v are needed. They take one forward-mode sweep per
// direction and no backward pass (appendix C).
type quadratic[T program.Float] struct {
	directions []program.Seed[T]

	batch  batch[T] // chunks of the update in progress
	loaded int      // index of the chunk whose forward pass its model's run still holds, or -1
	cases  int      // number of cases that the products are estimated from
	// J v and F_R J v for each of the two directions, each chunk and each output. The slices may be
	// longer than needed.
	jv, fjv [2][][][]float64

	terms *terms[T] // of the cost, beside the likelihood; nil if there are none

	differenced []differenced[T] // parameters that forward mode does not reach; see differences
	slopes      [][]float64      // by output: the part of J v from differenced
}

const (
	proposal = 0 // Delta
	previous = 1 // delta0
)

// differenced is a parameter that reaches the outputs only through an op without a derivative.
// direction is its part of a direction.
type differenced[T program.Float] struct {
	param     *parameter[T]
	leaf      *program.Node
	direction []T
}

// prepare begins an update with the given chunks. others: the cost has terms beside the likelihood.
func (q *quadratic[T]) prepare(b batch[T], others bool) {
	q.batch, q.loaded, q.cases = b, -1, 0
	switch {
	case !others:
		q.terms = nil
	case q.terms == nil:
		q.terms = &terms[T]{}
	}
	if last := len(b) - 1; b[last].held {
		q.loaded = last
	}
	for which := range q.jv {
		q.jv[which], q.fjv[which] = grown(q.jv[which], len(b)), grown(q.fjv[which], len(b))
		for i := range b {
			n := len(b[i].plan.model.outputs)
			q.jv[which][i], q.fjv[which][i] = grown(q.jv[which][i], n), grown(q.fjv[which][i], n)
		}
	}
	for i := range b {
		if b[i].rows != nil {
			q.cases += len(b[i].rows)
		} else {
			q.cases += b[i].cases
		}
	}
}

// forget drops the references to the update's graphs.
func (q *quadratic[T]) forget() {
	q.batch = nil
	clear(q.directions[:cap(q.directions)])
	clear(q.differenced[:cap(q.differenced)])
	if q.terms != nil {
		q.terms.forget()
	}
}

// grown returns x extended to at least n elements.
func grown[E any](x []E, n int) []E {
	if len(x) < n {
		return append(x, make([]E, n-len(x))...)
	}
	return x
}

// load runs the forward pass of a chunk on the cases for the products, unless the run holds it
// already.
func (q *quadratic[T]) load(i int) error {
	if q.loaded == i {
		return nil
	}
	q.loaded = -1
	k := &q.batch[i]
	if err := k.plan.model.forward(k.conditions, k.rows); err != nil {
		return err
	}
	q.loaded = i
	return nil
}

// along computes J (sign v) and F_R J (sign v). v holds the part of each parameter. A part is nil
// if the parameter does not move.
func (q *quadratic[T]) along(which int, sign float64, params []*parameter[T], v [][]T) error {
	if q.terms != nil {
		q.terms.begin(which)
	}
	for i := range q.batch {
		k := &q.batch[i]
		if err := q.differences(i, params, v); err != nil {
			return err
		}
		if err := q.load(i); err != nil {
			return err
		}
		run := k.plan.model.run
		q.directions = q.directions[:0]
		for j, p := range params {
			if at := k.plan.places[p]; v[j] != nil && at.reached {
				q.directions = append(q.directions, program.Seed[T]{Node: at.leaf, Data: run.Pick(at.leaf, v[j])})
			}
		}
		if err := run.TangentOfOutputs(q.directions, k.plan.reach); err != nil {
			return graphError(err)
		}
		jv, fjv := q.jv[which][i], q.fjv[which][i]
		for h, o := range k.plan.model.outputs {
			jv[h], fjv[h] = linalg.Resized(jv[h], len(o.z)), linalg.Resized(fjv[h], len(o.z))
			for n, d := range run.Directional(o.node) {
				slope := float64(d)
				if len(q.differenced) > 0 {
					slope += q.slopes[h][n]
				}
				jv[h][n] = sign * slope
			}
			o.FisherProduct(fjv[h], jv[h], o.z, o.cols)
			k.each(h, k.rows, o.perCase(), func(j int, w float64) { fjv[h][j] *= w })
		}
		if k.hessian != nil {
			k.hessian.multiply(jv, fjv)
		}
		if q.terms != nil {
			if err := q.terms.add(k, which, sign, params, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// differences handles the parameters that reach the outputs of a chunk only through ops without a
// derivative. It lists them in differenced and computes their part of J v into slopes, by central
// differences of the outputs.
func (q *quadratic[T]) differences(chunk int, params []*parameter[T], v [][]T) error {
	k := &q.batch[chunk]
	model := k.plan.model
	q.differenced = q.differenced[:0]
	var size, length float64 // squared norms of weights and direction
	for j, p := range params {
		if at := k.plan.places[p]; v[j] != nil && at.leaf != nil && !at.reached {
			q.differenced = append(q.differenced, differenced[T]{p, at.leaf, v[j]})
			size += linalg.Dot64(p.weights.data, p.weights.data)
			length += linalg.Dot64(v[j], v[j])
		}
	}
	if len(q.differenced) == 0 {
		return nil
	}
	distance := differenceStep[T]() * math.Max(1, math.Sqrt(size)) / math.Sqrt(length)
	if math.IsInf(float64(T(distance)), 0) { // no direction, as where the gradient is zero
		q.differenced = q.differenced[:0]
		return nil
	}
	q.slopes = grown(q.slopes, len(model.outputs))
	model.held.on = false
	defer func() {
		for _, b := range q.differenced {
			model.whole.Bind(b.leaf, nil)
		}
	}()
	for _, sign := range []float64{1, -1} {
		for _, b := range q.differenced {
			at := slices.Clone(b.param.weights.data)
			linalg.Axpy(T(sign*distance), b.direction, at)
			if err := model.whole.Bind(b.leaf, at); err != nil {
				return graphError(err)
			}
		}
		q.loaded = -1
		if err := q.load(chunk); err != nil {
			return err
		}
		for h, o := range model.outputs {
			q.slopes[h] = linalg.Resized(q.slopes[h], len(o.z))
			for n, z := range o.z {
				if sign > 0 {
					q.slopes[h][n] = z / (2 * distance)
				} else {
					q.slopes[h][n] -= z / (2 * distance)
				}
			}
		}
	}
	q.loaded = -1
	return nil
}

// differenceStep returns the displacement, relative to the weights' norm, at which the sum of the
// truncation error and the rounding error of central differences is smallest.
func differenceStep[T program.Float]() float64 {
	if _, single := any(T(0)).(float32); single {
		return 1e-2
	}
	return 1e-4
}

// fisher returns u^T F v for two of the directions, summed over the cases.
func (q *quadratic[T]) fisher(u, v int) float64 {
	var s float64
	for i := range q.batch {
		k := &q.batch[i]
		for h := range k.plan.model.outputs {
			s += k.weights[h] * floats.Dot(q.jv[u][i][h], q.fjv[v][i][h])
		}
	}
	return s
}

// products adds to a span the Fisher products of the two directions, and those with the curvature
// of the cost's other terms, over the cases of all ranks, or fails with err.
func (q *quadratic[T]) products(m *span, on *ranks, err error) error {
	var f [2][2]float64
	var others terms[T]
	if q.terms != nil {
		others.sums = q.terms.sums
	}
	cases, all := float64(q.cases), float64(q.batch.cases())
	if err == nil {
		f[0][0] = q.fisher(proposal, proposal)
		if m.past {
			f[0][1] = q.fisher(proposal, previous)
			f[1][1] = q.fisher(previous, previous)
		}
	}
	h := &others.sums
	err = on.meet(atProducts, err, &f[0][0], &f[0][1], &f[1][1], &cases, &h[0][0], &h[0][1], &h[1][1], &all)
	beside := others.perCase(all)
	for i := range f {
		for j := i; j < 2; j++ {
			m.f[i][j] = f[i][j] / cases
			m.ridge[i][j] += beside[i][j]
		}
	}
	m.beside = beside[0][0]
	return err
}

// step is alpha Delta + mu delta0, usually the minimum of the quadratic model, with the model's
// values for it.
type step struct {
	alpha, mu float64
	change    float64 // M(delta) - M(0) = 1/2 grad^T delta
	curvature float64 // delta^T F delta, without damping
	squares   float64 // delta^T L delta
}

// span is the quadratic model over the two directions: the Fisher products, the inner products of
// the directions, and the slopes.
type span struct {
	f, dots, ridge [2][2]float64 // of F, of L and of H
	slope          [2]float64    // grad^T Delta, grad^T delta0
	metric         float64       // of Delta by the approximation of the Fisher matrix, with its damping
	beside         float64       // the part of H along Delta that is not in the approximation
	past           bool          // there is a previous update
	arbitrary      float64       // the objective's unit, where it has none of its own; 0: it counts as it is

	heading   float64  // grad^T heading
	curvature float64  // delta0^T F delta0 by this batch alone
	evidence  evidence // about the previous steps, by this batch too
	restart   bool     // the heading begins anew with the previous update
	back      float64  // what the step takes back of the previous update: in [-2, 0]
}

// spanOf computes the inner products of the proposal, the previous update and the gradients. It
// does not set f. eta is that of the parameters without one of their own.
func spanOf[T program.Float](blocks []*block[T], eta float64, past bool) (m span, err error) {
	m.past = past
	for _, b := range blocks {
		for i := range b.groups {
			if err := addGroup(&m, b, i, eta); err != nil {
				return m, err
			}
		}
	}
	if m.slope[0] > 0 {
		return m, errUphill
	}
	return m, nil
}

// addGroup adds the inner products of the parameters of a group that were given, in the group's
// coordinates.
func addGroup[T program.Float](m *span, b *block[T], group int, eta float64) error {
	g := &b.groups[group]
	if g.coords != nil && g.given() {
		if m.past {
			g.previous = linalg.Resized(g.previous, len(b.u[group]))
			g.weave(weightsIn, g.previous, func(p int) []T { return g.of(p, g.params[p].previous) })
		}
		s := innerProducts(b.u[group], b.v[group], g.previous, m.past)
		return m.add(s, &g.params[0].own, eta, g.params[0].name)
	}
	for k, p := range g.params {
		if p.given {
			s := innerProducts(g.places[k].direction, g.places[k].grad, g.of(k, p.previous), m.past)
			if err := m.add(s, &p.own, eta, p.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds inner products of a parameter.
func (m *span) add(s [5]float64, of *own, eta float64, param string) error {
	for _, term := range []struct {
		to     *[2][2]float64
		weight float64
	}{{&m.dots, of.lambda}, {&m.ridge, of.eta(eta)}} {
		term.to[0][0] += term.weight * s[0]
		term.to[0][1] -= term.weight * s[2]
		term.to[1][1] += term.weight * s[3]
	}
	m.slope[0] -= s[1]
	m.slope[1] += s[4]
	m.metric += of.rate * s[1]
	if math.IsInf(m.slope[0], 0) || math.IsNaN(m.slope[0]) {
		return gradientOverflow(param)
	}
	return nil
}

// errUphill: the directions of all parameters together point uphill. So the inverses are not
// positive definite any more, as in float32 where the damping is small and inputs have a large
// mean.
var errUphill = &ParamError{Param: "(all)", Op: "preconditioning", Err: ErrNotPosDef,
	Hint: "the inverses are lost in rounding: raise WithDamping, bring the inputs to mean 0 and variance 1, or train " +
		"in float64"}

// innerProducts returns U.U and grad.U for the direction U. If past, it also returns U.delta0,
// delta0.delta0 and grad.delta0. It reads the memory once.
func innerProducts[T program.Float](u, grad, delta0 []T, past bool) (s [5]float64) {
	linalg.Sums(len(u), s[:], func(from, to int, s []float64) {
		u, grad := u[from:to], grad[from:to]
		s[0], s[1] = linalg.Dot64(u, u), linalg.Dot64(grad, u)
		if past {
			v := delta0[from:to]
			s[2], s[3], s[4] = linalg.Dot64(u, v), linalg.Dot64(v, v), linalg.Dot64(grad, v)
		}
	})
	return s
}

func gradientOverflow(param string) error {
	return &ParamError{Param: param, Op: "multiplying gradient and direction", Err: ErrNotFinite,
		Hint: "the gradient is so large that its square overflows: look for outliers in the data"}
}

// unit is what alpha counts in: 1 without factors on the learning rate.
func (s *span) unit() float64 {
	if s.metric == 0 { // there is no gradient
		return 1
	}
	return s.metric / -s.slope[0]
}

// approximation returns the curvatures by the approximation F0 of the Fisher matrix, with its
// damping: F0 Delta is -grad. previous is that of the previous update.
func (s *span) approximation(previous float64) [2][2]float64 {
	return [2][2]float64{{s.metric, -s.slope[1] * s.unit()}, {0, previous}}
}

// bend returns the second derivative of M.
func (s *span) bend(lambda float64) (bend [2][2]float64) {
	for i := range bend {
		for j := range bend[i] {
			bend[i][j] = s.f[i][j] + lambda*s.dots[i][j] + s.ridge[i][j]
		}
	}
	return bend
}

// minimise returns the step with the smallest M (sections 6.4 and 7). It solves for alpha and mu.
// It solves for alpha alone if momentum is false or the two directions are nearly parallel.
func (s *span) minimise(lambda float64, momentum bool) step {
	bend := s.bend(lambda)
	a, b, d := bend[0][0], bend[0][1], bend[1][1]
	if a == 0 && s.slope[0] == 0 {
		return step{} // the gradient is zero
	}
	r := step{alpha: -s.slope[0] / a}
	if det := a*d - b*b; momentum && det > collinear*a*d {
		r.alpha = -(d*s.slope[0] - b*s.slope[1]) / det
		r.mu = -(a*s.slope[1] - b*s.slope[0]) / det
	}
	r.change = (s.slope[0]*r.alpha + s.slope[1]*r.mu) / 2
	r.curvature = r.form(&s.f)
	r.squares = r.form(&s.dots)
	return r
}

// minimiseTo returns the step with the smallest M and with the given curvature: the objective
// counts in the unit in which the minimum has it.
func (s *span) minimiseTo(curvature, lambda float64, momentum bool) step {
	r := s.minimise(lambda, momentum)
	if s.arbitrary = math.Sqrt(curvature / r.curvature); !(s.arbitrary > 0) || math.IsInf(s.arbitrary, 0) {
		s.arbitrary = 0
		return r
	}
	return r.scaled(s.arbitrary, 0, s, lambda)
}

// fit is 1 where the approximation of the Fisher matrix, with its damping, is exact along Delta,
// and less where it is too small. Without factors on the learning rate it is the alpha with the
// smallest M along Delta.
func (s *span) fit(lambda float64) float64 { return s.metric / (s.bend(lambda)[0][0] - s.beside) }

// form returns the quadratic form of the step with a matrix over the two directions. Only the upper
// triangle of m is read.
func (r step) form(m *[2][2]float64) float64 {
	return r.alpha*r.alpha*m[0][0] + 2*r.alpha*r.mu*m[0][1] + r.mu*r.mu*m[1][1]
}

// collinear: the two directions count as parallel if 1 - cos^2 of their angle, in the metric of the
// model, is below this.
const collinear = 1e-10

// scaled returns the step multiplied by a factor, plus a multiple of the previous update.
func (r step) scaled(by, back float64, m *span, lambda float64) step {
	r.alpha, r.mu = by*r.alpha, by*r.mu+back
	r.curvature, r.squares = r.form(&m.f), r.form(&m.dots)
	bend := (r.curvature + lambda*r.squares + r.form(&m.ridge)) / 2
	if m.arbitrary > 0 {
		bend /= m.arbitrary
	}
	r.change = r.alpha*m.slope[0] + r.mu*m.slope[1] + bend
	return r
}

func (r step) finite() bool {
	sum := r.alpha + r.mu + r.change
	return !math.IsNaN(sum) && !math.IsInf(sum, 0)
}

package kfac

import (
	"math"
	"slices"

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
	directions []program.Seed[T]

	chunks []chunk[T] // of the update in progress
	loaded int        // the chunk that its graph's run holds and no run was made since, or -1
	cases  int        // that the products are estimated from
	// J v and F_R J v for each of the two directions, each chunk and each output; longer where there have been more of them.
	jv, fjv [2][][][]float64

	beyond []*parameter[T] // parameters that forward mode does not reach; see differences
	slopes [][]float64     // by output
}

const (
	proposal = 0 // Delta
	previous = 1 // delta0
)

// prepare begins an update of these chunks.
func (q *quadratic[T]) prepare(chunks []chunk[T]) {
	q.chunks, q.loaded, q.cases = chunks, -1, 0
	if last := len(chunks) - 1; chunks[last].held {
		q.loaded = last
	}
	for which := range q.jv {
		q.jv[which], q.fjv[which] = grown(q.jv[which], len(chunks)), grown(q.fjv[which], len(chunks))
		for i, k := range chunks {
			q.jv[which][i], q.fjv[which][i] = grown(q.jv[which][i], len(k.graph.outputs)), grown(q.fjv[which][i], len(k.graph.outputs))
		}
	}
	for _, k := range chunks {
		if k.rows != nil {
			q.cases += len(k.rows)
		} else {
			q.cases += k.cases
		}
	}
}

// forget lets go of the graphs of the update before.
func (q *quadratic[T]) forget() {
	q.chunks = nil
	clear(q.directions[:cap(q.directions)])
}

// grown is x with at least n elements.
func grown[E any](x []E, n int) []E {
	if len(x) < n {
		return append(x, make([]E, n-len(x))...)
	}
	return x
}

// load runs the forward pass on the cases of a chunk that the products are to be estimated from, unless the run holds it already.
func (q *quadratic[T]) load(i int) error {
	if q.loaded == i {
		return nil
	}
	q.loaded = -1
	k := &q.chunks[i]
	run := k.graph.run
	run.Use(k.inputs)
	run.Reseed(k.seed)
	if err := run.Forward(k.rows); err != nil {
		return graphError(err)
	}
	for _, o := range k.graph.outputs {
		if !read(o, run) {
			return notFiniteOutput(o)
		}
	}
	q.loaded = i
	return nil
}

// along computes J v and F_R J v for v given by pick as the part of each parameter.
func (q *quadratic[T]) along(which int, params []*parameter[T], pick func(*parameter[T]) []T) error {
	for i := range q.chunks {
		g := q.chunks[i].graph
		if err := q.differences(i, params, pick); err != nil {
			return err
		}
		if err := q.load(i); err != nil {
			return err
		}
		q.directions = q.directions[:0]
		for _, p := range params {
			if at := g.places[p]; p.given && at.reached {
				q.directions = append(q.directions, program.Seed[T]{Node: at.leaf, Data: g.run.Pick(at.leaf, pick(p))})
			}
		}
		if err := g.run.Tangent(q.directions, g.reach); err != nil {
			return graphError(err)
		}
		jv, fjv := q.jv[which][i], q.fjv[which][i]
		for h, o := range g.outputs {
			jv[h], fjv[h] = sized(jv[h], len(o.z)), sized(fjv[h], len(o.z))
			for k, v := range g.run.Directional(o.node) {
				jv[h][k] = float64(v)
				if len(q.beyond) > 0 {
					jv[h][k] += q.slopes[h][k]
				}
			}
			o.head.FisherProduct(fjv[h], jv[h], o.z, o.cols)
		}
	}
	return nil
}

// differences computes, as slopes, the part of J v that belongs to the parameters behind ops without a derivative, which are put into beyond: by
// central differences of the outputs of a chunk.
func (q *quadratic[T]) differences(chunk int, params []*parameter[T], pick func(*parameter[T]) []T) error {
	g := q.chunks[chunk].graph
	q.beyond = q.beyond[:0]
	var size, length float64 // squared norms of weights and direction
	for _, p := range params {
		if at := g.places[p]; p.given && at.leaf != nil && !at.reached {
			q.beyond = append(q.beyond, p)
			size += linalg.Dot64(p.store.data, p.store.data)
			length += linalg.Dot64(pick(p), pick(p))
		}
	}
	if len(q.beyond) == 0 {
		return nil
	}
	q.slopes = grown(q.slopes, len(g.outputs))
	step := differenceStep[T]() * math.Max(1, math.Sqrt(size)) / math.Max(math.Sqrt(length), math.SmallestNonzeroFloat64)
	defer func() {
		for _, p := range q.beyond {
			g.run.Bind(g.places[p].leaf, nil)
		}
	}()
	for _, sign := range []float64{1, -1} {
		for _, p := range q.beyond {
			at := slices.Clone(p.store.data)
			linalg.Axpy(T(sign*step), pick(p), at)
			if err := g.run.Bind(g.places[p].leaf, at); err != nil {
				return graphError(err)
			}
		}
		q.loaded = -1
		if err := q.load(chunk); err != nil {
			return err
		}
		for h, o := range g.outputs {
			q.slopes[h] = sized(q.slopes[h], len(o.z))
			for k, z := range o.z {
				if sign > 0 {
					q.slopes[h][k] = z / (2 * step)
				} else {
					q.slopes[h][k] -= z / (2 * step)
				}
			}
		}
	}
	q.loaded = -1
	return nil
}

// differenceStep is the displacement, relative to the weights' norm, at which central differences lose least to truncation and rounding together.
func differenceStep[T program.Float]() float64 {
	if _, single := any(T(0)).(float32); single {
		return 1e-2
	}
	return 1e-4
}

// sized is x with n elements.
func sized(x []float64, n int) []float64 {
	if cap(x) < n {
		return make([]float64, n)
	}
	return x[:n]
}

// fisher is u^T F v for two of the directions.
func (q *quadratic[T]) fisher(u, v int) float64 {
	var s float64
	for i, k := range q.chunks {
		for h, o := range k.graph.outputs {
			s += o.weight * floats.Dot(q.jv[u][i][h], q.fjv[v][i][h])
		}
	}
	return s / float64(q.cases)
}

// products computes F's part of the quadratic model over the two directions.
func (q *quadratic[T]) products(m *span) {
	m.f[0][0] = q.fisher(proposal, proposal)
	if m.past {
		m.f[0][1] = q.fisher(proposal, previous)
		m.f[1][1] = q.fisher(previous, previous)
	}
}

// step is the minimum of the quadratic model over alpha Delta + mu delta0.
type step struct {
	alpha, mu float64
	change    float64 // M(delta) - M(0) = 1/2 grad^T delta
	curvature float64 // delta^T F delta, without damping
	squares   float64 // delta^T delta
}

// span is the quadratic model over the two directions: F's part, the inner products of the directions, and the slopes.
type span struct {
	f, dots [2][2]float64
	slope   [2]float64 // grad^T Delta, grad^T delta0
	past    bool       // there is a previous update
	// confirmed is the slope along Delta by the gradient of the batch before, brought to the present parameters; see noise.trust.
	confirmed float64
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
	if det := a*d - b*b; momentum && det > collinear*a*d {
		r.alpha = -(d*s.slope[0] - b*s.slope[1]) / det
		r.mu = -(a*s.slope[1] - b*s.slope[0]) / det
	}
	r.change = (s.slope[0]*r.alpha + s.slope[1]*r.mu) / 2
	r.curvature = r.form(&s.f)
	r.squares = r.form(&s.dots)
	return r
}

// form is the quadratic form of the step in a matrix over the two directions, whose upper triangle is given.
func (r step) form(m *[2][2]float64) float64 {
	return r.alpha*r.alpha*m[0][0] + 2*r.alpha*r.mu*m[0][1] + r.mu*r.mu*m[1][1]
}

// collinear: below this 1 - cos^2 (in the metric of the model) the two directions count as one.
const collinear = 1e-10

// shrunk is the step times a factor below 1.
func (r step) shrunk(by float64, m *span, c float64) step {
	r.alpha, r.mu = by*r.alpha, by*r.mu
	r.curvature, r.squares = by*by*r.curvature, by*by*r.squares
	r.change = r.alpha*m.slope[0] + r.mu*m.slope[1] + (r.curvature+c*r.squares)/2
	return r
}

func (r step) finite() bool {
	return !math.IsNaN(r.alpha+r.mu+r.change) && !math.IsInf(r.alpha+r.mu+r.change, 0)
}

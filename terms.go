package kfac

import (
	"math"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// terms is the curvature of what the cost has beside the likelihood, such as a weight decay of the
// user's own or the KL divergence of a variational autoencoder: the second derivatives of the cost
// with respect to the parameters, where the outputs stay as they are, over the two directions of
// the quadratic model. The Fisher matrix knows nothing of these.
type terms[T program.Float] struct {
	// Over the chunks, in the solver's units: the upper triangle, for Delta and delta0.
	sums [2][2]float64

	leaves     []*program.Node // scratch
	directions []program.Seed[T]
	previous   [][]T
}

// begin begins the sums for a direction: 0 for Delta, 1 for delta0, which comes first.
func (s *terms[T]) begin(which int) {
	s.sums[which][which], s.sums[0][1] = 0, 0
}

// forget drops the references to the update's graphs.
func (s *terms[T]) forget() {
	clear(s.leaves[:cap(s.leaves)])
	clear(s.directions[:cap(s.directions)])
	clear(s.previous[:cap(s.previous)])
}

// add adds what a chunk has along the direction sign v. The model's run holds the outputs.
func (s *terms[T]) add(k *chunk[T], which int, sign float64, params []*parameter[T], v [][]T) error {
	tail := k.graph.tail
	s.leaves, s.directions, s.previous = s.leaves[:0], s.directions[:0], s.previous[:0]
	for j, p := range params {
		if leaf := tail.run.Program().Node(k.plan.places[p].src); leaf != nil && v[j] != nil {
			s.leaves = append(s.leaves, leaf)
			s.directions = append(s.directions, program.Seed[T]{Node: leaf, Data: v[j]})
			s.previous = append(s.previous, p.previous)
		}
	}
	if len(s.leaves) == 0 {
		return nil
	}
	if err := tail.bend(k, s.leaves, s.directions); err != nil {
		return err
	}
	scale := k.scale()
	for i, leaf := range s.leaves {
		product := tail.run.GradientAlong(leaf)
		s.sums[which][which] += linalg.Dot64(s.directions[i].Data, product) / scale
		if which == 0 && s.previous[i] != nil {
			s.sums[0][1] += sign * linalg.Dot64(s.previous[i], product) / scale
		}
	}
	return nil
}

// bend finds how the gradients of a chunk's cost with respect to the leaves change along
// directions, at the outputs that the model's run holds.
func (t *lossTail[T]) bend(k *chunk[T], leaves []*program.Node, directions []program.Seed[T]) error {
	defer k.useTail()()
	if err := t.bindOutputs(k.plan.model, k.rows); err != nil {
		return graphError(err)
	}
	if err := t.run.Forward(nil); err != nil {
		return graphError(err)
	}
	path, inner := t.pathOfTerms(leaves)
	if err := t.run.Reverse([]program.Seed[T]{{Node: t.cost, Data: []T{1}}}, inner); err != nil {
		return graphError(err)
	}
	if err := t.run.Tangent(directions, path); err != nil {
		return graphError(err)
	}
	return graphError(t.run.Bend(path, false))
}

// pathOfTerms returns the path of the leaves, and that less the leaves: Bend reads the gradients of
// what is made of them, not their own.
func (t *lossTail[T]) pathOfTerms(leaves []*program.Node) (path, inner program.Path) {
	terms := &t.terms
	if !slices.Equal(terms.leaves, leaves) {
		terms.leaves = append(terms.leaves[:0], leaves...)
		terms.path = t.run.Program().Path(leaves...)
		terms.inner = terms.path.Without(leaves...)
	}
	return terms.path, terms.inner
}

// perCase returns the form per case. A term that is not convex may have no minimum: then it counts
// along each direction by itself, where it bends upwards.
func (s *terms[T]) perCase(cases float64) [2][2]float64 {
	a, b, d := s.sums[0][0]/cases, s.sums[0][1]/cases, s.sums[1][1]/cases
	if !(a >= 0 && d >= 0 && a*d >= b*b) {
		a, b, d = math.Max(a, 0), 0, math.Max(d, 0)
	}
	return [2][2]float64{{a, b}, {0, d}}
}

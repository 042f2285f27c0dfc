package kfac

import (
	"cmp"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// On several ranks, each computes the inverses of some blocks, and they send each other what comes
// of it: the inverses, or the directions that these make (KAISA; Pauloski et al. 2021).

// A home says which rank computes the inverse of a block, and which ones have it.
type home struct {
	rank int  // that computes it, from 1; 0 if each rank does so itself, and nothing is sent
	sole bool // only that rank has it, and sends the others the directions
}

// computes and has are what this rank does; so it is on ranks that are none.
func (h home) computes(r *ranks) bool { return r == nil || h.rank == 0 || h.rank == r.Rank()+1 }
func (h home) has(r *ranks) bool      { return !h.sole || h.computes(r) }

// A load is what the inverse of a block costs, in counts.
type load struct {
	operations float64 // to compute it
	inverse    float64 // numbers of the inverse
	work       float64 // operations for the directions
	direction  float64 // numbers of the directions
	needed     bool    // by all ranks
}

const (
	// worthSending: what takes fewer operations for each of its numbers is computed by all ranks.
	// The times for sending a number and for an operation have about this ratio.
	worthSending = 128
	// turns: an inverse makes so many directions, as a rule.
	turns = 20
	// eigenWork: an inverse with eigenproblems takes this many times the operations.
	eigenWork = 20
)

// A placement is a rule for homes.
type placement struct {
	fraction float64 // of all inverses, in the memory of a rank; 0: what takes less time
	worth    float64 // see worthSending
}

// homes finds homes for blocks on so many ranks, which may have work already. It takes the blocks
// that take longest first, each to the rank that has least to do.
func (p placement) homes(loads []load, busy []float64) []home {
	size := float64(len(busy))
	homes, order := make([]home, len(loads)), make([]int, len(loads))
	var all float64
	for i, l := range loads {
		order[i] = i
		all += l.inverse
	}
	// With most numbers of directions for a number of memory first.
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(loads[i].inverse*loads[j].direction, loads[j].inverse*loads[i].direction)
	})
	var common float64 // numbers that all ranks have
	for _, i := range order {
		if loads[i].needed {
			common += loads[i].inverse
		}
	}
	for _, i := range order {
		l := loads[i]
		switch with := common + l.inverse; {
		case l.needed:
		case p.fraction == 0:
			homes[i].sole = p.worth*(l.direction-l.inverse/turns) < l.work*(1-1/size)
		case with+(all-with)/size <= p.fraction*all*(1+1e-9):
			common = with
		default:
			homes[i].sole = true
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(loads[j].at(homes[j]), loads[i].at(homes[i]))
	})
	for _, i := range order {
		if l := loads[i]; homes[i].sole || l.operations >= p.worth*l.inverse {
			rank := slices.Index(busy, slices.Min(busy))
			homes[i].rank = rank + 1
			busy[rank] += l.at(homes[i])
		}
	}
	return homes
}

// at is what the rank at home has to do, in a step.
func (l load) at(h home) float64 {
	if h.sole {
		return l.operations/turns + l.work
	}
	return l.operations / turns
}

// abroad is an inverse that another rank has.
type abroad[T program.Float] struct {
	raised   int
	dampings []float64
}

func abroadOf[T program.Float](v curvature.Inverse[T]) abroad[T] {
	return abroad[T]{v.Raised(), v.Dampings()}
}

func (v abroad[T]) Raised() int                { return v.raised }
func (v abroad[T]) Dampings() []float64        { return v.dampings }
func (v abroad[T]) State(curvature.Visitor[T]) {}
func (v abroad[T]) Release()                   {}

func (v abroad[T]) Apply(_, _ [][]T) { panic("an inverse that another rank has") }

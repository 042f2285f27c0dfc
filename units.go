package kfac

import (
	"slices"

	"gonum.org/v1/gonum/floats"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Ranks whose cases have weights count them in common units, those of one process that has all
// cases. A rank of which no case counts, in some output or in all, has a part in that too.

// A rankShare is what a rank has of an output.
type rankShare struct {
	entries float64 // with a weight above 0
	mean    float64 // of their factors in its cost; of a policy, of the declared weights
	unit    float64 // the factor there of the weight 1; 0: it can't be told
}

// rankUnits finds the unit of each rank's cost and of each output, so that the unit of an output in
// a rank's cost is their product. cases are those of the ranks. An output that is found on two
// ranks tells how their costs compare. Where none does they are taken to be means over cases.
func rankUnits(shares [][]rankShare, cases []float64) (ofRank, ofOutput []float64) {
	ofRank, ofOutput = make([]float64, len(shares)), make([]float64, len(shares[0]))
	for start := range shares {
		if ofRank[start] > 0 {
			continue
		}
		ofRank[start] = cases[0] / cases[start]
		for found := true; found; {
			found = false
			for rank, row := range shares {
				for i, s := range row {
					switch {
					case s.unit == 0 || (ofRank[rank] > 0) == (ofOutput[i] > 0):
						continue
					case ofRank[rank] > 0:
						ofOutput[i] = s.unit / ofRank[rank]
					default:
						ofRank[rank] = s.unit / ofOutput[i]
					}
					found = true
				}
			}
		}
	}
	return ofRank, ofOutput
}

// rankShares are this rank's shares of the outputs of a chunk.
func (k *chunk[T]) rankShares() ([]rankShare, error) {
	g := k.graph
	shares := make([]rankShare, len(k.plan.model.outputs))
	for i, o := range k.plan.model.outputs {
		entries := g.tail.leaves[i].Size()
		declared, err := declaredWeights(o, g.tail, entries)
		if err != nil {
			return nil, err
		}
		s := rankShare{mean: g.scales[i], unit: g.scales[i]}
		s.entries, _ = g.weighting.sum(i, entries)
		switch {
		case o.policy:
			s.mean *= meanAbove(declared)
		case s.entries == 0:
			s.unit = 0
		case declared != nil:
			s.unit /= meanAbove(declared)
		}
		shares[i] = s
	}
	return shares, nil
}

// meanAbove is the mean of the numbers above 0, or 1 if there are none.
func meanAbove(x []float64) float64 {
	n, sum := 0.0, 0.0
	for _, v := range x {
		if v > 0 {
			n, sum = n+1, sum+v
		}
	}
	if n == 0 {
		return 1
	}
	return sum / n
}

// share shares what a chunk's cases count with the other ranks.
func (k *chunk[T]) share(on *ranks) error {
	if k.shard == nil {
		return nil
	}
	g := k.graph
	scales, weighed, err := k.shard.count(k.cases, slices.Contains(g.tail.weighs, true), k.scales, on)
	switch {
	case err != nil:
		return err
	case weighed && on.others():
		err = k.agree(on)
	default:
		g.units = g.units.likeFirst(scales, rounding[T]())
	}
	k.units = g.units
	return firstOf(err, k.shard.place(k.cases, on))
}

// agree gives a chunk of which some cases have weights, on some rank, the units of all ranks.
func (k *chunk[T]) agree(on *ranks) error {
	g := k.graph
	own, err := k.rankShares()
	if err := on.meet(atUnits, err); err != nil {
		return err
	}
	const columns = 4
	row := []float64{float64(k.plan.model.Cases)}
	for i, s := range own {
		row = append(row, s.entries, s.mean, s.unit, oneIf(g.tail.weighs[i]))
	}
	table := on.table(row...)
	if on.broken != nil {
		return on.broken
	}
	cases, shares := make([]float64, on.Size()), make([][]rankShare, on.Size())
	for rank := range shares {
		all := table[rank*len(row):]
		cases[rank] = all[0]
		for i := range own {
			s := all[1+columns*i:]
			shares[rank] = append(shares[rank], rankShare{s[0], s[1], s[2]})
			g.tail.weighs[i] = g.tail.weighs[i] || s[3] > 0
		}
	}
	ofRank, ofOutput := rankUnits(shares, cases)
	return k.weighAs(own, ofRank[on.Rank()], meansOf(shares, ofRank), ofOutput)
}

// meansOf are the mean weights of all ranks, by output.
func meansOf(shares [][]rankShare, ofRank []float64) []float64 {
	means := make([]float64, len(shares[0]))
	for i := range means {
		n, sum := 0.0, 0.0
		for rank, row := range shares {
			n, sum = n+row[i].entries, sum+row[i].entries*(row[i].mean/ofRank[rank])
		}
		if n > 0 {
			means[i] = sum / n
		}
	}
	return means
}

// weighAs weighs the outputs of a chunk by the means of all ranks. unit is that of this rank's
// cost.
func (k *chunk[T]) weighAs(own []rankShare, unit float64, means, ofOutput []float64) error {
	g, m := k.graph, k.plan.model
	u := units{make([]float64, len(own)), make([]float64, len(own)), g.weighting}
	u.entries = slices.Clone(u.entries)
	inAll := slices.Clone(means) // of a policy, the weights don't count
	for i, o := range m.outputs {
		if o.policy {
			inAll[i] = ofOutput[i]
		}
	}
	for i, o := range m.outputs {
		switch {
		case means[i] > 0 && u.entries != nil && u.entries[i] != nil:
			floats.Scale(own[i].mean/(unit*means[i]), u.entries[i])
		case means[i] == 0 && u.entries != nil && g.tail.switchedOff():
			u.entries[i] = nil // of a factor that is 0 for a time
		}
		if inAll[i] == 0 && (len(g.tail.movers) == 0 && !g.tail.masked || slices.Max(inAll) == 0) {
			return noGradient(o)
		}
		u.scales[i], u.weights[i] = unit*inAll[i], inAll[i]/slices.Max(inAll)
	}
	u.findCases(m.outputs, m.Cases)
	g.units, k.cases = u, u.count(m.Cases)
	if m.Cases == 1 && k.cases == 0 { // the run of a single case can't do without it
		return &GraphError{Node: program.NameOf(g.cost), What: "leaving out the rank's only case, of the weight 0",
			Err: ErrEmpty, Hint: "give each rank two cases or more"}
	}
	return nil
}

package layers

import (
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Recurrent reports whether a layer is used at several time steps, by as many rows at each.
// Those of one step and the next can be paired then.
func (l *Layer) Recurrent() bool {
	if len(l.Sites) < 2 || l.Tied != nil || l.Reduce || l.Channels > 0 || l.DiagonalA || l.DiagonalG {
		return false
	}
	for _, s := range l.Sites {
		if s.Rows != l.Sites[0].Rows {
			return false
		}
	}
	return true
}

// stepsOf is the length of the longest chain of uses each of which depends on the one before.
// The uses are in the order of the graph's construction.
func stepsOf(sites []Site, p *program.Program) int {
	steps, longest := make([]int, len(sites)), 1
	for i, s := range sites {
		steps[i]++
		longest = max(longest, steps[i])
		if i+1 == len(sites) {
			break
		}
		path := p.Path(s.Output)
		for j := i + 1; j < len(sites); j++ {
			if path.Has(sites[j].Input) {
				steps[j] = max(steps[j], steps[i])
			}
		}
	}
	return longest
}

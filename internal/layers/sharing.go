package layers

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Sharing says how the positions of a case are treated at which a weight is shared
// (Eschenhagen et al. 2023).
type Sharing int

const (
	// Auto reduces where the graph shows that positions are summed before the outputs.
	// Else it expands.
	Auto Sharing = iota
	// Expand treats positions as if they were cases.
	Expand
	// Reduce takes the positions of a case together, wherever that is possible.
	Reduce
)

// reduces decides between KFAC-reduce (true) and KFAC-expand.
func (l *Layer) reduces(p *program.Program, s Sharing) bool {
	return l.reducible(p) && (s == Reduce || s == Auto && l.positionsSummed(p))
}

// reducible reports whether the positions of a case can be taken together.
// The layer has to be used at several of each case, and its rows to lie case after case.
func (l *Layer) reducible(p *program.Program) bool {
	oneCase := p.Cases == 1
	if p.Whole != "" && !oneCase || l.Tied != nil || l.Positions(p.Cases) < 2 {
		return false
	}
	return !slices.ContainsFunc(l.Sites, func(s Site) bool {
		return s.Lookup || s.OneHot ||
			!oneCase && s.groups() > 1
	})
}

// CaseGroups is the number of groups that the rows of all uses lie in, of as many rows for each
// case, case after case. It is 0 where cases can't be told apart.
func (l *Layer) CaseGroups(p *program.Program) (groups int) {
	if p.Cases == 1 {
		return 1
	}
	if p.Whole != "" {
		return 0
	}
	perGroup := 0
	for _, s := range l.Sites {
		n := s.groups()
		if s.Output.CaseAxis < 0 || perGroup > 0 && s.Rows != perGroup*n {
			return 0
		}
		groups, perGroup = groups+n, s.Rows/n
	}
	return groups
}

// positionsSummed reports whether the graph shows that the positions of all the layer's uses are
// summed, or averaged, before the outputs, and that nothing mixes them before that.
// Only dense layers, elementwise functions and changes of shape may lie in between.
func (l *Layer) positionsSummed(p *program.Program) bool {
	for _, s := range l.Sites {
		if !summed(s.Output, s.features(), p) {
			return false
		}
	}
	return true
}

// summed reports whether all that depends on n sums over its positions.
// These are the axes that are neither that of the cases nor that of the features.
func summed(n *program.Node, features int, p *program.Program) bool {
	if features < 0 || slices.Contains(p.Outputs, n) {
		return false
	}
	for _, u := range distinct(n.Users) {
		if !summedBy(n, u, features, p) {
			return false
		}
	}
	return len(n.Users) > 0
}

func summedBy(n, user *program.Node, features int, p *program.Program) bool {
	switch op := user.Op.(type) {
	case program.Reshape:
		return summed(user, reshaped(n.Shape, features, user.Shape), p)
	case program.Transpose:
		return summed(user, slices.Index(op.Perm, features), p)
	case program.Unary, program.Dropout:
		return summed(user, features, p)
	case program.Binary:
		return user.Size() == n.Size() && summed(user, features, p)
	case program.SizeOf: // looks at the shape only, as Mean does
		return true
	case program.MatMul:
		rows := user.Kids[0] == n && !op.TransA && features == 1
		columns := user.Kids[1] == n && !op.TransB && features == 0
		return rows != columns && summed(user, features, p)
	case program.Tensordot:
		rows := user.Kids[0] == n && slices.Equal(op.A, []int{features}) && len(user.Shape) == len(n.Shape)
		return rows && user.Kids[1] != n && summed(user, len(user.Shape)-1, p)
	case program.GlobalAvgPool:
		return features == 1
	case program.Sum:
		for axis, d := range n.Shape {
			position := axis != features && axis != n.CaseAxis
			if d > 1 && position != slices.Contains(op.Along, axis) {
				return false
			}
		}
		return true
	}
	return false
}

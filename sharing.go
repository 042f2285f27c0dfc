package kfac

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// reducible reports whether the layer is used at several positions of each case, and its rows lie case after case, so that the positions of a case can be taken
// together.
func reducible(l *layer, p *program.Program) bool {
	oneCase := p.Cases == 1
	if p.Whole != "" && !oneCase || l.tied != nil || l.positions(p.Cases) < 2 {
		return false
	}
	return !slices.ContainsFunc(l.sites, func(s site) bool {
		return s.lookup || s.oneHot || !oneCase && !s.outputColumns && size(s.output.Shape[:s.output.CaseAxis]) > 1
	})
}

// positionsSummed reports whether the positions of all the layer's uses are summed (or averaged) before the outputs, and nothing mixes them before that, in
// a way that the graph shows: only dense layers, elementwise functions and changes of shape lie in between.
func positionsSummed(l *layer, p *program.Program) bool {
	for _, s := range l.sites {
		features := len(s.output.Shape) - 1
		if s.outputColumns {
			features--
		}
		if !summed(s.output, features, p) {
			return false
		}
	}
	return true
}

// summed reports whether all that depends on n sums over its positions: the axes that are neither that of the cases nor that of the features.
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
			if position && d > 1 && !slices.Contains(op.Along, axis) || !position && d > 1 && slices.Contains(op.Along, axis) {
				return false
			}
		}
		return true
	}
	return false
}

package program

import "slices"

// A Path is the set of nodes that depend on some given ones, these included.
type Path struct {
	on []bool // by Node.index
}

// Path finds the nodes of the program that depend on the nodes from.
func (p *Program) Path(from ...*Node) Path {
	path := Path{make([]bool, len(p.Nodes))}
	for _, n := range from {
		path.on[n.index] = true
	}
	for i, n := range p.Nodes {
		for _, k := range n.Kids {
			path.on[i] = path.on[i] || path.on[k.index]
		}
	}
	return path
}

// Has reports whether n lies on the path.
func (p Path) Has(n *Node) bool { return p.on[n.index] }

// Without is the path less the given nodes. Sweeps back along it compute no gradients of these.
func (p Path) Without(nodes ...*Node) Path {
	less := Path{slices.Clone(p.on)}
	for _, n := range nodes {
		less.on[n.index] = false
	}
	return less
}

// toward is the part of the path that leads to the given nodes, these included.
func (p Path) toward(program *Program, to ...*Node) Path {
	leads := make([]bool, len(p.on))
	for _, n := range to {
		leads[n.index] = true
	}
	for i := len(leads) - 1; i >= 0; i-- {
		leads[i] = leads[i] && p.on[i]
		if leads[i] {
			for _, k := range program.Nodes[i].Kids {
				leads[k.index] = true
			}
		}
	}
	return Path{leads}
}

package program

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

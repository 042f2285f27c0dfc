package program

import (
	"math"
	"slices"
	"sync/atomic"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// input is an input of a machine with the checksum of what it held in the last Run.
type input[T Float] struct {
	node *Node
	sum  uint64
}

// watch lists the inputs of the machine.
func (m *Machine[T]) watch() {
	for _, s := range m.stages() {
		for _, n := range s.run.p.Nodes {
			known := func(in input[T]) bool { return in.node.Src == n.Src }
			if n.IsLeaf() && n.Src.Op() == nil && !slices.ContainsFunc(m.inputs, known) {
				m.inputs = append(m.inputs, input[T]{node: n})
			}
		}
	}
}

// Remember takes the checksums of what the inputs hold.
func (m *Machine[T]) Remember() {
	for i := range m.inputs {
		m.inputs[i].sum, _ = m.checksum(m.inputs[i].node)
	}
}

// Changed is an input that holds something else than when Remember was called, or nil.
func (m *Machine[T]) Changed() *gorgonia.Node {
	for _, in := range m.inputs {
		if sum, err := m.checksum(in.node); err != nil || sum != in.sum {
			return in.node.Src
		}
	}
	return nil
}

// checksum is one of the present value of an input.
func (m *Machine[T]) checksum(n *Node) (uint64, error) {
	v, err := valueOf(n)
	if err != nil {
		return 0, err
	}
	if n.Dtype != dtypeOf[T]() {
		c := &m.stageOf(n).run.calls[n.index]
		ints, err := integers(v, n.Shape, c.intBuf(1, 0))
		c.intBufs[1] = ints
		return sumOf(ints, func(x int) uint64 { return uint64(x) }), err
	}
	data, err := floats[T](v, n.Shape)
	if err != nil {
		return 0, err
	}
	switch data := any(data).(type) {
	case []float32:
		return sumOf(data, func(x float32) uint64 { return uint64(math.Float32bits(x)) }), nil
	default:
		return sumOf(data.([]float64), math.Float64bits), nil
	}
}

func (m *Machine[T]) stageOf(n *Node) *stage[T] {
	if m.first.run.p.Node(n.Src) == n {
		return m.first
	}
	return m.rest
}

// sumOf is a sum of the elements' bits, each multiplied by an odd number of its place. It tells any
// change of one element, and any exchange of two in float32.
func sumOf[E any](x []E, bits func(E) uint64) uint64 {
	part := func(from, to int) (sum uint64) {
		weight := uint64(2*from + 1)
		for _, v := range x[from:to] {
			sum += bits(v) * weight
			weight += 2
		}
		return sum
	}
	if len(x) < 2*parallel.Grain {
		return part(0, len(x))
	}
	var sum atomic.Uint64
	parallel.For(len(x), parallel.Grain, func(from, to int) { sum.Add(part(from, to)) })
	return sum.Load()
}

package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A hook captures what a block observes in a run: rows of inputs a and of gradients g,
// backpropagated from sampled targets. A hook belongs to one graph. The block and its buffers are
// kept from graph to graph.
type hook[T program.Float] interface {
	// observed returns the nodes whose gradients are captured.
	observed() []*program.Node
	// capture collects the rows from a run after its sampled backward sweep. The rows are memory of
	// the run or of the buffers. There is one buffer for each layer or parameter of the block.
	capture(run *program.Run[T], buffers []rowBuffer[T]) []curvature.Rows[T]
}

// rowBuffer holds rows that are not contiguous in a run.
type rowBuffer[T program.Float] struct {
	a, g    []T
	lookups []int

	meanA, sumG []T // rows reduced over positions

	atilde, gtilde []T // rows in other coordinates
}

// layerHook captures the inputs and gradients of one layer or of a chain of layers. A tied weight
// counts as two layers.
type layerHook[T program.Float] struct {
	layers []*layers.Layer
	rows   []curvature.Rows[T]

	// By layer: the coordinates of its rows, nil for its own; whether they are those of data; and
	// the output that is the layer's, or -1.
	coords []*coordinates[T]
	ofData []bool
	head   []int

	unlearned []bool // by layer: no parameter is above its inputs
}

// newLayerHook makes the hook of one layer or of a chain of layers.
func newLayerHook[T program.Float](chain ...*layers.Layer) *layerHook[T] {
	h := &layerHook[T]{}
	for _, l := range chain {
		h.layers = append(h.layers, l)
		if l.Tied != nil {
			h.layers = append(h.layers, l.Tied)
		}
	}
	h.rows = make([]curvature.Rows[T], len(h.layers))
	return h
}

func (h *layerHook[T]) observed() (nodes []*program.Node) {
	for _, l := range h.layers {
		for _, s := range l.Sites {
			nodes = append(nodes, s.Output)
		}
	}
	return nodes
}

func (h *layerHook[T]) capture(run *program.Run[T], buffers []rowBuffer[T]) []curvature.Rows[T] {
	for i, l := range h.layers {
		h.rows[i] = captureLayer(l, run, &buffers[i])
		if i < len(h.coords) && !h.coords[i].own() {
			h.rows[i] = buffers[i].standardised(h.rows[i], h.coords[i], l.In)
		}
		h.rows[i].Steps, h.rows[i].Groups = len(l.Sites), l.CaseGroups(run.Program())
		if l.Patches != nil {
			h.rows[i].Patches = (*curvature.Grid)(l.Patches)
		}
	}
	return h.rows
}

func captureLayer[T program.Float](l *layers.Layer, run *program.Run[T], buf *rowBuffer[T]) curvature.Rows[T] {
	if l.Reduce {
		buf.reduce(l, run)
		return curvature.Rows[T]{A: buf.meanA, G: buf.sumG, Cases: run.Cases()}
	}
	if s := l.Sites[0]; len(l.Sites) == 1 && !s.InputColumns && !s.OutputColumns && !s.Lookup {
		a, g := layers.Of(s, run.Value(s.Input).Data), layers.Of(s, run.Gradient(s.Output))
		return curvature.Rows[T]{A: a, G: g, Cases: run.Cases()}
	}
	buf.a, buf.g, buf.lookups = buf.a[:0], buf.g[:0], buf.lookups[:0]
	for _, s := range l.Sites {
		buf.append(l, s, run)
	}
	return curvature.Rows[T]{A: buf.a, G: buf.g, Lookups: buf.lookups, Cases: run.Cases()}
}

// standardised returns rows in other coordinates.
func (c *rowBuffer[T]) standardised(r curvature.Rows[T], in *coordinates[T], inputs int) curvature.Rows[T] {
	if in.scale > 0 {
		c.atilde = in.standard(c.atilde, r.A, inputs)
		r.A = c.atilde
	}
	if in.unit > 0 {
		c.gtilde = append(c.gtilde[:0], r.G...)
		linalg.Scale(T(in.unit), c.gtilde)
		r.G = c.gtilde
	}
	return r
}

// settle finds the coordinates of the layers from a run of the first batch, of which ranks may have
// parts. units are those of the errors, by output.
func (h *layerHook[T]) settle(run *program.Run[T], units []float64, on *ranks) {
	for i, c := range h.coords {
		if c == nil || c.settled {
			continue
		}
		*c = coordinates[T]{}
		l := h.layers[i]
		if h.ofData[i] {
			var buf rowBuffer[T]
			for _, s := range l.Sites {
				buf.append(l, s, run)
			}
			x := make([]float64, len(buf.a))
			linalg.Convert(x, buf.a)
			c.standardise(x, l.In, l.Bias != nil, on)
		}
		if h.head[i] >= 0 && units[h.head[i]] != 1 {
			c.unit = units[h.head[i]]
		}
	}
}

// append adds the rows of one use of the layer.
func (c *rowBuffer[T]) append(l *layers.Layer, s layers.Site, run *program.Run[T]) {
	g := layers.Of(s, run.Gradient(s.Output))
	rows := len(g) / l.Out
	if s.Lookup {
		c.lookups = append(c.lookups, run.Value(s.Input).Ints...)
	} else {
		c.a = appendRows(c.a, layers.Of(s, run.Value(s.Input).Data), rows, l.In, s.InputColumns)
	}
	c.g = appendRows(c.g, g, rows, l.Out, s.OutputColumns)
}

// reduce computes the mean of a and the sum of g over the positions of each case.
func (c *rowBuffer[T]) reduce(l *layers.Layer, run *program.Run[T]) {
	cases := run.Cases()
	c.meanA, c.sumG = zeros(c.meanA, cases*l.In), zeros(c.sumG, cases*l.Out)
	positions := 0
	for _, s := range l.Sites {
		c.a, c.g = c.a[:0], c.g[:0]
		c.append(l, s, run)
		rows := len(c.g) / l.Out
		perCase := rows / cases
		positions += perCase
		for r := range rows {
			n := r / perCase
			linalg.Axpy(1, c.a[r*l.In:(r+1)*l.In], c.meanA[n*l.In:(n+1)*l.In])
			linalg.Axpy(1, c.g[r*l.Out:(r+1)*l.Out], c.sumG[n*l.Out:(n+1)*l.Out])
		}
	}
	linalg.Scale(1/T(positions), c.meanA)
}

// errors appends to rows the gradients with respect to a layer's outputs. run must have swept back
// the gradient of the objective.
func (h *layerHook[T]) errors(rows []T, run *program.Run[T]) []T {
	l := h.layers[0]
	for _, s := range l.Sites {
		g := layers.Of(s, run.Gradient(s.Output))
		rows = appendRows(rows, g, len(g)/l.Out, l.Out, s.OutputColumns)
	}
	if c := h.coords[0]; c != nil && c.unit > 0 {
		linalg.Scale(T(c.unit), rows)
	}
	return rows
}

// appendRows appends a matrix of rows x cols to dst. If transposed, src is cols x rows.
func appendRows[T program.Float](dst, src []T, rows, cols int, transposed bool) []T {
	n := len(dst)
	dst = append(dst, src...)
	if transposed {
		linalg.Transpose(dst[n:], src, cols, rows)
	}
	return dst
}

// zeros returns buf resized to n elements, all zero.
func zeros[T program.Float](buf []T, n int) []T {
	buf = linalg.Resized(buf, n)
	clear(buf)
	return buf
}

// parameterHook captures the gradient of a parameter outside layers.
type parameterHook[T program.Float] struct {
	leaf    *program.Node
	at      []int // the elements of it that are observed; nil for all
	entries int   // number of entries of its diagonal
	ofAll   int   // cases of all ranks, if the gradient is theirs; 0: it is that of the run
	rows    [1]curvature.Rows[T]
}

func newParameterHook[T program.Float](leaf *program.Node, at []int) *parameterHook[T] {
	return &parameterHook[T]{leaf: leaf, at: at, entries: diagonalEntries(leaf)}
}

// diagonalEntries returns the number of entries of a parameter's diagonal: one for each element. If
// the parameter has separate elements for each case, it is one for each element of a case.
func diagonalEntries(leaf *program.Node) int {
	if leaf.CaseAxis == 0 {
		return leaf.Size() / leaf.Shape[0]
	}
	return leaf.Size()
}

func (h *parameterHook[T]) observed() []*program.Node { return []*program.Node{h.leaf} }

// capture returns the gradient of the parameter. If the parameter has separate elements for each
// case, row i depends on case i only. The rows that were run then stand for all rows.
func (h *parameterHook[T]) capture(run *program.Run[T], buffers []rowBuffer[T]) []curvature.Rows[T] {
	grad, cases := run.Gradient(h.leaf), run.Cases()
	switch {
	case h.byCase(grad):
		cases = len(grad) / h.entries * (h.leaf.Size() / h.entries)
	case h.ofAll > 0:
		cases = h.ofAll
	}
	if h.at != nil {
		buffers[0].g = linalg.Resized(buffers[0].g, len(h.at))
		gather(buffers[0].g, grad, h.at)
		grad = buffers[0].g
	}
	h.rows[0] = curvature.Rows[T]{G: grad, Cases: cases}
	return h.rows[:]
}

// byCase reports whether the gradient has separate elements for each case.
func (h *parameterHook[T]) byCase(grad []T) bool {
	return len(grad) != h.entries || h.leaf.CaseAxis == 0
}

// elementwiseHook captures each case's contribution to the gradients of parameters that act element
// by element.
type elementwiseHook[T program.Float] struct {
	of   layers.Elementwise
	rows []curvature.Rows[T]
}

func newElementwiseHook[T program.Float](of layers.Elementwise) *elementwiseHook[T] {
	return &elementwiseHook[T]{of, make([]curvature.Rows[T], len(of.Params))}
}

func (h *elementwiseHook[T]) observed() []*program.Node { return h.of.Params }

func (h *elementwiseHook[T]) capture(run *program.Run[T], buffers []rowBuffer[T]) []curvature.Rows[T] {
	for k, n := range h.of.Params {
		g := zeros(buffers[k].g, run.CasesApart()*n.Size())
		run.GradientByCase(h.of.Uses[k], g)
		buffers[k].g = g
		h.rows[k] = curvature.Rows[T]{G: g, Cases: run.Cases()}
	}
	return h.rows
}

package learn

import (
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Net is a model in the making: its graph, with what is often used in one.
type Net struct {
	Options
	*Model
	Graph *gorgonia.ExprGraph
}

// NewNet begins a model.
func NewNet(o Options) *Net {
	return &Net{Options: o, Model: &Model{}, Graph: gorgonia.NewGraph()}
}

// Input adds an input to those of the model. shape is that of a case.
func (n *Net) Input(name string, shape ...int) *gorgonia.Node {
	shape = append([]int{n.Batch}, shape...)
	in := gorgonia.NewTensor(n.Graph, n.Dtype, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name))
	n.Inputs = append(n.Inputs, in)
	return in
}

// IDs adds an input of several whole numbers for each case.
func (n *Net) IDs(each int) *gorgonia.Node {
	in := gorgonia.NewVector(n.Graph, tensor.Int, gorgonia.WithShape(n.Batch*each), gorgonia.WithName("ids"))
	n.Inputs = append(n.Inputs, in)
	return in
}

// Param adds a parameter to those of the model.
func (n *Net) Param(name string, init gorgonia.InitWFn, shape ...int) *gorgonia.Node {
	p := gorgonia.NewTensor(n.Graph, n.Dtype, len(shape), gorgonia.WithShape(shape...),
		gorgonia.WithName(name), gorgonia.WithInit(init))
	n.Params = append(n.Params, p)
	return p
}

// Dense is x w + b.
func (n *Net) Dense(name string, x *gorgonia.Node, units int) *gorgonia.Node {
	w := n.Param("w"+name, n.Init, x.Shape()[1], units)
	b := n.Param("b"+name, gorgonia.Zeroes(), units)
	return gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(x, w)), b, nil, []byte{0}))
}

// Gate is x wx + h wh + b of a recurrent net, the same parameters at each call.
func (n *Net) Gate(name string, in, hidden int) func(x, h *gorgonia.Node) *gorgonia.Node {
	wx := n.Param("wx"+name, n.Init, in, hidden)
	wh := n.Param("wh"+name, n.Init, hidden, hidden)
	b := n.Param("b"+name, gorgonia.Zeroes(), hidden)
	return func(x, h *gorgonia.Node) *gorgonia.Node {
		sum := gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, wx)), gorgonia.Must(gorgonia.Mul(h, wh))))
		return gorgonia.Must(gorgonia.BroadcastAdd(sum, b, nil, []byte{0}))
	}
}

// Keep has the next sequences begin with the state in which these end.
func (n *Net) Keep(first, last *gorgonia.Node) {
	s := &State{In: first}
	gorgonia.Read(last, &s.Out)
	n.States = append(n.States, s)
}

// CrossEntropy is the mean over the cases of what the softmax of the logits gives to the classes of
// y, one-hot.
func (n *Net) CrossEntropy(logits, y *gorgonia.Node) *gorgonia.Node {
	logProbs := gorgonia.Must(gorgonia.LogSoftMax(logits))
	logLikelihood := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.HadamardProd(logProbs, y)), 1))
	return gorgonia.Must(gorgonia.Neg(gorgonia.Must(gorgonia.Mean(logLikelihood))))
}

// SquaredError is the mean of the squared differences.
func (n *Net) SquaredError(mean, y *gorgonia.Node) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(mean, y))))))
}

// Over is a node divided by a number.
func (n *Net) Over(x *gorgonia.Node, divisor float64) *gorgonia.Node {
	return gorgonia.Must(gorgonia.Div(x, gorgonia.NewConstant(n.Scalar(divisor))))
}

package testnet

import (
	"sync"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A Unit is a nonlinearity.
type Unit = func(*gorgonia.Node) (*gorgonia.Node, error)

// must is the result of an operation that can only fail if the test is wrong.
var must = gorgonia.Must

// Mul is the product of matrices or numbers.
func Mul(a, b *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Mul(a, b)) }

// Add is the sum.
func Add(a, b *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Add(a, b)) }

// Sub is the difference.
func Sub(a, b *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Sub(a, b)) }

// Hadamard is the product of elements.
func Hadamard(a, b *gorgonia.Node) *gorgonia.Node { return must(gorgonia.HadamardProd(a, b)) }

// Neg is -a.
func Neg(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Neg(a)) }

// Square is that of each element.
func Square(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Square(a)) }

// Tanh is the hyperbolic tangent of each element.
func Tanh(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Tanh(a)) }

// Sigmoid is the logistic function of each element.
func Sigmoid(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Sigmoid(a)) }

// grouping is held where Gorgonia numbers a group of nodes, since graphs that are made side by side
// would count in the same variable.
var grouping sync.Mutex

// Rectifier is gorgonia.Rectify, max(0, a) of each element.
func Rectifier(a *gorgonia.Node) (*gorgonia.Node, error) {
	grouping.Lock()
	defer grouping.Unlock()
	return gorgonia.Rectify(a)
}

// Rectify is max(0, a) of each element.
func Rectify(a *gorgonia.Node) *gorgonia.Node { return must(Rectifier(a)) }

// Softplus is log(1 + exp(a)) of each element.
func Softplus(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Softplus(a)) }

// SoftMax is along an axis.
func SoftMax(a *gorgonia.Node, axis int) *gorgonia.Node { return must(gorgonia.SoftMax(a, axis)) }

// LogSoftMax is along the last axis.
func LogSoftMax(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.LogSoftMax(a)) }

// Sum is over the given axes, or over all.
func Sum(a *gorgonia.Node, along ...int) *gorgonia.Node { return must(gorgonia.Sum(a, along...)) }

// Mean is over the given axes, or over all.
func Mean(a *gorgonia.Node, along ...int) *gorgonia.Node { return must(gorgonia.Mean(a, along...)) }

// Transpose exchanges the axes of a matrix.
func Transpose(a *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Transpose(a)) }

// Reshape keeps the elements in their order.
func Reshape(a *gorgonia.Node, shape ...int) *gorgonia.Node {
	return must(gorgonia.Reshape(a, tensor.Shape(shape)))
}

// AddRow adds b, of shape (1, n), to each row of a.
func AddRow(a, b *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.BroadcastAdd(a, b, nil, []byte{0}))
}

// AddColumn adds b, of shape (n, 1), to each column of a.
func AddColumn(a, b *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.BroadcastAdd(a, b, nil, []byte{1}))
}

// AddChannel adds b, of shape (1, C, 1, 1), to images.
func AddChannel(a, b *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.BroadcastAdd(a, b, nil, []byte{0, 2, 3}))
}

// TimesRow multiplies every row of a with b, element by element.
func TimesRow(a, b *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.BroadcastHadamardProd(a, b, nil, []byte{0}))
}

// Convolve is a convolution of images, without dilation.
func Convolve(x, filter *gorgonia.Node, pad, stride int) *gorgonia.Node {
	kernel := tensor.Shape{filter.Shape()[2], filter.Shape()[3]}
	return Conv2d(x, filter, kernel, []int{pad, pad}, []int{stride, stride}, []int{1, 1})
}

// Conv2d is gorgonia.Conv2d.
func Conv2d(x, filter *gorgonia.Node, kernel tensor.Shape, pad, stride, dilation []int) *gorgonia.Node {
	grouping.Lock()
	defer grouping.Unlock()
	return must(gorgonia.Conv2d(x, filter, kernel, pad, stride, dilation))
}

// Rows looks up rows of a table.
func Rows(table, words *gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.ByIndices(table, words, 0))
}

// Concat joins nodes along an axis.
func Concat(axis int, nodes ...*gorgonia.Node) *gorgonia.Node {
	return must(gorgonia.Concat(axis, nodes...))
}

package program

import (
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An opCase is a small graph around one op. Its value is compared with that of Gorgonia's tape
// machine or, where that is wrong, with a computation from the inputs' data by other means. Its
// derivatives are compared with finite differences.
type opCase struct {
	name  string
	graph func(b *builder) *gorgonia.Node
	naive func(x [][]float64) []float64
}

// In these exceptions the program's value is compared with a naive computation instead of
// Gorgonia's, or its derivative is not that of Gorgonia (finite differences decide):
//
//	AveragePool2D         Gorgonia divides by the image's width; the program by the number of
//	                      pixels under the window
//	MaxPool2D, 4 pads     Gorgonia shifts the windows by the padding behind; the program by the
//	                      padding before
//	Sparsemax, other axes Gorgonia transposes and does not transpose back; its gradient on vectors
//	                      is NaN
//	alias: ...            the tape machine overwrites operands of which a reshaped view is still
//	                      to be read
//	Dropout, random nodes have tests of their own (ops_test.go), since they draw
//	LogSumExp             Gorgonia composes it wrongly of other ops, log(sum exp(x-max) + max);
//	                      the program follows the graph as it is
//	Log2, InverseSqrt, OuterProd, GlobalAveragePool2D, At, ByIndices along axis 1
//	                      have no derivative in Gorgonia or a wrong one; the program's is right
//	Sign, Ceil, Floor, comparisons
//	                      have the derivative zero
var opCases = slices.Concat(unaryCases(), binaryCases(), productCases, reductionCases, broadcastCases,
	movingCases, softMaxCases, imageCases, normCases, lookupCases, compositeCases, aliasCases())

func unaryCases() (cases []opCase) {
	type f = func(*gorgonia.Node) (*gorgonia.Node, error)
	add := func(l law, ops map[string]f) {
		for name, op := range ops {
			cases = append(cases, opCase{name: name, graph: func(b *builder) *gorgonia.Node {
				return must(op(b.input(l, 2, 3)))
			}})
		}
	}
	add(between(-1.2, 1.2), map[string]f{"Sin": gorgonia.Sin, "Cos": gorgonia.Cos, "Exp": gorgonia.Exp,
		"Neg": gorgonia.Neg, "Square": gorgonia.Square, "Cube": gorgonia.Cube, "Tanh": gorgonia.Tanh,
		"Sigmoid": gorgonia.Sigmoid, "Expm1": gorgonia.Expm1, "Softplus": gorgonia.Softplus, "Mish": gorgonia.Mish})
	add(between(0.8, 2), map[string]f{"Log": gorgonia.Log, "Log2": gorgonia.Log2, "Sqrt": gorgonia.Sqrt,
		"Inverse": gorgonia.Inverse, "InverseSqrt": gorgonia.InverseSqrt, "Log1p": gorgonia.Log1p})
	add(spaced(0.3), map[string]f{"Abs": gorgonia.Abs, "Sign": gorgonia.Sign, "Rectify": gorgonia.Rectify,
		"LeakyRelu": func(x *gorgonia.Node) (*gorgonia.Node, error) { return gorgonia.LeakyRelu(x, 0.2) }})
	add(apart(0.3), map[string]f{"Ceil": gorgonia.Ceil, "Floor": gorgonia.Floor})
	add(between(-1.2, 1.2), map[string]f{
		"Log(1+x)": func(x *gorgonia.Node) (*gorgonia.Node, error) { // stabilised to Log1p
			return gorgonia.Log(must(gorgonia.Add(must(gorgonia.Square(x)), one(x))))
		},
		"Sigmoid of scalar": func(x *gorgonia.Node) (*gorgonia.Node, error) {
			return gorgonia.Sigmoid(must(gorgonia.Sum(x)))
		},
	})
	return cases
}

// one is the constant 1 of x's dtype.
func one(x *gorgonia.Node) *gorgonia.Node {
	if x.Dtype() == tensor.Float32 {
		return gorgonia.NewConstant(float32(1))
	}
	return gorgonia.NewConstant(1.0)
}

type binaryOp = func(x, y *gorgonia.Node) (*gorgonia.Node, error)

func binaryCases() (cases []opCase) {
	add := func(name string, graph func(b *builder) *gorgonia.Node) {
		cases = append(cases, opCase{name: name, graph: graph})
	}
	arithmetic := map[string]binaryOp{"Add": gorgonia.Add, "Sub": gorgonia.Sub,
		"HadamardProd": gorgonia.HadamardProd, "HadamardDiv": gorgonia.HadamardDiv, "Pow": gorgonia.Pow}
	for name, op := range arithmetic {
		add(name, func(b *builder) *gorgonia.Node { return must(op(b.positive(2, 3), b.positive(2, 3))) })
		add(name+"(x,x)", func(b *builder) *gorgonia.Node {
			x := b.positive(2, 3)
			return must(op(x, x))
		})
		add("Tensor "+name+" Scalar", func(b *builder) *gorgonia.Node {
			return must(op(b.positive(2, 3), b.positive()))
		})
		add("Scalar "+name+" Tensor", func(b *builder) *gorgonia.Node {
			return must(op(b.positive(), b.positive(2, 3)))
		})
		add("Scalar "+name+" Scalar", func(b *builder) *gorgonia.Node { return must(op(b.positive(), b.positive())) })
		add("Tensor "+name+" constant", func(b *builder) *gorgonia.Node {
			return must(op(b.positive(2, 3), b.constant(1.7)))
		})
	}
	comparisons := map[string]func(x, y *gorgonia.Node, same bool) (*gorgonia.Node, error){"Lt": gorgonia.Lt,
		"Gt": gorgonia.Gt, "Lte": gorgonia.Lte, "Gte": gorgonia.Gte, "Eq": gorgonia.Eq, "Ne": gorgonia.Ne}
	for name, op := range comparisons {
		add(name, func(b *builder) *gorgonia.Node {
			x, y := b.input(apart(0.2), 2, 3), b.input(apart(0.6), 2, 3)
			return must(gorgonia.Add(must(op(x, y, true)), x)) // with a derivative beside the zero
		})
	}
	for name, op := range map[string]binaryOp{"MaxBetween": gorgonia.MaxBetween, "MinBetween": gorgonia.MinBetween} {
		add(name, func(b *builder) *gorgonia.Node {
			return must(op(b.input(apart(0.2), 2, 3), b.input(apart(0.6), 2, 3)))
		})
	}
	return cases
}

var productCases = []opCase{
	{name: "Mul(mat,mat)", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Mul(b.x(2, 3), b.x(3, 4))) }},
	{name: "Mul(x,x)", graph: func(b *builder) *gorgonia.Node {
		x := b.x(3, 3)
		return must(gorgonia.Mul(x, x))
	}},
	{name: "Mul(mat,vec)", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Mul(b.x(2, 3), b.x(3))) }},
	{name: "Mul(vec,mat)", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Mul(b.x(2), b.x(2, 3))) }},
	{name: "Mul(vec,mat)square", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Mul(b.x(3), b.x(3, 3)))
	}},
	{name: "Mul(mat,vec)square", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Mul(b.x(3, 3), b.x(3)))
	}},
	{name: "Mul(vec,vec)dot", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Mul(b.x(3), b.x(3))) }},
	{name: "OuterProd", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.OuterProd(b.x(2), b.x(3))) }},
	{name: "OuterProd square", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.OuterProd(b.x(3), b.x(3)))
	}},
	{name: "Mul(x, w^T by Transpose)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Mul(b.x(2, 3), must(gorgonia.Transpose(b.x(4, 3)))))
	}},
	{name: "Mul(x^T, w^T)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Mul(must(gorgonia.Transpose(b.x(3, 2))), must(gorgonia.Transpose(b.x(4, 3)))))
	}},
	{name: "Mul(x^T, w)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Mul(must(gorgonia.Transpose(b.x(3, 2))), b.x(3, 4)))
	}},
	{name: "BatchedMatMul", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BatchedMatMul(b.x(2, 2, 3), b.x(2, 3, 4)))
	}},
	{name: "BatchedMatMul tA", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BatchedMatMul(b.x(2, 3, 2), b.x(2, 3, 4), true))
	}},
	{name: "BatchedMatMul tB", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BatchedMatMul(b.x(2, 2, 3), b.x(2, 4, 3), false, true))
	}},
	{name: "BatchedMatMul tAtB", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BatchedMatMul(b.x(2, 3, 2), b.x(2, 4, 3), true, true))
	}},
	{name: "BatchedMatMul 4D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BatchedMatMul(b.x(2, 2, 2, 3), b.x(2, 2, 3, 2)))
	}},
	{name: "Tensordot", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Tensordot([]int{1}, []int{0}, b.x(2, 3), b.x(3, 4)))
	}},
	{name: "Tensordot3", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Tensordot([]int{0, 2}, []int{1, 0}, b.x(2, 3, 4), b.x(4, 2, 3)))
	}},
}

// An alongOp is an op along some axes of its operand.
type alongOp = func(x *gorgonia.Node, along ...int) (*gorgonia.Node, error)

func along(op alongOp, l law, shape []int, axes ...int) func(b *builder) *gorgonia.Node {
	return func(b *builder) *gorgonia.Node { return must(op(b.input(l, shape...), axes...)) }
}

var (
	mild   = between(-1.2, 1.2)
	kinked = spaced(0.3)
)

var reductionCases = []opCase{
	{name: "Sum all", graph: along(gorgonia.Sum, mild, []int{2, 3})},
	{name: "Sum 0", graph: along(gorgonia.Sum, mild, []int{2, 3}, 0)},
	{name: "Sum 1", graph: along(gorgonia.Sum, mild, []int{2, 3}, 1)},
	{name: "Sum 1 of 3D", graph: along(gorgonia.Sum, mild, []int{2, 3, 4}, 1)},
	{name: "Sum 0,2 of 3D", graph: along(gorgonia.Sum, mild, []int{2, 3, 4}, 0, 2)},
	{name: "Sum of vector", graph: along(gorgonia.Sum, mild, []int{5})},
	{name: "Mean all", graph: along(gorgonia.Mean, mild, []int{2, 3})},
	{name: "Mean 0", graph: along(gorgonia.Mean, mild, []int{2, 3}, 0)},
	{name: "Mean 1", graph: along(gorgonia.Mean, mild, []int{2, 3}, 1)},
	{name: "Max all", graph: along(gorgonia.Max, kinked, []int{2, 3})},
	{name: "Max 0", graph: along(gorgonia.Max, kinked, []int{2, 3}, 0)},
	{name: "Max 1", graph: along(gorgonia.Max, kinked, []int{2, 3}, 1)},
	{name: "Max 1 of 3D", graph: along(gorgonia.Max, kinked, []int{2, 3, 4}, 1)},
	{name: "Norm2", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Norm(b.positive(2, 3), 1, 2)) }},
	{name: "LogSumExp", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.LogSumExp(b.input(spaced(0.3), 5), 0))
	}},
}

var broadcastCases = []opCase{
	{name: "BroadcastAdd row", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(2, 3), b.x(3), nil, []byte{0}))
	}},
	{name: "BroadcastAdd col", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(2, 3), b.x(2), nil, []byte{1}))
	}},
	{name: "BroadcastAdd (1,n)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(2, 3), b.x(1, 3), nil, []byte{0}))
	}},
	{name: "BroadcastAdd (n,1)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(2, 3), b.x(2, 1), nil, []byte{1}))
	}},
	{name: "BroadcastAdd left", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(1, 3), b.x(2, 3), []byte{0}, nil))
	}},
	{name: "BroadcastAdd both", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(1, 3), b.x(2, 1), []byte{0}, []byte{1}))
	}},
	{name: "BroadcastAdd 4D (1,C,1,1)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(2, 3, 2, 2), b.x(1, 3, 1, 1), nil, []byte{0, 2, 3}))
	}},
	{name: "BroadcastAdd batch=1", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastAdd(b.x(1, 3), b.x(1, 3), nil, []byte{0}))
	}},
	{name: "BroadcastSub row", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastSub(b.x(2, 3), b.x(1, 3), nil, []byte{0}))
	}},
	{name: "BroadcastHadamardProd row", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastHadamardProd(b.x(2, 3), b.x(1, 3), nil, []byte{0}))
	}},
	{name: "BroadcastHadamardProd left", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastHadamardProd(b.x(1, 3), b.x(2, 3), []byte{0}, nil))
	}},
	{name: "BroadcastHadamardProd 4D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastHadamardProd(b.x(2, 3, 2, 2), b.x(1, 3, 1, 1), nil, []byte{0, 2, 3}))
	}},
	{name: "BroadcastHadamardDiv col", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BroadcastHadamardDiv(b.x(2, 3), b.positive(2, 1), nil, []byte{1}))
	}},
	{name: "Auto(BroadcastAdd)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Auto(gorgonia.BroadcastAdd, b.x(2, 3), b.x(1, 3)))
	}},
}

func sliced(shape []int, s ...tensor.Slice) func(b *builder) *gorgonia.Node {
	return func(b *builder) *gorgonia.Node { return must(gorgonia.Slice(b.x(shape...), s...)) }
}

func s(start int, opt ...int) tensor.Slice { return gorgonia.S(start, opt...) }

var movingCases = []opCase{
	{name: "Reshape", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Reshape(b.x(2, 6), tensor.Shape{3, 4}))
	}},
	{name: "Ravel", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Ravel(b.x(2, 3))) }},
	{name: "Transpose2D", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Transpose(b.x(2, 3))) }},
	{name: "Transpose3D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Transpose(b.x(2, 3, 4), 2, 0, 1))
	}},
	{name: "Transpose4D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Transpose(b.x(2, 3, 2, 3), 0, 3, 1, 2))
	}},
	{name: "Slice row", graph: sliced([]int{4, 3}, s(2))},
	{name: "Slice rows", graph: sliced([]int{4, 3}, s(1, 3))},
	{name: "Slice cols", graph: sliced([]int{4, 3}, nil, s(1, 3))},
	{name: "Slice col1", graph: sliced([]int{4, 3}, nil, s(1))},
	{name: "Slice both", graph: sliced([]int{4, 3}, s(1, 4), s(0, 2))},
	{name: "Slice vec", graph: sliced([]int{5}, s(1, 4))},
	{name: "Slice scalar", graph: sliced([]int{5}, s(3))},
	{name: "Slice 3D mid", graph: sliced([]int{2, 4, 3}, nil, s(1, 3))},
	{name: "Slice x2 (gates)", graph: func(b *builder) *gorgonia.Node {
		x := b.x(2, 6)
		return must(gorgonia.HadamardProd(must(gorgonia.Slice(x, nil, s(0, 3))), must(gorgonia.Slice(x, nil, s(3, 6)))))
	}},
	{name: "Concat 0", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Concat(0, b.x(2, 3), b.x(1, 3)))
	}},
	{name: "Concat 1", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Concat(1, b.x(2, 3), b.x(2, 2)))
	}},
	{name: "Concat vec", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.Concat(0, b.x(2), b.x(3))) }},
	{name: "Concat 3", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Concat(1, b.x(2, 1), b.x(2, 2), b.x(2, 3)))
	}},
	{name: "Concat same x", graph: func(b *builder) *gorgonia.Node {
		x := b.x(2, 3)
		return must(gorgonia.Concat(0, x, x))
	}},
	{name: "At", graph: func(b *builder) *gorgonia.Node { return must(gorgonia.At(b.x(2, 3), 1, 2)) },
		naive: func(x [][]float64) []float64 { return x[0][5:] }},
}

var softMaxCases = []opCase{
	{name: "SoftMax", graph: along(gorgonia.SoftMax, mild, []int{2, 3})},
	{name: "SoftMax axis1", graph: along(gorgonia.SoftMax, mild, []int{2, 3}, 1)},
	{name: "SoftMax axis0", graph: along(gorgonia.SoftMax, mild, []int{2, 3}, 0)},
	{name: "SoftMax vec", graph: along(gorgonia.SoftMax, mild, []int{4})},
	{name: "SoftMax col vec", graph: along(gorgonia.SoftMax, mild, []int{4, 1})},
	{name: "SoftMax row vec", graph: along(gorgonia.SoftMax, mild, []int{1, 4})},
	{name: "SoftMax 3D", graph: along(gorgonia.SoftMax, mild, []int{2, 3, 4})},
	{name: "SoftMax 3D axis1", graph: along(gorgonia.SoftMax, mild, []int{2, 3, 4}, 1)},
	{name: "LogSoftMax", graph: along(gorgonia.LogSoftMax, mild, []int{2, 3})},
	{name: "LogSoftMax axis1", graph: along(gorgonia.LogSoftMax, mild, []int{2, 3}, 1)},
	{name: "LogSoftMax axis0", graph: along(gorgonia.LogSoftMax, mild, []int{2, 3}, 0)},
	{name: "Log(SoftMax)", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Log(must(gorgonia.SoftMax(b.x(2, 3)))))
	}},
	{name: "Sparsemax", graph: along(gorgonia.Sparsemax, spaced(0.6), []int{2, 4})},
	{name: "Sparsemax vec", graph: along(gorgonia.Sparsemax, spaced(0.6), []int{4})},
	{name: "Sparsemax axis0", graph: along(gorgonia.Sparsemax, spaced(0.6), []int{3, 2}, 0),
		naive: func(x [][]float64) []float64 {
			y := make([]float64, 6)
			for col := range 2 {
				z := bisectSparsemax([]float64{x[0][col], x[0][2+col], x[0][4+col]})
				y[col], y[2+col], y[4+col] = z[0], z[1], z[2]
			}
			return y
		}},
}

// bisectSparsemax finds the projection of x onto the simplex by bisection for the threshold.
func bisectSparsemax(x []float64) []float64 {
	low, high := slices.Min(x)-1, slices.Max(x)
	y := make([]float64, len(x))
	for range 200 {
		tau, sum := (low+high)/2, 0.0
		for i, v := range x {
			y[i] = math.Max(v-tau, 0)
			sum += y[i]
		}
		if sum > 1 {
			low = tau
		} else {
			high = tau
		}
	}
	return y
}

var imageCases = []opCase{
	{name: "Conv2d", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Conv2d(b.x(2, 2, 4, 5), b.x(3, 2, 3, 2),
			tensor.Shape{3, 2}, []int{1, 1}, []int{1, 1}, []int{1, 1}))
	}},
	{name: "Conv2d s2", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Conv2d(b.x(2, 1, 5, 4), b.x(2, 1, 3, 3),
			tensor.Shape{3, 3}, []int{1, 0}, []int{2, 1}, []int{1, 1}))
	}},
	{name: "Conv2d dil2", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Conv2d(b.x(1, 2, 5, 5), b.x(2, 2, 2, 2),
			tensor.Shape{2, 2}, []int{0, 1}, []int{1, 1}, []int{2, 2}))
	}},
	{name: "Conv1d", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Conv1d(b.x(2, 2, 1, 6), b.x(3, 2, 1, 3), 3, 1, 1, 1))
	}},
	{name: "MaxPool2D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.MaxPool2D(b.input(spaced(0.3), 1, 2, 4, 4), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}},
	{name: "MaxPool2D pad overlap", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.MaxPool2D(b.input(spaced(0.3), 2, 1, 4, 5), tensor.Shape{3, 3}, []int{1, 1}, []int{2, 1}))
	}},
	{name: "MaxPool2D 4 pads", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.MaxPool2D(b.input(spaced(0.3), 1, 2, 4, 3),
			tensor.Shape{2, 2}, []int{1, 0, 0, 1}, []int{2, 1}))
	}, naive: func(x [][]float64) []float64 {
		return pool(x[0], 2, 4, 3, [2]int{2, 2}, [2]int{2, 1}, [4]int{1, 0, 0, 1}, slices.Max[[]float64])
	}},
	{name: "AveragePool2D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.AveragePool2D(b.x(1, 2, 4, 6), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}, naive: func(x [][]float64) []float64 {
		return pool(x[0], 2, 4, 6, [2]int{2, 2}, [2]int{2, 2}, [4]int{}, mean)
	}},
	{name: "AveragePool2D pad overlap", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.AveragePool2D(b.x(2, 1, 4, 5), tensor.Shape{3, 2}, []int{1, 1}, []int{2, 1}))
	}, naive: func(x [][]float64) []float64 {
		return pool(x[0], 2, 4, 5, [2]int{3, 2}, [2]int{2, 1}, [4]int{1, 1, 1, 1}, mean)
	}},
	{name: "GlobalAveragePool2D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.GlobalAveragePool2D(b.x(2, 3, 2, 4)))
	}},
	{name: "Upsample2D", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Upsample2D(b.x(2, 1, 2, 3), 2))
	}},
	{name: "Upsample2D by 3", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.Upsample2D(b.x(1, 2, 2, 2), 3))
	}},
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// pool collects the pixels of each window that are not padding, and reduces them. The padding is
// that before and behind the rows, and before and behind the columns.
func pool(x []float64, planes, height, width int, kernel, stride [2]int, pad [4]int,
	reduce func([]float64) float64) (y []float64) {
	for p := range planes {
		for top := -pad[0]; top+kernel[0] <= height+pad[1]; top += stride[0] {
			for left := -pad[2]; left+kernel[1] <= width+pad[3]; left += stride[1] {
				var pixels []float64
				for i := max(top, 0); i < min(top+kernel[0], height); i++ {
					for j := max(left, 0); j < min(left+kernel[1], width); j++ {
						pixels = append(pixels, x[(p*height+i)*width+j])
					}
				}
				y = append(y, reduce(pixels))
			}
		}
	}
	return y
}

func batchNorm(shape []int) func(b *builder) *gorgonia.Node {
	return func(b *builder) *gorgonia.Node {
		scale := []int{1, shape[1], 1, 1}[:len(shape)]
		y, _, _, _, err := gorgonia.BatchNorm(b.input(spaced(0.5), shape...), b.x(scale...), b.x(scale...), 0.9, 1e-3)
		return must(y, err)
	}
}

var normCases = []opCase{
	{name: "BatchNorm 2D", graph: batchNorm([]int{4, 3})},
	{name: "BatchNorm 4D", graph: batchNorm([]int{3, 2, 2, 3})},
	{name: "GroupNorm", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.GroupNorm(b.x(2, 4, 2, 3), b.x(1, 4, 1, 1), b.x(1, 4, 1, 1), 2, 4, 1e-3))
	}},
	{name: "LayerNorm manual", graph: func(b *builder) *gorgonia.Node {
		x := b.x(2, 5)
		mu := must(gorgonia.Reshape(must(gorgonia.Mean(x, 1)), tensor.Shape{2, 1}))
		d := must(gorgonia.BroadcastSub(x, mu, nil, []byte{1}))
		variance := must(gorgonia.Reshape(must(gorgonia.Mean(must(gorgonia.Square(d)), 1)), tensor.Shape{2, 1}))
		sd := must(gorgonia.Sqrt(must(gorgonia.Add(variance, b.constant(0.01)))))
		return must(gorgonia.BroadcastHadamardDiv(d, sd, nil, []byte{1}))
	}},
}

var lookupCases = []opCase{
	{name: "ByIndices", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.ByIndices(b.x(4, 3), b.ints(2, 0), 0))
	}},
	{name: "ByIndices dup", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.ByIndices(b.x(4, 3), b.ints(1, 3, 1), 0))
	}},
	{name: "ByIndices axis1", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.ByIndices(b.x(2, 4), b.ints(3, 0, 3), 1))
	}},
}

var compositeCases = []opCase{
	{name: "BinaryXent", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BinaryXent(must(gorgonia.Sigmoid(b.x(2, 3))), b.input(between(0.2, 0.8), 2, 3)))
	}},
	{name: "BinaryXent no sigmoid", graph: func(b *builder) *gorgonia.Node {
		return must(gorgonia.BinaryXent(b.input(between(0.35, 0.65), 2, 3), b.input(between(0.2, 0.8), 2, 3)))
	}},
}

// aliasCases are graphs in which a tape machine lets an op write into a view of an operand.
func aliasCases() []opCase {
	each := func(f func(x []float64) float64) func(x [][]float64) []float64 {
		return func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				args := make([]float64, len(x))
				for k := range x {
					args[k] = x[k][i]
				}
				y[i] = f(args)
			}
			return y
		}
	}
	sigmoidOf := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	vec := tensor.Shape{6}
	return []opCase{
		{"alias: tanh->Reshape->Add", func(b *builder) *gorgonia.Node {
			h := must(gorgonia.Reshape(must(gorgonia.Tanh(b.x(2, 3))), vec))
			return must(gorgonia.Square(must(gorgonia.Add(h, b.x(6)))))
		}, each(func(x []float64) float64 { return math.Pow(math.Tanh(x[0])+x[1], 2) })},
		{"alias: Reshape(param)->Add", func(b *builder) *gorgonia.Node {
			return must(gorgonia.Tanh(must(gorgonia.Add(must(gorgonia.Reshape(b.x(2, 3), vec)), b.x(6)))))
		}, each(func(x []float64) float64 { return math.Tanh(x[0] + x[1]) })},
		{"alias: sigmoid(xw)->Reshape(N)->Sub", func(b *builder) *gorgonia.Node {
			p := must(gorgonia.Sigmoid(must(gorgonia.Mul(b.x(3, 2), b.x(2, 1)))))
			p = must(gorgonia.Reshape(p, tensor.Shape{3}))
			return must(gorgonia.Square(must(gorgonia.Sub(p, b.x(3)))))
		}, func(x [][]float64) []float64 {
			y := make([]float64, 3)
			for i := range y {
				y[i] = math.Pow(sigmoidOf(x[0][2*i]*x[1][0]+x[0][2*i+1]*x[1][1])-x[2][i], 2)
			}
			return y
		}},
		{"alias: Conv->tanh->Reshape->Add", func(b *builder) *gorgonia.Node {
			conv := must(gorgonia.Conv2d(b.x(1, 2, 2, 3), b.x(1, 2, 1, 1),
				tensor.Shape{1, 1}, []int{0, 0}, []int{1, 1}, []int{1, 1}))
			h := must(gorgonia.Reshape(must(gorgonia.Tanh(conv)), vec))
			return must(gorgonia.Square(must(gorgonia.Add(h, b.x(6)))))
		}, func(x [][]float64) []float64 {
			y := make([]float64, 6)
			for i := range y {
				y[i] = math.Pow(math.Tanh(x[0][i]*x[1][0]+x[0][6+i]*x[1][1])+x[2][i], 2)
			}
			return y
		}},
		{"alias: Concat of one -> Add", func(b *builder) *gorgonia.Node {
			return must(gorgonia.Tanh(must(gorgonia.Add(must(gorgonia.Concat(0, b.x(2, 3))), b.x(2, 3)))))
		}, each(func(x []float64) float64 { return math.Tanh(x[0] + x[1]) })},
		{"alias: softmax->Reshape->Sub", func(b *builder) *gorgonia.Node {
			p := must(gorgonia.Reshape(must(gorgonia.SoftMax(b.x(2, 3))), vec))
			return must(gorgonia.Square(must(gorgonia.Sub(p, b.x(6)))))
		}, func(x [][]float64) []float64 {
			y := make([]float64, 6)
			for i := range y {
				row := x[0][i/3*3:][:3]
				p := math.Exp(x[0][i]) / (math.Exp(row[0]) + math.Exp(row[1]) + math.Exp(row[2]))
				y[i] = math.Pow(p-x[1][i], 2)
			}
			return y
		}},
		{"alias: relu->Reshape->+bias(B,out)", func(b *builder) *gorgonia.Node {
			h := must(gorgonia.Reshape(must(gorgonia.Rectify(b.input(spaced(0.3), 2, 3))), tensor.Shape{3, 2}))
			return must(gorgonia.Square(must(gorgonia.Add(h, b.x(3, 2)))))
		}, each(func(x []float64) float64 { return math.Pow(math.Max(x[0], 0)+x[1], 2) })},
	}
}

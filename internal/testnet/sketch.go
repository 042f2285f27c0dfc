package testnet

import (
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// TB is what this package needs of a test. *testing.T, *testing.B and *rapid.T have it.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Float is a type that Gorgonia computes with.
type Float interface{ float32 | float64 }

// Check ends the test if there is an error.
func Check(t TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Dtype is Gorgonia's name of T.
func Dtype[T Float]() tensor.Dtype {
	if _, ok := any(T(0)).(float32); ok {
		return tensor.Float32
	}
	return tensor.Float64
}

// A Sketch is a graph in the making, with random inputs.
type Sketch struct {
	Graph *gorgonia.ExprGraph
	Rng   *rand.Rand
	Dtype tensor.Dtype   // of all inputs but words
	Y     *gorgonia.Node // the targets that were given or drawn last
	given bool           // likelihoods take Y, and draw no targets
}

// NewSketch is an empty graph in float64. Two sketches of one seed give the same values.
func NewSketch(seed uint64) *Sketch { return NewSketchOf[float64](seed, 3) }

// NewSketchOf is an empty graph in T. The numbers depend on the seed and the stream.
func NewSketchOf[T Float](seed, stream uint64) *Sketch {
	return &Sketch{Graph: gorgonia.NewGraph(), Rng: rand.New(rand.NewPCG(seed, stream)), Dtype: Dtype[T]()}
}

// Normals draws n standard normal numbers.
func (s *Sketch) Normals(n int) []float64 { return Normals(s.Rng, n, 1) }

// Normals draws n numbers from N(0, std^2).
func Normals(rng *rand.Rand, n int, std float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = std * rng.NormFloat64()
	}
	return x
}

// OneHots draws a class for each row: targets that every distribution here can have.
func OneHots(rng *rand.Rand, rows, classes int) []float64 {
	y := make([]float64, rows*classes)
	for i := range rows {
		y[i*classes+rng.IntN(classes)] = 1
	}
	return y
}

// Tensor is a tensor of the given type and shape with a copy of the data.
func Tensor(of tensor.Dtype, data []float64, shape ...int) *tensor.Dense {
	if of == tensor.Float32 {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(converted[float32](data)))
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(converted[float64](data)))
}

func converted[T Float](data []float64) []T {
	c := make([]T, len(data))
	for i, v := range data {
		c[i] = T(v)
	}
	return c
}

// Leaf makes an input that holds the given values.
func (s *Sketch) Leaf(name string, data []float64, shape ...int) *gorgonia.Node {
	return s.On(name, Tensor(s.Dtype, data, shape...))
}

// On makes an input of a tensor, which it does not copy.
func (s *Sketch) On(name string, value *tensor.Dense) *gorgonia.Node {
	shape := value.Shape().Clone()
	return gorgonia.NewTensor(s.Graph, s.Dtype, len(shape),
		gorgonia.WithShape(shape...), gorgonia.WithName(name), gorgonia.WithValue(value))
}

// Random makes an input of standard normal values.
func (s *Sketch) Random(name string, shape ...int) *gorgonia.Node { return s.Scaled(name, 1, shape...) }

// Scaled makes an input of values from N(0, std^2).
func (s *Sketch) Scaled(name string, std float64, shape ...int) *gorgonia.Node {
	return s.Leaf(name, Normals(s.Rng, tensor.Shape(shape).TotalSize(), std), shape...)
}

// Constant makes an input that holds one number everywhere.
func (s *Sketch) Constant(name string, v float64, shape ...int) *gorgonia.Node {
	data := make([]float64, tensor.Shape(shape).TotalSize())
	for i := range data {
		data[i] = v
	}
	return s.Leaf(name, data, shape...)
}

// Scalar makes an input that is a number, not a tensor.
func (s *Sketch) Scalar(name string, v float64) *gorgonia.Node {
	return gorgonia.NewScalar(s.Graph, s.Dtype, gorgonia.WithName(name), gorgonia.WithValue(s.number(v)))
}

// Ones makes an input of ones.
func (s *Sketch) Ones(name string, shape ...int) *gorgonia.Node { return s.Constant(name, 1, shape...) }

// Uniform makes an input of values in (0, 1).
func (s *Sketch) Uniform(name string, shape ...int) *gorgonia.Node {
	data := make([]float64, tensor.Shape(shape).TotalSize())
	for i := range data {
		data[i] = s.Rng.Float64()
	}
	return s.Leaf(name, data, shape...)
}

// Matrix makes an input of the elements of m.
func (s *Sketch) Matrix(name string, m mat.Matrix) *gorgonia.Node {
	rows, cols := m.Dims()
	return s.Leaf(name, mat.DenseCopyOf(m).RawMatrix().Data, rows, cols)
}

// Words makes an input of row numbers.
func (s *Sketch) Words(name string, ids ...int) *gorgonia.Node {
	value := tensor.New(tensor.WithShape(len(ids)), tensor.WithBacking(ids))
	return gorgonia.NewVector(s.Graph, tensor.Int,
		gorgonia.WithName(name), gorgonia.WithShape(len(ids)), gorgonia.WithValue(value))
}

// SomeWords draws n row numbers of a table.
func (s *Sketch) SomeWords(n, rows int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = s.Rng.IntN(rows)
	}
	return ids
}

// Targets gives the targets to the likelihoods that are written next, which then draw none.
func (s *Sketch) Targets(y *gorgonia.Node) *gorgonia.Node {
	s.Y, s.given = y, true
	return y
}

// number is v in the type of the sketch, as NewConstant takes it.
func (s *Sketch) number(v float64) any {
	if s.Dtype == tensor.Float32 {
		return float32(v)
	}
	return v
}

// times multiplies with a number.
func (s *Sketch) times(a *gorgonia.Node, by float64) *gorgonia.Node {
	return Mul(a, gorgonia.NewConstant(s.number(by)))
}

package testnet

import (
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Cube is an op of a user: x^3 element by element. It has a derivative for LispMachines, and none
// for Grad.
type Cube struct{}

// Arity is 1.
func (Cube) Arity() int { return 1 }

// Type is that of an elementwise function.
func (Cube) Type() hm.Type { return hm.NewFnType(hm.TypeVariable('a'), hm.TypeVariable('a')) }

// InferShape is the operand's shape.
func (Cube) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	return in[0].(tensor.Shape).Clone(), nil
}

// ReturnsPtr is false.
func (Cube) ReturnsPtr() bool { return false }

// CallsExtern is false.
func (Cube) CallsExtern() bool { return false }

// OverwritesInput says that it does not.
func (Cube) OverwritesInput() int { return -1 }

// String is the name.
func (Cube) String() string { return "cube" }

// WriteHash writes the name.
func (c Cube) WriteHash(h hash.Hash) { fmt.Fprint(h, c) }

// Hashcode is of the name.
func (c Cube) Hashcode() uint32 { h := fnv.New32a(); c.WriteHash(h); return h.Sum32() }

// Do cubes a float64 tensor.
func (Cube) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	y := in[0].(*tensor.Dense).Clone().(*tensor.Dense)
	for i, x := range y.Float64s() {
		y.Set(i, x*x*x)
	}
	return y, nil
}

// DoDiff adds 3 x^2 dy to the gradient of the operand.
func (Cube) DoDiff(_ gorgonia.ExecutionContext, in gorgonia.Nodes, out *gorgonia.Node) error {
	dx, err := in[0].Grad()
	if err != nil {
		return err
	}
	dy, err := out.Grad()
	if err != nil {
		return err
	}
	x, g := in[0].Value().(*tensor.Dense).Float64s(), dy.(*tensor.Dense).Float64s()
	for i := range x {
		dx.(*tensor.Dense).Float64s()[i] += 3 * x[i] * x[i] * g[i]
	}
	return nil
}

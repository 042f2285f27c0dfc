package kfac_test

import (
	"fmt"
	"log"
	"math/rand/v2"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// twoLayers is a model of a user: out = tanh(x body_w + body_b) head_w, for eight cases of
// y = x1 x2.
func twoLayers() (cost *gorgonia.Node, params gorgonia.Nodes) {
	g := gorgonia.NewGraph()
	rng := rand.New(rand.NewPCG(1, 2))
	matrix := func(name string, rows, cols int) *gorgonia.Node {
		data := make([]float64, rows*cols)
		for i := range data {
			data[i] = rng.NormFloat64()
		}
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(rows, cols),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x, y := matrix("x", 8, 2), matrix("y", 8, 1)
	points, targets := x.Value().Data().([]float64), y.Value().Data().([]float64)
	for i := range targets {
		targets[i] = points[2*i] * points[2*i+1]
	}
	params = gorgonia.Nodes{matrix("body_w", 2, 6), matrix("body_b", 1, 6), matrix("head_w", 6, 1)}
	must := gorgonia.Must
	h := must(gorgonia.BroadcastAdd(must(gorgonia.Mul(x, params[0])), params[1], nil, []byte{0}))
	out := must(gorgonia.Mul(must(gorgonia.Tanh(h)), params[2]))
	cost = must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, params...); err != nil {
		log.Fatal(err)
	}
	return cost, params
}

// Groups have settings of their own: here one stays as it is, and the other has weight decay.
func ExampleWithGroup() {
	cost, params := twoLayers()
	solver := kfac.New(
		kfac.WithGroup("body_*", kfac.GroupFrozen()),
		kfac.WithGroup("head_*", kfac.GroupL2(1e-4)))
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	before := slices.Clone(params[0].Value().Data().([]float64))
	for range 3 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			log.Fatal(err)
		}
	}
	for _, p := range solver.Plan().Params {
		fmt.Println(p.Name, p.Treatment)
	}
	fmt.Println("body_w has stayed:", slices.Equal(params[0].Value().Data().([]float64), before))
	// Output:
	// head_w kronecker
	// body_w frozen
	// body_b frozen
	// body_w has stayed: true
}

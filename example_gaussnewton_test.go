package kfac_test

import (
	"fmt"
	"log"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// A line through points of which one is far off, by a log-cosh loss.
func ExampleGaussNewton() {
	g := gorgonia.NewGraph()
	node := func(name string, data ...float64) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(len(data), 1),
			gorgonia.WithValue(tensor.New(tensor.WithShape(len(data), 1), tensor.WithBacking(data))))
	}
	must := gorgonia.Must
	x, y := node("x", -2, -1, 0, 1, 2), node("y", -4, -2, 0, 2, 40)
	slope := node("slope", 0)
	z := must(gorgonia.Mul(x, slope))
	e := must(gorgonia.Sub(z, y))
	twice := must(gorgonia.Mul(e, gorgonia.NewConstant(-2.0)))
	cost := must(gorgonia.Mean(must(gorgonia.Add(e, must(gorgonia.Softplus(twice)))))) // log(2 cosh(e))
	if _, err := gorgonia.Grad(cost, slope); err != nil {
		log.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(slope))
	defer vm.Close()

	solver, err := kfac.NewSolver(cost, kfac.GaussNewton(z))
	if err != nil {
		log.Fatal(err)
	}
	for range 40 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(gorgonia.Nodes{slope})); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Printf("slope %.2f\n", slope.Value().Data())
	// Output: slope [2.38]
}

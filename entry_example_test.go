package kfac_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// train makes updates with a VM and a solver.
func train(vm gorgonia.VM, solver gorgonia.Solver, params gorgonia.Nodes, updates int) {
	for range updates {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
}

// This package's VM with another solver.
func ExampleNewVM() {
	cost, _, params := yourModel()
	vm, err := kfac.NewVM(cost) // was: gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(params...))
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.3)), params, 300)
	fmt.Printf("%.1f\n", params[0].Value().Data())
	// Output: [3.0 -2.0]
}

// An update from several RunAlls: the batch grows from the 8 cases of the graph to all 32.
func ExampleSolver_Accumulate() {
	cost, _, params := yourModel()
	solver := kfac.New()
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	growing := kfac.GrowingBatch{First: 8, All: 32, FullAt: 10}
	for update := 1; update <= 10; update++ {
		chunks := growing.Chunks(update, 8)
		for range chunks - 1 { // write the next 8 cases into the inputs before each
			if err := vm.RunAll(); err != nil {
				log.Fatal(err)
			}
			if err := solver.Accumulate(gorgonia.NodesToValueGrads(params)); err != nil {
				log.Fatal(err)
			}
		}
		train(vm, solver, params, 1) // the last of the chunks
	}
	fmt.Printf("%d cases, %.3f\n", solver.Stats().Cases, params[0].Value().Data())
	// Output: 32 cases, [3.000 -2.000]
}

// Evaluation with the mean of the weights of the last steps.
func ExampleSolver_UseAverage() {
	cost, _, params := yourModel()
	solver := kfac.New(kfac.WithIterateAveraging(0.9, 10))
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, params, 40)

	restore, err := solver.UseAverage()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f\n", params[0].Value().Data())
	restore() // training goes on with the weights that it had
	// Output: [3.00 -2.00]
}

// input makes a matrix with values.
func input(g *gorgonia.ExprGraph, name string, columns int, data ...float64) *gorgonia.Node {
	value := tensor.New(tensor.WithShape(len(data)/columns, columns), tensor.WithBacking(data))
	return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithValue(value))
}

// A model that predicts a number and a yes or no, with a cost for each.
func ExampleJoint() {
	g := gorgonia.NewGraph()
	x := input(g, "x", 2, 1, 0, 0, 1, 1, 1, -1, 1)
	length, late := input(g, "length", 1, 2, 1, 3, -1), input(g, "late", 1, 1, 0, 1, 0)
	w, v := input(g, "w", 1, 0, 0), input(g, "v", 1, 0, 0)
	must := gorgonia.Must
	mean, logits := must(gorgonia.Mul(x, w)), must(gorgonia.Mul(x, v))
	squares := must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(mean, length))))))
	entropy := must(gorgonia.Mean(must(gorgonia.Sub(
		must(gorgonia.Softplus(logits)), must(gorgonia.HadamardProd(late, logits))))))
	cost := must(gorgonia.Add(squares, entropy))

	solver, err := kfac.NewSolver(cost, kfac.Joint(kfac.SquaredError(mean), kfac.Bernoulli(logits)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(solver.Plan())
	// Output:
	// PARAMETER  SHAPE   TREATMENT  BLOCK        WHY
	// w          (2, 1)  kronecker  w: A 2, G 1  dense layer x w
	// v          (2, 1)  kronecker  v: A 2, G 1  dense layer x w
	// loss: SquaredError(the matrix product of x and w)
	// loss: Bernoulli(the matrix product of x and v)
}

// A case of weight 0 counts nowhere: the last target is not known.
func ExampleWeighted() {
	g := gorgonia.NewGraph()
	x := input(g, "x", 1, 1, 2, 3, 4)
	y := input(g, "y", 1, 2, 4, 6, 999)
	known := input(g, "known", 1, 1, 1, 1, 0)
	w := input(g, "w", 1, 0)
	must := gorgonia.Must
	out := must(gorgonia.Mul(x, w))
	squares := must(gorgonia.Square(must(gorgonia.Sub(out, y))))
	cost := must(gorgonia.Sum(must(gorgonia.HadamardProd(squares, known))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	solver, err := kfac.NewSolver(cost, kfac.Weighted(kfac.SquaredError(out), known))
	if err != nil {
		log.Fatal(err)
	}
	vm, err := solver.VM()
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, gorgonia.Nodes{w}, 20)
	fmt.Printf("%.3f\n", w.Value().Data())
	// Output: [2.000]
}

// Actions that were better than expected are to become more likely, others less.
func ExamplePolicy() {
	g := gorgonia.NewGraph()
	state := input(g, "state", 2, 1, 0, 1, 0, 0, 1, 0, 1)
	action := input(g, "action", 2, 1, 0, 0, 1, 1, 0, 0, 1) // one-hot
	advantage := input(g, "advantage", 1, 1, -1, -1, 1)
	w := input(g, "w", 2, 0, 0, 0, 0)
	must := gorgonia.Must
	logits := must(gorgonia.Mul(state, w))
	logProb := must(gorgonia.Sum(must(gorgonia.HadamardProd(must(gorgonia.LogSoftMax(logits)), action)), 1))
	gain := must(gorgonia.HadamardProd(logProb, must(gorgonia.Reshape(advantage, tensor.Shape{4}))))
	cost := must(gorgonia.Neg(must(gorgonia.Mean(gain))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	solver, err := kfac.NewSolver(cost, kfac.Policy(kfac.Categorical(logits)))
	if err != nil {
		log.Fatal(err)
	}
	vm, err := solver.VM(logits)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, gorgonia.Nodes{w}, 1) // then act again, with the new policy
	if err := vm.RunAll(); err != nil {
		log.Fatal(err)
	}
	z := logits.Value().Data().([]float64)
	fmt.Println(z[0] > z[1], z[4] < z[5], solver.Stats().KL <= 0.0101)
	// Output: true true true
}

// A program that is started again goes on from its file, if there is one.
func ExampleSolver_LoadFile() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "training.kfac")
	for range 2 {
		solver := kfac.New()
		if err := solver.LoadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Fatal(err)
		}
		cost, _, params := yourModel()
		vm, err := solver.VM(cost) // which gets the state, and its weights
		if err != nil {
			log.Fatal(err)
		}
		train(vm, solver, params, 5)
		if err := solver.SaveFile(path); err != nil {
			log.Fatal(err)
		}
		fmt.Println("step", solver.Stats().Step)
	}
	// Output:
	// step 5
	// step 10
}

// What Step returns says what was wrong, where, and what to write. Nothing has changed then.
func ExampleSolver_Step() {
	_, _, params := yourModel()
	solver := kfac.New(kfac.WithLogger(nil))
	err := solver.Step(gorgonia.NodesToValueGrads(params)) // RunAll was forgotten
	var wrong *kfac.ParamError
	if errors.As(err, &wrong) && errors.Is(err, kfac.ErrNoGradient) {
		fmt.Printf("%s: %v: %s\n", wrong.Param, wrong.Err, wrong.Hint)
	}
	// Output: w: no gradient: call RunAll before Step, and make a tape machine after Grad, with BindDualValues(params...)
}

// A test of a program that trains on two machines: both end with the same weights.
func ExampleInProcess() {
	costs, weights := make([]*gorgonia.Node, 2), make([]gorgonia.Nodes, 2)
	for rank := range costs {
		costs[rank], _, weights[rank] = yourModel() // with this rank's cases
	}
	err := kfac.InProcess(2, func(c kfac.Communicator) error {
		solver := kfac.New(kfac.WithCommunicator(c)) // package mpi has the one for machines
		vm, err := solver.VM(costs[c.Rank()])
		if err != nil {
			return err
		}
		defer vm.Close()
		train(vm, solver, weights[c.Rank()], 20)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f %.1f\n", weights[0][0].Value().Data(), weights[1][0].Value().Data())
	// Output: [3.0 -2.0] [3.0 -2.0]
}

// Classes: the distribution is that of the logits, before the softmax.
func ExampleCategorical() {
	g := gorgonia.NewGraph()
	x := input(g, "x", 2, 1, 0, 0, 1, 1, 1, -1, 0)
	class := input(g, "class", 2, 1, 0, 0, 1, 1, 0, 0, 1) // one-hot
	w := input(g, "w", 2, 0, 0, 0, 0)
	must := gorgonia.Must
	logits := must(gorgonia.Mul(x, w))
	hit := must(gorgonia.HadamardProd(must(gorgonia.LogSoftMax(logits)), class))
	cost := must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.Sum(hit, 1))))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
	if err != nil {
		log.Fatal(err)
	}
	vm, err := solver.VM(logits)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, gorgonia.Nodes{w}, 20)
	fmt.Println("below a tenth of the start:", solver.Stats().Cost < 0.1*math.Ln2)
	// Output: below a tenth of the start: true
}

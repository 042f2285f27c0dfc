package kfac_test

import (
	"fmt"
	"log"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// line is the model y = x theta, with theta = (1, 2) as the best one, and a VM that runs it.
func line() (out, cost, theta *gorgonia.Node, x *tensor.Dense, vm gorgonia.VM) {
	g := gorgonia.NewGraph()
	vector := func(name string, v ...float64) *gorgonia.Node {
		return gorgonia.NewVector(g, tensor.Float64, gorgonia.WithName(name),
			gorgonia.WithShape(len(v)), gorgonia.WithValue(tensor.New(tensor.WithBacking(v))))
	}
	x = tensor.New(tensor.WithShape(4, 2), tensor.WithBacking([]float64{1, 0, 0, 1, 1, 1, 2, 1}))
	inputs := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName("x"), gorgonia.WithShape(4, 2),
		gorgonia.WithValue(x))
	y := vector("y", 1, 2, 3, 4)
	theta = vector("theta", 0, 0)
	must := gorgonia.Must
	out = must(gorgonia.Mul(inputs, theta))
	cost = must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, theta); err != nil {
		log.Fatal(err)
	}
	return out, cost, theta, x, gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(theta))
}

func ExampleWithSkipNotFinite() {
	out, cost, theta, x, vm := line()
	defer vm.Close()
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithSkipNotFinite(3))
	if err != nil {
		log.Fatal(err)
	}
	for batch := range 4 {
		x.Set(0, 1.0)
		if batch == 1 {
			x.Set(0, math.NaN()) // a record that could not be read
		}
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
		st := solver.Stats()
		fmt.Printf("step %d left out: %v\n", st.Step, st.Skipped)
	}
	fmt.Println("batches left out:", solver.Stats().SkippedBatches)
	// Output:
	// step 1 left out: false
	// step 2 left out: true
	// step 2 left out: false
	// step 3 left out: false
	// batches left out: 1
}

func ExampleZeroGradients() {
	out, cost, theta, x, vm := line()
	defer vm.Close()
	params := []gorgonia.ValueGrad{theta}
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1))
	if err != nil {
		log.Fatal(err)
	}
	for batch := range 3 {
		x.Set(0, 1.0)
		if batch == 1 {
			x.Set(0, math.Inf(1))
		}
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(params); err != nil {
			kfac.ZeroGradients(params) // the next RunAll would add to what is there
			fmt.Println("a batch that does not count")
		}
		vm.Reset()
	}
	fmt.Println("steps:", solver.Stats().Step)
	// Output:
	// a batch that does not count
	// steps: 2
}

// Adam steps along the preconditioned gradient.
func ExampleWithInner() {
	out, cost, theta, _, vm := line()
	defer vm.Close()
	const rate = 0.1
	adam := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(rate))
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithLearningRate(rate), kfac.WithInner(adam))
	if err != nil {
		log.Fatal(err)
	}
	for range 200 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Printf("theta = %.2f\n", theta.Value().Data())
	// Output: theta = [1.00 2.00]
}

// The caller makes the step, here by plain gradient descent.
func ExampleSolver_Precondition() {
	out, cost, theta, _, vm := line()
	defer vm.Close()
	const rate = 0.5
	params := []gorgonia.ValueGrad{theta}
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithLearningRate(rate),
		kfac.WithNormConstraint(math.Inf(1)))
	if err != nil {
		log.Fatal(err)
	}
	descent := gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(rate))
	for range 20 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Precondition(params); err != nil {
			log.Fatal(err)
		}
		if err := descent.Step(params); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Printf("theta = %.2f\n", theta.Value().Data())
	// Output: theta = [1.00 2.00]
}

// The learning rate warms up over ten steps, and falls to a hundredth in the hundred after these.
func ExampleWithSchedule() {
	out, cost, theta, _, vm := line()
	defer vm.Close()
	rate := kfac.WarmUp(10, kfac.CosineDecay(0.5, 0.005, 100))
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithSchedule(kfac.LearningRate, rate),
		kfac.WithNormConstraint(math.Inf(1)))
	if err != nil {
		log.Fatal(err)
	}
	for range 120 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
		if st := solver.Stats(); st.Step == 1 || st.Step%20 == 0 {
			fmt.Printf("step %3d: learning rate %.3f\n", st.Step, st.LearningRate)
		}
	}
	fmt.Printf("theta = %.1f\n", theta.Value().Data())
	// Output:
	// step   1: learning rate 0.045
	// step  20: learning rate 0.490
	// step  40: learning rate 0.404
	// step  60: learning rate 0.260
	// step  80: learning rate 0.113
	// step 100: learning rate 0.020
	// step 120: learning rate 0.005
	// theta = [1.0 2.0]
}

func ExampleSolver_Set() {
	out, cost, theta, _, vm := line()
	defer vm.Close()
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithLearningRate(0.5),
		kfac.WithNormConstraint(math.Inf(1)))
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
		st := solver.Stats()
		fmt.Printf("step %d: learning rate %g\n", st.Step, st.LearningRate)
		if err := solver.Set(kfac.LearningRate, st.LearningRate/2); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// step 1: learning rate 0.5
	// step 2: learning rate 0.25
	// step 3: learning rate 0.125
}

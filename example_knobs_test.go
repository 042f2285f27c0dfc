package kfac_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// fitTwoLayers trains twoLayers for some updates on the VM of a solver.
func fitTwoLayers(updates int, opts ...kfac.Option) (*kfac.Solver, gorgonia.Nodes) {
	cost, params := twoLayers()
	solver := kfac.New(opts...)
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, params, updates)
	return solver, params
}

// With a learning rate of your own: four knobs, in the order in which they are worth turning.
func ExampleWithLearningRate() {
	solver, _ := fitTwoLayers(100,
		kfac.WithLearningRate(0.3),
		kfac.WithDamping(0.01),
		kfac.WithMomentum(0.8),
		kfac.WithNormConstraint(0.1))
	s := solver.Stats()
	fmt.Println(s.LearningRate <= 0.3, s.Momentum, s.Damping, s.Cost < 0.05)
	// Output: true 0.8 0.01 true
}

// Other forms of the inverse, in place of the block-diagonal one.
func ExampleWithEKFAC() {
	for _, form := range []kfac.Option{kfac.WithEKFAC(), kfac.WithExactDamping(), kfac.WithBlockTridiagonal()} {
		solver, _ := fitTwoLayers(50, form)
		fmt.Println("fitted:", solver.Stats().Cost < 0.05)
	}
	// Output:
	// fitted: true
	// fitted: true
	// fitted: true
}

// Wide layers: inverses every ten steps, beside the training, ready after five of them. A side of
// more than 4 elements has a diagonal.
func ExampleWithBackgroundInverses() {
	solver, _ := fitTwoLayers(30,
		kfac.WithInverseUpdatePeriod(10),
		kfac.WithBackgroundInverses(5),
		kfac.WithMaxDim(4))
	for _, p := range solver.Plan().Params {
		fmt.Println(p.Name, p.Treatment, p.Block)
	}
	// Output:
	// body_w kronecker body_w: A 3, diagonal G 6
	// body_b kronecker body_w: A 3, diagonal G 6
	// head_w kronecker head_w: diagonal A 6, G 1
}

// Each step takes a thousandth of every weight away; biases keep theirs.
func ExampleWithWeightDecay() {
	plain, _ := fitTwoLayers(200)
	decayed, _ := fitTwoLayers(200, kfac.WithWeightDecay(1e-3), kfac.WithGroup("*_b", kfac.GroupDecay(0)))
	fmt.Println("smaller weights:", decayed.Stats().ParamNorm < plain.Stats().ParamNorm)
	// Output: smaller weights: true
}

// A step is shortened as if its gradient had a norm of 0.01.
func ExampleWithClipNorm() {
	solver, _ := fitTwoLayers(1, kfac.WithClipNorm(0.01))
	s := solver.Stats()
	fmt.Println("shortened to the limit, or further:", s.Shrink <= 0.01/s.GradNorm*(1+1e-9))
	// Output: shortened to the limit, or further: true
}

// The mean of the weights from step 20 on. What is evaluated with it is in UseAverage's example.
func ExampleWithIterateAveraging() {
	solver, params := fitTwoLayers(40, kfac.WithIterateAveraging(0.99, 20))
	last := params[2].Value().Data().([]float64)[0]
	restore, err := solver.UseAverage()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("other weights:", params[2].Value().Data().([]float64)[0] != last)
	restore()
	fmt.Println("the same again:", params[2].Value().Data().([]float64)[0] == last)
	// Output:
	// other weights: true
	// the same again: true
}

// Parameters by their nodes: the body is stepped by Adam, the head with half the step and without
// weight decay.
func ExampleWithGroupOf() {
	cost, params := twoLayers()
	solver := kfac.New(
		kfac.WithL2Reg(1e-4),
		kfac.WithGroupOf(params[:2], kfac.GroupSolver(gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.05)))),
		kfac.WithGroupOf(params[2:], kfac.GroupRate(0.5), kfac.GroupL2(0)))
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, params, 100)
	for _, p := range solver.Plan().Params {
		fmt.Println(p.Name, p.Treatment)
	}
	fmt.Println("fitted:", solver.Stats().Cost < 0.05)
	// Output:
	// body_w excluded
	// body_b excluded
	// head_w kronecker
	// fitted: true
}

// Half a wave of the cosine, from 0.1 at step 1 to 0.001 at step 101 and after it.
func ExampleCosineDecay() {
	rate := kfac.CosineDecay(0.1, 0.001, 100)
	for _, step := range []int{1, 51, 101, 500} {
		fmt.Printf("%.4f ", rate(step))
	}
	// Output: 0.1000 0.0505 0.0010 0.0010
}

// Four steps to the first value of another schedule, which then begins.
func ExampleWarmUp() {
	rate := kfac.WarmUp(4, kfac.StepDecay(0.1, 0.5, 2))
	for step := range 8 {
		fmt.Printf("%.3f ", rate(step+1))
	}
	// Output: 0.020 0.040 0.060 0.080 0.100 0.100 0.050 0.050
}

// The other schedules.
func ExampleSchedule() {
	own := func(step int) float64 { return 1 / math.Sqrt(float64(step)) }
	for _, s := range []kfac.Schedule{
		kfac.Constant(0.1), kfac.StepDecay(0.1, 0.1, 10), kfac.ExponentialDecay(0.1, 0.01, 20), own,
	} {
		fmt.Printf("%.4f %.4f %.4f\n", s(1), s(11), s(21))
	}
	// Output:
	// 0.1000 0.1000 0.1000
	// 0.1000 0.0100 0.0010
	// 0.1000 0.0100 0.0010
	// 1.0000 0.3015 0.2182
}

// How many chunks of 100 cases an update has when the batch grows from 100 to all 1000 in 50
// updates.
func ExampleGrowingBatch() {
	growing := kfac.GrowingBatch{First: 100, All: 1000, FullAt: 50}
	for _, update := range []int{1, 25, 50, 80} {
		fmt.Print(growing.Chunks(update, 100), " ")
	}
	// Output: 1 3 10 10
}

// Weights and state of a training, taken over by another program with another learning rate.
func ExampleSolver_Load() {
	source, _ := fitTwoLayers(10, kfac.WithLearningRate(0.3))
	var file bytes.Buffer
	if err := source.Save(&file); err != nil {
		log.Fatal(err)
	}
	cost, params := twoLayers()
	solver := kfac.New(kfac.WithLearningRate(0.1))
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	saved := file.Bytes()
	err = solver.Load(bytes.NewReader(saved))
	fmt.Println("other settings:", errors.Is(err, kfac.ErrOtherSettings))
	if err := solver.Load(bytes.NewReader(saved), kfac.WithOtherSettings()); err != nil {
		log.Fatal(err)
	}
	train(vm, solver, params, 1)
	fmt.Println("step", solver.Stats().Step)
	// Output:
	// other settings: true
	// step 11
}

// A recorder that saves every second step. The file is a whole one at any time: a save that fails
// leaves the one before.
func ExampleSolver_SaveFile() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "training.kfac")
	var solver *kfac.Solver
	save := func(s kfac.Stats) {
		if s.Step%2 == 0 {
			if err := solver.SaveFile(path); err != nil {
				log.Fatal(err)
			}
		}
	}
	cost, params := twoLayers()
	solver = kfac.New(kfac.WithStats(save))
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	train(vm, solver, params, 5)

	saved := kfac.New()
	if err := saved.LoadFile(path); err != nil {
		log.Fatal(err)
	}
	fmt.Println("saved at step", saved.Stats().Step)
	err = solver.SaveFile(filepath.Join(dir, "no such folder", "training.kfac"))
	fmt.Println("no folder:", errors.Is(err, fs.ErrNotExist))
	// Output:
	// saved at step 4
	// no folder: true
}

// Files without factors are a fraction as large. The training goes on, another way.
func ExampleWithoutFactors() {
	solver, _ := fitTwoLayers(10)
	var whole, small bytes.Buffer
	if err := errors.Join(solver.Save(&whole), solver.Save(&small, kfac.WithoutFactors())); err != nil {
		log.Fatal(err)
	}
	fmt.Println("smaller:", small.Len() < whole.Len())
	// Output: smaller: true
}

// One program for each machine, each with its own cases. Rank 0 saves for all.
func ExampleWithCommunicator() {
	var file bytes.Buffer
	err := kfac.InProcess(2, func(c kfac.Communicator) error { // or mpi.New() of package mpi
		cost, _, params := yourModel() // with the cases of c.Rank()
		solver := kfac.New(kfac.WithCommunicator(c))
		vm, err := solver.VM(cost)
		if err != nil {
			return err
		}
		defer vm.Close()
		train(vm, solver, params, 3)
		return solver.Save(&file) // which only rank 0 writes to
	})
	if err != nil {
		log.Fatal(err)
	}
	alone := kfac.New()
	if err := alone.Load(&file); err != nil {
		log.Fatal(err)
	}
	fmt.Println("goes on alone, at step", alone.Stats().Step)
	// Output: goes on alone, at step 3
}

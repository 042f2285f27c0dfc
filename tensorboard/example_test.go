package tensorboard_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/tensorboard"
)

// The numbers of each step of a training, and a histogram of its weights.
func Example() {
	dir, err := os.MkdirTemp("", "runs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	board, err := tensorboard.Create(filepath.Join(dir, "first"))
	if err != nil {
		log.Fatal(err)
	}

	g := gorgonia.NewGraph()
	matrix := func(name string, rows, cols int, data ...float64) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(rows, cols),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x, y, w := matrix("x", 3, 2, 1, 2, 3, 1, 0, 1), matrix("y", 3, 1, 1, 0, 2), matrix("w", 2, 1, 0, 0)
	out := gorgonia.Must(gorgonia.Mul(x, w))
	cost := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	solver, err := kfac.NewSolver(cost, kfac.SquaredError(out), kfac.WithRecorder(board), kfac.WithLayerStats(1))
	if err != nil {
		log.Fatal(err)
	}
	vm, err := solver.VM()
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	for range 5 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{w}); err != nil {
			log.Fatal(err)
		}
	}
	if err := board.Histogram("weights/w", 5, w.Value().Data().([]float64)); err != nil {
		log.Fatal(err)
	}
	if err := board.Close(); err != nil {
		log.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "events.out.tfevents.*"))
	fmt.Println(len(files), err)
	// Output: 1 <nil>
}

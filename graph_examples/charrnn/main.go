// Charrnn learns to predict the next character of Isaac Newton's Opticks, which comes with Go: a
// recurrent net, unrolled over sequences of 20 characters, whose state goes on from one sequence to
// the next.
//
//	go run ./graph_examples/charrnn
//	go run ./graph_examples/charrnn -adam
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

const rows, length, hidden = 32, 20, 64 // sequences in a batch, characters of each, units

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	steps := flag.Int("steps", 100, "updates")
	file := flag.String("text", "", "text to learn (default: the Opticks that come with Go)")
	flag.Parse()
	loss, err := train(*file, *steps, *adam)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss is %.3f nats per character, the mean of the last ten of %d updates\n", loss, *steps)
}

// train returns the mean loss of the last ten updates.
func train(file string, steps int, adam bool) (loss float64, err error) {
	text, kinds, err := read(file)
	if err != nil {
		return 0, err
	}

	// The model. All inputs are one-hot, one row per sequence.
	g := G.NewGraph()
	input := func(name string, columns int) (*G.Node, []float32) {
		data := make([]float32, rows*columns)
		value := tensor.New(tensor.WithShape(rows, columns), tensor.WithBacking(data))
		return G.NewMatrix(g, G.Float32, G.WithName(name), G.WithValue(value)), data
	}
	wx := G.NewMatrix(g, G.Float32, G.WithName("wx"), G.WithShape(kinds, hidden), G.WithInit(G.GlorotN(1)))
	wh := G.NewMatrix(g, G.Float32, G.WithName("wh"), G.WithShape(hidden, hidden), G.WithInit(G.GlorotN(1)))
	wy := G.NewMatrix(g, G.Float32, G.WithName("wy"), G.WithShape(hidden, kinds), G.WithInit(G.GlorotN(1)))
	bh := G.NewVector(g, G.Float32, G.WithName("bh"), G.WithShape(hidden), G.WithInit(G.Zeroes()))
	by := G.NewVector(g, G.Float32, G.WithName("by"), G.WithShape(kinds), G.WithInit(G.Zeroes()))
	params := G.Nodes{wx, wh, wy, bh, by}
	state, stateData := input("state", hidden)
	xs, ys := make([][]float32, length), make([][]float32, length)
	var costs G.Nodes
	h := state
	for t := range length { // the same weights at every character
		var x, y *G.Node
		x, xs[t] = input(fmt.Sprint("x", t), kinds)
		y, ys[t] = input(fmt.Sprint("y", t), kinds)
		sum := G.Must(G.Add(G.Must(G.Mul(x, wx)), G.Must(G.Mul(h, wh))))
		h = G.Must(G.Tanh(G.Must(G.BroadcastAdd(sum, bh, nil, []byte{0}))))
		logits := G.Must(G.BroadcastAdd(G.Must(G.Mul(h, wy)), by, nil, []byte{0}))
		each := G.Must(G.Sum(G.Must(G.HadamardProd(G.Must(G.LogSoftMax(logits)), y)), 1))
		costs = append(costs, G.Must(G.Neg(G.Must(G.Mean(each)))))
	}

	// The cost: the mean over the characters. It is made of twenty predictions of a class, which
	// K-FAC finds in the graph. kfac.Joint declares them one by one.
	cost := G.Must(G.Div(G.Must(G.ReduceAdd(costs)), G.NewConstant(float32(length))))
	if _, err := G.Grad(cost, params...); err != nil {
		return 0, err
	}
	var last G.Value
	G.Read(h, &last)

	// The solver, and the VM that goes with it. A weight that is used at all characters has one
	// block of curvature, made of all its uses.
	k := kfac.New()
	var solver G.Solver = k
	vm, err := k.VM(cost)
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(0.02)) // the best of several rates
		vm, err = kfac.NewVM(cost)
	}
	if err != nil {
		return 0, err
	}
	defer vm.Close()

	strand := (len(text) - 1) / rows // each row of the batch reads one
	if strand < length {
		return 0, fmt.Errorf("a text of %d characters is too short for %d sequences of %d", len(text), rows, length)
	}
	for step, at := 1, 0; step <= steps; step, at = step+1, at+length {
		if at+length > strand { // all begin again
			at = 0
			clear(stateData)
		}
		for t := range length {
			clear(xs[t])
			clear(ys[t])
			for row := range rows {
				next := text[row*strand+at+t:]
				xs[t][row*kinds+next[0]] = 1
				ys[t][row*kinds+next[1]] = 1
			}
		}
		if err := vm.RunAll(); err != nil {
			return 0, err
		}
		if step%10 == 0 {
			fmt.Printf("update %3d: loss %.3f\n", step, cost.Value().Data())
		}
		if step > steps-10 {
			loss += float64(cost.Value().Data().(float32)) / float64(min(steps, 10))
		}
		if err := solver.Step(G.NodesToValueGrads(params)); err != nil {
			return 0, err
		}
		copy(stateData, last.Data().([]float32)) // the next sequences begin where these end
	}
	return loss, nil
}

// read numbers the characters of a text from 0 to kinds - 1.
func read(file string) (text []int, kinds int, err error) {
	if file == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return nil, 0, fmt.Errorf("where is Go? %w; -text takes any text", err)
		}
		file = filepath.Join(strings.TrimSpace(string(root)), "src", "testdata", "Isaac.Newton-Opticks.txt")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, fmt.Errorf("%w; -text takes any text", err)
	}
	alphabet := slices.Compact(slices.Sorted(slices.Values(data)))
	for _, b := range data {
		i, _ := slices.BinarySearch(alphabet, b)
		text = append(text, i)
	}
	return text, len(alphabet), nil
}

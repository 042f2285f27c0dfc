// Iris learns the species of Fisher's irises from four measurements: a net with a hidden layer of
// tanh units and a softmax output.
//
//	go run ./graph_examples/iris
//	go run ./graph_examples/iris -adam
package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"strings"

	"github.com/gorgonia-kfac/kfac"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

const flowers, inputs, hidden, species = 150, 4, 8, 3

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	steps := flag.Int("steps", 50, "updates")
	flag.Parse()
	loss, err := train(*steps, *adam)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss is %.2g nats per flower after %d updates\n", loss, *steps)
}

// train returns the loss before the last update.
func train(steps int, adam bool) (loss float64, err error) {
	// The model: logits = tanh(x w1 + b1) w2 + b2. One row is one flower.
	g := G.NewGraph()
	matrix := func(name string, columns int, data []float32) *G.Node {
		value := tensor.New(tensor.WithShape(len(data)/columns, columns), tensor.WithBacking(data))
		return G.NewMatrix(g, G.Float32, G.WithName(name), G.WithValue(value))
	}
	rng := rand.New(rand.NewPCG(1, 2)) // Gorgonia's own initial weights, such as GlorotN, have no seed
	weights := func(rows, columns int) []float32 {
		w := make([]float32, rows*columns)
		for i := range w {
			w[i] = float32(rng.NormFloat64()) / 2
		}
		return w
	}
	dense := func(x, w, b *G.Node) *G.Node {
		return G.Must(G.BroadcastAdd(G.Must(G.Mul(x, w)), b, nil, []byte{0}))
	}
	xs, ys := measurements()
	x, y := matrix("x", inputs, xs), matrix("y", species, ys)
	w1, b1 := matrix("w1", hidden, weights(inputs, hidden)), matrix("b1", hidden, make([]float32, hidden))
	w2, b2 := matrix("w2", species, weights(hidden, species)), matrix("b2", species, make([]float32, species))
	logits := dense(G.Must(G.Tanh(dense(x, w1, b1))), w2, b2)

	// The cost: the cross-entropy with the one-hot rows of y. It says that the model predicts a
	// class for each row, and K-FAC finds this in the graph.
	logProbs := G.Must(G.LogSoftMax(logits))
	cost := G.Must(G.Neg(G.Must(G.Mean(G.Must(G.Sum(G.Must(G.HadamardProd(logProbs, y)), 1))))))
	params := G.Nodes{w1, b1, w2, b2}
	if _, err := G.Grad(cost, params...); err != nil {
		return 0, err
	}
	var answers G.Value
	G.Read(logProbs, &answers) // a tape machine may overwrite the values of nodes; what is read is kept
	vm := G.NewTapeMachine(g, G.BindDualValues(params...))
	defer vm.Close()

	// The solver. These two lines are all that differs between K-FAC and Adam.
	var solver G.Solver = kfac.New()
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(1)) // the best of many rates for 300 updates
	}

	for step := 1; step <= steps; step++ {
		if err := vm.RunAll(); err != nil {
			return 0, err
		}
		loss = float64(cost.Value().Data().(float32))
		if step%10 == 0 {
			fmt.Printf("update %3d: loss %.2g, %d of %d right\n", step, loss, right(answers, ys), flowers)
		}
		if err := solver.Step(G.NodesToValueGrads(params)); err != nil {
			return 0, err
		}
		vm.Reset()
	}
	return loss, nil
}

// right counts the rows in which the answer with the largest probability is the one-hot label.
func right(answers G.Value, labels []float32) (count int) {
	p := answers.Data().([]float32)
	for first := 0; first < len(p); first += species {
		best := 0
		for k := range species {
			if p[first+k] > p[first+best] {
				best = k
			}
		}
		count += int(labels[first+best])
	}
	return count
}

// measurements returns four numbers for each flower, about standardised, and its species, one-hot.
// K-FAC does not need standardised inputs, but tanh units that start saturated learn slowly.
func measurements() (xs, ys []float32) {
	means, deviations := [inputs]float32{58, 31, 38, 12}, [inputs]float32{8, 4, 18, 8}
	for i, word := range strings.Fields(irises) {
		var v [inputs]float32
		if _, err := fmt.Sscanf(word, "%2f%2f%2f%2f", &v[0], &v[1], &v[2], &v[3]); err != nil {
			log.Fatal(err)
		}
		for k := range v {
			xs = append(xs, (v[k]-means[k])/deviations[k])
		}
		var label [species]float32
		label[i/50] = 1
		ys = append(ys, label[:]...)
	}
	return xs, ys
}

// irises are Fisher's 150, of 1936: 50 setosa, 50 versicolor, 50 virginica. Two digits each are the
// length and the width of a sepal, the length and the width of a petal, in mm.
const irises = `
51351402 49301402 47321302 46311502 50361402 54391704 46341403 50341502 44291402 49311501
54371502 48341602 48301401 43301101 58401202 57441504 54391304 51351403 57381703 51381503
54341702 51371504 46361002 51331705 48341902 50301602 50341604 52351502 52341402 47321602
48311602 54341504 52411501 55421402 49311502 50321202 55351302 49361401 44301302 51341502
50351303 45231303 44321302 50351606 51381904 48301403 51381602 46321402 53371502 50331402
70324714 64324515 69314915 55234013 65284615 57284513 63334716 49243310 66294613 52273914
50203510 59304215 60224010 61294714 56293613 67314414 56304515 58274110 62224515 56253911
59324818 61284013 63254915 61284712 64294313 66304414 68284814 67305017 60294515 57263510
55243811 55243710 58273912 60275116 54304515 60344516 67314715 63234413 56304113 55254013
55264412 61304614 58264012 50233310 56274213 57304212 57294213 62294313 51253011 57284113
63336025 58275119 71305921 63295618 65305822 76306621 49254517 73296318 67255818 72366125
65325120 64275319 68305521 57255020 58285124 64325323 65305518 77386722 77266923 60225015
69325723 56284920 77286720 63274918 67335721 72326018 62284818 61304918 64285621 72305816
74286119 79386420 64285622 63285115 61265614 77306123 63345624 64315518 60304818 69315421
67315624 69315123 58275119 68325923 67335725 67305223 63255019 65305220 62345423 59305118
`

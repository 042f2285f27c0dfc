// Logistic predicts from four measurements whether an iris is a versicolor: a logistic regression
// with the cost written out by hand.
//
//	go run ./graph_examples/logistic
//	go run ./graph_examples/logistic -adam -steps 500
package main

import (
	"flag"
	"fmt"
	"log"
	"strings"

	"github.com/gorgonia-kfac/kfac"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	steps := flag.Int("steps", 10, "updates")
	flag.Parse()
	loss, err := train(*steps, *adam)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss is %.4f nats per flower after %d updates\n", loss, *steps)
}

// train returns the loss before the last update.
func train(steps int, adam bool) (loss float64, err error) {
	xs, ys := measurements()
	rows := len(ys)

	// The model: a weight for each measurement, and a scalar as the bias.
	g := G.NewGraph()
	x := G.NewMatrix(g, G.Float32, G.WithName("x"),
		G.WithValue(tensor.New(tensor.WithShape(rows, 4), tensor.WithBacking(xs))))
	y := G.NewVector(g, G.Float32, G.WithName("y"),
		G.WithValue(tensor.New(tensor.WithShape(rows), tensor.WithBacking(ys))))
	w := G.NewVector(g, G.Float32, G.WithName("w"), G.WithShape(4), G.WithInit(G.Zeroes()))
	b := G.NewScalar(g, G.Float32, G.WithName("b"), G.WithValue(float32(0)))
	p := G.Must(G.Sigmoid(G.Must(G.Add(G.Must(G.Mul(x, w)), b)))) // the probability of a versicolor

	// The cost: -y log p - (1-y) log (1-p), in the mean over the flowers.
	one := G.NewConstant(float32(1))
	yes := G.Must(G.HadamardProd(y, G.Must(G.Log(p))))
	no := G.Must(G.HadamardProd(G.Must(G.Sub(one, y)), G.Must(G.Log(G.Must(G.Sub(one, p))))))
	cost := G.Must(G.Neg(G.Must(G.Mean(G.Must(G.Add(yes, no))))))
	params := G.Nodes{w, b}
	if _, err := G.Grad(cost, params...); err != nil {
		return 0, err
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(params...))
	defer vm.Close()

	// The solver. kfac.New() would find in the graph that the model predicts yes or no. Here it is
	// told, which is what to do where a cost is written in a way that New does not know. Then the
	// plan can be shown before the first step: what is done with each parameter, and why.
	var solver G.Solver
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(0.1)) // the best of many rates
	} else {
		k, err := kfac.NewSolver(cost, kfac.Bernoulli(p))
		if err != nil {
			return 0, err
		}
		fmt.Print(k.Plan())
		solver = k
	}

	for step := 1; step <= steps; step++ {
		if err := vm.RunAll(); err != nil {
			return 0, err
		}
		loss = float64(cost.Value().Data().(float32))
		if step <= 10 || step%100 == 0 {
			fmt.Printf("update %3d: loss %.4f\n", step, loss)
		}
		if err := solver.Step(G.NodesToValueGrads(params)); err != nil {
			return 0, err
		}
		vm.Reset()
	}
	return loss, nil
}

// measurements returns rows of four numbers, and 1 for each versicolor.
func measurements() (xs, ys []float32) {
	for i, word := range strings.Fields(irises) {
		var v [4]float32
		if _, err := fmt.Sscanf(word, "%2f%2f%2f%2f", &v[0], &v[1], &v[2], &v[3]); err != nil {
			log.Fatal(err)
		}
		xs = append(xs, v[:]...)
		versicolor := float32(0)
		if i/50 == 1 {
			versicolor = 1
		}
		ys = append(ys, versicolor)
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

// Linear predicts the width of an iris's petal from three other measurements by linear regression.
// For a linear model with a squared error the curvature that K-FAC works with is exact. So it is at
// the best fit after five updates, where Adam takes hundreds.
//
//	go run ./graph_examples/linear
//	go run ./graph_examples/linear -adam -steps 500
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
	steps := flag.Int("steps", 5, "updates")
	flag.Parse()
	loss, err := train(*steps, *adam)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the loss is %.4f cm^2 after %d updates\n", loss, *steps)
}

// train returns the loss before the last update.
func train(steps int, adam bool) (loss float64, err error) {
	// The data, one row per flower. K-FAC does not care about the units of the columns.
	xs, ys := measurements()
	rows := len(ys)

	// The model. The column of ones is for the intercept; K-FAC takes it for the bias that it is.
	g := G.NewGraph()
	x := G.NewMatrix(g, G.Float64, G.WithName("x"),
		G.WithValue(tensor.New(tensor.WithShape(rows, 4), tensor.WithBacking(xs))))
	y := G.NewVector(g, G.Float64, G.WithName("y"),
		G.WithValue(tensor.New(tensor.WithShape(rows), tensor.WithBacking(ys))))
	theta := G.NewVector(g, G.Float64, G.WithName("theta"), G.WithShape(4), G.WithInit(G.Zeroes()))
	prediction := G.Must(G.Mul(x, theta))

	// The cost: a mean squared error says that the model predicts numbers with normal errors. K-FAC
	// reads this from the graph.
	cost := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(prediction, y))))))
	if _, err := G.Grad(cost, theta); err != nil {
		return 0, err
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(theta))
	defer vm.Close()

	// The solver. These two lines are all that differs between K-FAC and Adam.
	var solver G.Solver = kfac.New()
	if adam {
		solver = G.NewAdamSolver(G.WithLearnRate(0.2)) // the best of many rates; K-FAC needs none
	}

	for step := 1; step <= steps; step++ {
		if err := vm.RunAll(); err != nil { // computes the cost and the gradients
			return 0, err
		}
		loss = cost.Value().Data().(float64)
		if step <= 10 || step%100 == 0 {
			fmt.Printf("update %3d: loss %.4f\n", step, loss)
		}
		// Look at the error: a solver that could not make a step says here why.
		if err := solver.Step(G.NodesToValueGrads(G.Nodes{theta})); err != nil {
			return 0, err
		}
		vm.Reset()
	}
	fmt.Printf("weights of the sepal's length and width, the petal's length, and 1: %.3f\n", theta.Value().Data())
	return loss, nil
}

// measurements returns rows of three measurements and a one, and the widths to predict, in cm.
func measurements() (xs, ys []float64) {
	for _, word := range strings.Fields(irises) {
		var length, width, petalLength, petalWidth float64
		if _, err := fmt.Sscanf(word, "%2f%2f%2f%2f", &length, &width, &petalLength, &petalWidth); err != nil {
			log.Fatal(err)
		}
		xs = append(xs, length/10, width/10, petalLength/10, 1)
		ys = append(ys, petalWidth/10)
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

// Example trains a small classifier on as many ranks as mpirun starts, each with its own cases.
//
//	mpi/with 2 run ./example
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/mpi"
)

func main() {
	updates := flag.Int("updates", 30, "updates")
	cases := flag.Int("cases", 240, "cases of all ranks")
	flag.Parse()
	c, err := mpi.New()
	if err != nil {
		log.Fatal(err)
	}
	if err := train(c, *updates, *cases); err != nil {
		c.Abort(err)
	}
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
}

func train(c kfac.Communicator, updates, all int) error {
	// This rank has the cases from, to of all.
	from, to := c.Rank()*all/c.Size(), (c.Rank()+1)*all/c.Size()
	xs, ys := spirals(from, to)

	// The same weights on all ranks: the seed is the same.
	rng := rand.New(rand.NewPCG(1, 1))
	g := G.NewGraph()
	matrix := func(name string, rows, cols int, data []float64) *G.Node {
		return G.NewMatrix(g, G.Float64, G.WithName(name), G.WithValue(tensor.New(tensor.WithShape(rows, cols),
			tensor.WithBacking(data))))
	}
	h := matrix("x", to-from, 2, xs)
	var params G.Nodes
	widths := []int{2, 30, 20, 1}
	for i, out := range widths[1:] {
		w := make([]float64, widths[i]*out)
		for j := range w {
			w[j] = rng.NormFloat64() / math.Sqrt(float64(widths[i]))
		}
		layer := matrix(fmt.Sprint("w", i), widths[i], out, w)
		bias := matrix(fmt.Sprint("b", i), 1, out, make([]float64, out))
		params = append(params, layer, bias)
		h = G.Must(G.BroadcastAdd(G.Must(G.Mul(h, layer)), bias, nil, []byte{0}))
		if i+2 < len(widths) {
			h = G.Must(G.Tanh(h))
		}
	}
	y := matrix("y", to-from, 1, ys)
	cost := G.Must(G.Mean(G.Must(G.Sub(G.Must(G.Softplus(h)), G.Must(G.HadamardProd(y, h))))))
	if _, err := G.Grad(cost, params...); err != nil {
		return err
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(params...))
	defer vm.Close()

	solver := kfac.New(kfac.WithCommunicator(c))
	for step := 1; step <= updates; step++ {
		if err := vm.RunAll(); err != nil {
			return err
		}
		mean := []float64{cost.Value().Data().(float64) * float64(to-from) / float64(all)}
		if err := c.AllReduceFloat64(mean); err != nil {
			return err
		}
		if c.Rank() == 0 && (step%10 == 0 || step == updates) {
			fmt.Printf("update %3d on %d rank(s): loss %.6f\n", step, c.Size(), mean[0])
		}
		if err := solver.Step(G.NodesToValueGrads(params)); err != nil {
			return err
		}
		vm.Reset()
	}
	return nil
}

// spirals returns points on two spirals, and on which they are, for the cases from, to.
func spirals(from, to int) (xs, ys []float64) {
	for i := from; i < to; i++ {
		rng := rand.New(rand.NewPCG(2, uint64(i)))
		side := float64(i % 2)
		r := 3 * math.Sqrt(rng.Float64())
		angle := 1.5*r + math.Pi*side + 0.1*rng.NormFloat64()
		xs = append(xs, r*math.Cos(angle), r*math.Sin(angle))
		ys = append(ys, side)
	}
	return xs, ys
}

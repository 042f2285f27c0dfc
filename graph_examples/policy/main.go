// Policy learns to balance a pole on a cart by policy gradients: an actor pushes the cart to the
// left or to the right, and a critic says how much there is still to come.
//
//	go run ./graph_examples/policy
//	go run ./graph_examples/policy -adam
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac"
	"gonum.org/v1/gonum/floats"
	G "gorgonia.org/gorgonia"
)

const (
	batch    = 250 // pushes between two updates
	longest  = 500 // pushes, ten seconds, after which an episode ends
	balanced = 475 // pushes, in the mean of twenty episodes
	discount = 0.99
)

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	rate := flag.Float64("rate", 0.02, "Adam's learning rate; the best of many")
	steps := flag.Int("steps", 1000, "updates at most")
	seed := flag.Uint64("seed", 1, "of weights, starts and pushes")
	flag.Parse()
	mean, episodes := train(*seed, *steps, *adam, *rate)
	fmt.Printf("the pole stands for %.0f pushes after %d episodes\n", mean, episodes)
}

// train returns the mean pushes of the last twenty episodes, and how many there were.
func train(seed uint64, steps int, adam bool, rate float64) (mean float64, episodes int) {
	rng, g := rand.New(rand.NewPCG(seed, 0)), G.NewGraph()
	x, look := input(g, "x", batch, 4), input(g, "look", 1, 4) // states: a batch, and the one to act in
	actor, critic := weights(g, "actor", rng), weights(g, "critic", rng)

	// The actor's output is the logarithm of the odds of a push to the right. A push is made more
	// probable by its advantage: by how much better it turned out than the critic had expected.
	right, pushed, advantage := net(x, actor), input(g, "pushed", batch, 1), input(g, "advantage", batch, 1)
	surprise := G.Must(G.Sub(G.Must(G.Softplus(right)), G.Must(G.HadamardProd(pushed, right))))
	cost := G.Must(G.Mean(G.Must(G.HadamardProd(surprise, advantage))))
	came := input(g, "came", batch, 1)
	miss := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(net(x, critic), came))))))
	must(G.Grad(cost, actor...))
	must(G.Grad(miss, critic...))

	// Policy says what the actor predicts: its cost is no likelihood, and does not tell.
	var solver, criticSolver G.Solver = must(kfac.NewSolver(cost, kfac.Policy(kfac.Bernoulli(right)))), kfac.New()
	if adam {
		solver, criticSolver = G.NewAdamSolver(G.WithLearnRate(rate)), G.NewAdamSolver(G.WithLearnRate(rate))
	}
	odds, value := net(look, actor), net(look, critic)
	vm, criticVM, eye := must(kfac.NewVM(cost)), must(kfac.NewVM(miss)), must(kfac.NewVM(odds, value))

	lengths, s, length := []float64{}, start(rng), 0
	for step := 1; step <= steps && mean < balanced; step++ {
		for t, first := 0, 0; t < batch; t++ {
			copy(data(look), s[:])
			check(eye.RunAll())
			push := 0.0
			if rng.Float64() < 1/(1+math.Exp(-data(odds)[0])) {
				push = 1
			}
			copy(data(x)[4*t:], s[:])
			data(pushed)[t], data(advantage)[t] = push, -data(value)[0]
			s, length = s.push(20*push-10), length+1
			ends := s.falls() || length == longest
			if ends || t == batch-1 { // what pushes since the first were worth, from the last one back
				later := 0.0
				if !s.falls() { // it would go on
					copy(data(look), s[:])
					check(eye.RunAll())
					later = data(value)[0]
				}
				for i := t; i >= first; i-- {
					later = 1 - discount + discount*later
					data(came)[i] = later
					data(advantage)[i] += later
				}
				first = t + 1
			}
			if ends {
				lengths, s, length = append(lengths, float64(length)), start(rng), 0
			}
		}
		check(vm.RunAll())
		check(solver.Step(G.NodesToValueGrads(actor)))
		check(criticVM.RunAll())
		check(criticSolver.Step(G.NodesToValueGrads(critic)))
		if mean = floats.Sum(lengths[max(0, len(lengths)-20):]) / 20; step%10 == 0 {
			fmt.Printf("update %3d, episode %4d: the pole stands for %3.0f pushes\n", step, len(lengths), mean)
		}
	}
	return mean, len(lengths)
}

func weights(g *G.ExprGraph, name string, rng *rand.Rand) G.Nodes {
	w, b, v := input(g, name+" w", 4, 32), input(g, name+" b", 1, 32), input(g, name+" v", 32, 1)
	for i := range data(w) {
		data(w)[i] = rng.NormFloat64() / math.Sqrt(4)
	}
	for i := range data(v) {
		data(v)[i] = rng.NormFloat64() / math.Sqrt(32)
	}
	return G.Nodes{w, b, v}
}

// net is tanh(x w + b) v.
func net(x *G.Node, ws G.Nodes) *G.Node {
	return G.Must(G.Mul(G.Must(G.Tanh(G.Must(G.BroadcastAdd(G.Must(G.Mul(x, ws[0])), ws[1], nil, []byte{0})))), ws[2]))
}

// A state is the cart's place and speed, and the pole's angle and its speed.
type state [4]float64

// start is a state at rest, with the pole nearly upright.
func start(rng *rand.Rand) state { return state{2: (rng.Float64() - 0.5) / 10} }

// push is the state after a fiftieth of a second with a force on the cart (Barto et al. 1983).
func (s state) push(force float64) state {
	const g, mass, pole, half, dt = 9.8, 1.1, 0.1, 0.5, 0.02
	sin, cos := math.Sincos(s[2])
	f := (force + pole*half*s[3]*s[3]*sin) / mass
	turn := (g*sin - cos*f) / (half * (4.0/3 - pole*cos*cos/mass))
	f -= pole * half * turn * cos / mass
	return state{s[0] + dt*s[1], s[1] + dt*f, s[2] + dt*s[3], s[3] + dt*turn}
}

func (s state) falls() bool { return math.Abs(s[0]) > 2.4 || math.Abs(s[2]) > math.Pi/15 }

func input(g *G.ExprGraph, name string, shape ...int) *G.Node {
	return G.NewTensor(g, G.Float64, len(shape), G.WithName(name), G.WithShape(shape...), G.WithInit(G.Zeroes()))
}

func data(n *G.Node) []float64 { return n.Value().Data().([]float64) }

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func check(err error) { must(0, err) }

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
	"gorgonia.org/tensor"
)

const (
	batch    = 250 // pushes between two updates
	longest  = 500 // pushes, ten seconds, after which an episode ends
	balanced = 475 // pushes, in the mean of twenty episodes
	discount = 0.99
)

func main() {
	adam := flag.Bool("adam", false, "train with Adam in place of K-FAC")
	rate := flag.Float64("rate", 0.01, "Adam's learning rate; the best of many")
	steps := flag.Int("steps", 1000, "updates at most")
	seed := flag.Uint64("seed", 1, "of weights, starts and pushes")
	flag.Parse()
	mean, episodes := train(*seed, *steps, *adam, *rate)
	fmt.Printf("the pole stands for %.0f pushes after %d episodes\n", mean, episodes)
}

// A net computes an output of each state.
type net struct {
	*G.ExprGraph
	x, out *G.Node
	params G.Nodes
}

// build makes a net for so many states, of random weights or of those of another.
func build(states, outputs int, rng *rand.Rand, of *net) *net {
	n := &net{ExprGraph: G.NewGraph()}
	n.x = n.input("x", states, 4)
	for i, shape := range [][]int{{4, 32}, {1, 32}, {32, outputs}, {1, outputs}} {
		p := n.input(fmt.Sprint("p", i), shape...)
		if of != nil {
			check(G.Let(p, of.params[i].Value()))
		} else if i%2 == 0 { // a weight
			for j := range data(p) {
				data(p)[j] = rng.NormFloat64() / math.Sqrt(float64(shape[0]))
			}
		}
		n.params = append(n.params, p)
	}
	p := n.params
	h := G.Must(G.Tanh(G.Must(G.BroadcastAdd(G.Must(G.Mul(n.x, p[0])), p[1], nil, []byte{0}))))
	n.out = G.Must(G.BroadcastAdd(G.Must(G.Mul(h, p[2])), p[3], nil, []byte{0}))
	return n
}

func (n *net) input(name string, shape ...int) *G.Node {
	zeros := tensor.New(tensor.WithShape(shape...), tensor.Of(tensor.Float64))
	return G.NewTensor(n.ExprGraph, G.Float64, len(shape), G.WithName(name), G.WithShape(shape...), G.WithValue(zeros))
}

// train returns the mean pushes of the last twenty episodes, and how many there were.
func train(seed uint64, steps int, adam bool, rate float64) (mean float64, episodes int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	actor, critic := build(batch, 2, rng, nil), build(batch, 1, rng, nil)

	// What is pushed is made more probable, by its advantage: by how much better than the critic
	// had expected it has turned out. This cost is no likelihood.
	pushed, advantage := actor.input("pushed", batch, 2), actor.input("advantage", batch)
	probability := G.Must(G.Sum(G.Must(G.HadamardProd(G.Must(G.LogSoftMax(actor.out)), pushed)), 1))
	gain := G.Must(G.Mean(G.Must(G.HadamardProd(probability, advantage))))
	cost, reward := G.Must(G.Neg(gain)), critic.input("reward", batch, 1)
	miss := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(critic.out, reward))))))
	must(G.Grad(cost, actor.params...))
	must(G.Grad(miss, critic.params...))
	run, runCritic := must(kfac.NewVM(cost)), must(kfac.NewVM(miss))

	// The solvers. Policy says what the actor predicts, since the cost does not tell.
	var solver, ofCritic G.Solver
	solver, ofCritic = G.NewAdamSolver(G.WithLearnRate(rate)), G.NewAdamSolver(G.WithLearnRate(rate))
	if !adam {
		solver, ofCritic = must(kfac.NewSolver(cost, kfac.Policy(kfac.Categorical(actor.out)))), kfac.New()
	}

	// The same nets, for one state at a time.
	player, judge := build(1, 2, nil, actor), build(1, 1, nil, critic)
	look, value := must(kfac.NewVM(player.out)), must(kfac.NewVM(judge.out))
	lengths, s, length := []float64{}, start(rng), 0
	for step := 1; step <= steps && mean < balanced; step++ {
		values, ended, left := make([]float64, batch), make([]bool, batch), make([]float64, batch)
		clear(data(pushed))
		for t := range batch {
			copy(data(actor.x)[4*t:], s[:])
			copy(data(player.x), s[:])
			copy(data(judge.x), s[:])
			check(look.RunAll())
			check(value.RunAll())
			z, push := data(player.out), 0
			if rng.Float64() < 1/(1+math.Exp(z[0]-z[1])) {
				push = 1
			}
			data(pushed)[2*t+push], values[t] = 1, data(judge.out)[0]
			s = s.push(float64(20*push - 10))
			length++
			if ended[t] = s.falls() || length == longest; ended[t] || t == batch-1 {
				if copy(data(judge.x), s[:]); !s.falls() { // it would go on
					check(value.RunAll())
					left[t] = data(judge.out)[0]
				}
			}
			if ended[t] {
				lengths, s, length = append(lengths, float64(length)), start(rng), 0
			}
		}
		for t, later := batch-1, 0.0; t >= 0; t-- {
			if ended[t] || t == batch-1 {
				later = left[t]
			}
			later = 1 - discount + discount*later
			data(reward)[t], data(advantage)[t] = later, later-values[t]
		}
		copy(data(critic.x), data(actor.x))
		check(run.RunAll())
		check(solver.Step(G.NodesToValueGrads(actor.params)))
		check(runCritic.RunAll())
		check(ofCritic.Step(G.NodesToValueGrads(critic.params)))
		if mean = floats.Sum(lengths[max(0, len(lengths)-20):]) / 20; step%10 == 0 {
			fmt.Printf("update %3d, episode %4d: the pole stands for %3.0f pushes\n", step, len(lengths), mean)
		}
	}
	return mean, len(lengths)
}

// A state is the cart's place and speed, and the pole's angle and its speed.
type state [4]float64

func start(rng *rand.Rand) (s state) {
	for i := range s {
		s[i] = (rng.Float64() - 0.5) / 10
	}
	return s
}

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

func data(n *G.Node) []float64 { return n.Value().Data().([]float64) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

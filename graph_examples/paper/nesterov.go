package main

import (
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
)

// nesterov is Nesterov's accelerated gradient with the momentum schedule of Sutskever, Martens,
// Dahl & Hinton, "On the importance of initialization and momentum in deep learning" (ICML 2013),
// sections 2 and 3, the paper's baseline:
//
//	v_t+1 = mu_t v_t - rate grad(theta_t + mu_t v_t),   theta_t+1 = theta_t + v_t+1,
//	mu_t  = min(1 - 2^(-1 - log2(floor(t/250) + 1)), most).
//
// The weights hold the points where gradients are taken, theta_t + mu_t v_t.
type nesterov struct {
	rate, most float64
	l2         float64 // eta of (eta/2) |theta|^2

	// State.
	t        int
	velocity map[*gorgonia.Node][]float32
}

func newNesterov(rate, most, l2 float64) *nesterov {
	return &nesterov{rate: rate, most: most, l2: l2, velocity: map[*gorgonia.Node][]float32{}}
}

// momentum is mu_t, for t from 0.
func (s *nesterov) momentum(t int) float64 {
	return math.Min(1-math.Pow(2, -1-math.Log2(math.Floor(float64(t)/250)+1)), s.most)
}

// Step updates the float32 tensors of the nodes in model, and zeroes their gradients.
func (s *nesterov) Step(model []gorgonia.ValueGrad) error {
	now, next := float32(s.momentum(s.t)), float32(s.momentum(s.t+1))
	rate, l2 := float32(s.rate), float32(s.l2)
	for _, vg := range model {
		n := vg.(*gorgonia.Node)
		g, err := n.Grad()
		if err != nil {
			return fmt.Errorf("gradient of %s: %w", n.Name(), err)
		}
		w, grad := n.Value().Data().([]float32), g.Data().([]float32)
		v := s.velocity[n]
		if v == nil {
			v = make([]float32, len(w))
			s.velocity[n] = v
		}
		for i, old := range v {
			v[i] = now*old - rate*(grad[i]+l2*w[i])
			w[i] += (1+next)*v[i] - now*old
			grad[i] = 0
		}
	}
	s.t++
	return nil
}

package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// proposeFixed works out the updates from the learning rate, the momentum and the norm constraint, and checks that the new weights
// are finite.
func (c *conductor[T]) proposeFixed(st *Stats) error {
	var vu float64 // V.U = U^T (F + damping) U
	for _, p := range c.order {
		if !p.given {
			continue
		}
		vu += linalg.Dot64(p.grad, p.dir)
		if math.IsInf(vu, 0) || math.IsNaN(vu) {
			return gradientOverflow(p.name())
		}
	}
	st.Shrink = normConstraint(c.normLimit(st.Cases), c.cfg.learningRate, vu)
	rate := st.Shrink * c.cfg.learningRate
	st.KL = rate * rate * vu / 2
	for _, p := range c.order {
		if !p.given {
			continue
		}
		if !p.advance(T(-rate), T(c.cfg.momentum)) {
			return overflow(p.name())
		}
	}
	return nil
}

func gradientOverflow(param string) error {
	return &ParamError{Param: param, Op: "multiplying gradient and direction", Err: ErrNotFinite,
		Hint: "the gradient is so large that its square overflows: look for outliers in the data"}
}

// normLimit is kappa for a batch of so many cases; see WithNormConstraint.
func (c *conductor[T]) normLimit(cases int) float64 {
	switch {
	case c.cfg.normLimit > 0:
		return c.cfg.normLimit
	case c.cfg.learningRate > 0:
		return 1e-3 * math.Sqrt(c.variables)
	case c.cfg.paperRules:
		return math.Inf(1)
	}
	return 2 * mostNats * c.variables * trustedPart(cases)
}

// normConstraint is the factor nu = min(1, sqrt(kappa / (lr^2 V.U))) on the learning rate.
func normConstraint(kappa, rate, vu float64) float64 {
	if nu := math.Sqrt(kappa/vu) / rate; nu < 1 { // this way round lr^2 can't overflow
		return nu
	}
	return 1
}

func overflow(param string) error {
	return &ParamError{Param: param, Op: "updating", Err: ErrNotFinite, Hint: "lower WithLearningRate or raise WithDamping"}
}

// advance computes the update, next = alpha dir + mu velocity. It reports false if the weights would not stay finite.
func (p *parameter[T]) advance(alpha, mu T) bool {
	return linalg.Sum(len(p.next), func(from, to int) float64 {
		next, velocity, dir := p.next[from:to], p.velocity[from:to], p.dir[from:to]
		var odd T // w - w is 0 for every finite w
		for i, w := range p.store.data[from:to] {
			d := mu*velocity[i] + alpha*dir[i]
			next[i] = d
			w += d
			odd += w - w
		}
		return float64(odd)
	}) == 0
}

// squaredUpdate is the squared Euclidean norm of the proposed update.
func (c *conductor[T]) squaredUpdate() (s float64) {
	for _, p := range c.order {
		if p.given {
			s += linalg.Dot64(p.next, p.next)
		}
	}
	return s
}

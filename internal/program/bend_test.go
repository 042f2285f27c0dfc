package program

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Changes of gradients are those of finite differences of gradients, for all ops that have a rule.
func TestBend(t *testing.T) {
	for _, c := range opCases {
		h := fnv.New64a()
		h.Write([]byte(c.name))
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(tensor.Float64, h.Sum64())
			s := prepare[float64](t, b, c.graph(b))
			if slices.ContainsFunc(s.p.Nodes, normalises) {
				checkNoBend(t, s, b.rng)
				return
			}
			for range 2 {
				checkBend(t, s, b.rng)
				b.redraw()
			}
		})
	}
}

func normalises(n *Node) bool {
	switch n.Op.(type) {
	case BatchNorm, GroupNorm:
		return true
	}
	return false
}

func checkNoBend(t *testing.T, s *prepared[float64], rng *rand.Rand) {
	s.bend(t, rng, func(err error) {
		if err == nil || !strings.Contains(err.Error(), "second derivative") {
			t.Errorf("no error that says so: %v", err)
		}
	})
}

// bend runs all sweeps along random directions, from a random gradient.
func (s *prepared[T]) bend(t *testing.T, rng *rand.Rand, then func(err error)) (seed []T, dirs [][]T) {
	t.Helper()
	seed = random[T](rng, len(s.forward(nil)))
	for _, v := range s.vars {
		dirs = append(dirs, random[T](rng, v.Size()))
	}
	s.reverse(seed)
	s.tangent(dirs)
	then(s.r.Bend(s.p.Path(s.vars...), false))
	return seed, dirs
}

func checkBend(t *testing.T, s *prepared[float64], rng *rand.Rand) {
	seed, dirs := s.bend(t, rng, func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	})
	got := make([][]float64, len(s.vars))
	for i, v := range s.vars {
		got[i] = slices.Clone(s.r.GradientAlong(v))
	}
	path := s.p.Path(s.vars...)
	if err := s.r.Reverse([]Seed[float64]{{s.out, seed}}, path.Without(s.vars...)); err != nil {
		t.Fatal(err)
	}
	s.tangent(dirs)
	if err := s.r.Bend(path, false); err != nil {
		t.Fatal(err)
	}
	for i, v := range s.vars { // without the gradients of the variables themselves
		compare(t, "change of the gradient", s.r.GradientAlong(v), got[i], 0)
	}
	x := s.bindCopies()
	defer s.unbind()
	moved := s.bindCopies()
	shifted := func(h float64) [][]float64 {
		for k := range x {
			for j := range moved[k] {
				moved[k][j] = x[k][j] + h*dirs[k][j]
			}
		}
		s.forward(nil)
		return s.reverse(seed)
	}
	const h = 1.0 / 4096
	ahead, behind, farAhead, farBehind := shifted(h), shifted(-h), shifted(2*h), shifted(-2*h)
	for k := range got {
		for i := range got[k] {
			want := (8*(ahead[k][i]-behind[k][i]) - (farAhead[k][i] - farBehind[k][i])) / (12 * h)
			if !near(got[k][i], want, 1e-8*(1+math.Abs(want)+maxAbs(ahead[k]))) {
				t.Errorf("change of the gradient of %s[%d] is %v, finite differences say %v", s.vars[k].Name(), i,
					got[k][i], want)
			}
		}
	}
}

// A kink is rounded off as the negative log-likelihood of a Laplace distribution of its scale would
// be, whatever of the functions has it.
func TestRoundedKinks(t *testing.T) {
	x := []float64{-3, 0.5, 2, -0.5} // the mean of |x| is 3/2
	for name, c := range map[string]struct {
		cost func(x *gorgonia.Node) *gorgonia.Node
		want float64
	}{
		"Abs":     {func(x *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Abs(x)) }, 1 / 1.5},
		"Rectify": {func(x *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Rectify(x)) }, 0.5 / 1.5},
		"both sides": {func(x *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.Add(must(gorgonia.Rectify(x)), must(gorgonia.Rectify(must(gorgonia.Neg(x))))))
		}, 1 / 1.5},
		"MaxBetween": {func(x *gorgonia.Node) *gorgonia.Node {
			return must(gorgonia.MaxBetween(x, must(gorgonia.Neg(x))))
		}, 1 / 1.5},
		"straight": {func(x *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Neg(x)) }, 0},
		"smooth":   {func(x *gorgonia.Node) *gorgonia.Node { return must(gorgonia.Square(x)) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(tensor.Float64, 1)
			in := b.x(4)
			b.set(in, x)
			s := prepare[float64](t, b, must(gorgonia.Sum(c.cost(in))))
			s.forward(nil)
			s.reverse([]float64{1})
			s.tangent([][]float64{{1, 1, 1, 1}})
			if err := s.r.Bend(s.p.Path(s.vars...), true); err != nil {
				t.Fatal(err)
			}
			compare(t, "curvature", s.r.GradientAlong(s.vars[0]), []float64{c.want, c.want, c.want, c.want}, 1e-15)
		})
	}
}

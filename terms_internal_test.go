package kfac

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The quadratic model has the second derivatives of the cost's terms outside the likelihood, those
// of (x w)^2 and exp(w) written out, in one chunk and in two.
func TestCurvatureOfTerms(t *testing.T) {
	const cases, in, out = 6, 3, 2
	const squares, exps = 0.3, 0.7
	build := func(n int) *testnet.Net {
		s := testnet.NewSketch(4)
		x, w, v := s.Random("x", n, in), s.Random("w", in, out), s.Random("v", out, 2)
		h := testnet.Mul(x, w)
		m := &testnet.Net{Sketch: s, X: x, Params: gorgonia.Nodes{w, v}}
		m.Ends(testnet.Mul(testnet.Tanh(h), v), testnet.Squares(1))
		perCase := testnet.Mul(testnet.Sum(testnet.Square(h)), gorgonia.NewConstant(squares/float64(n)))
		alone := testnet.Mul(testnet.Sum(gorgonia.Must(gorgonia.Exp(w))), gorgonia.NewConstant(exps))
		m.Cost = testnet.Add(m.Cost, testnet.Add(perCase, alone))
		return m
	}
	whole := build(cases)
	c := attach(t, whole)
	u, v := twoDirections(whole.Sketch, c)
	w := testnet.Data(whole.Params[0])
	x := mat.NewDense(cases, in, testnet.Data(whole.X))
	hessian := mat.NewSymDense(in*out, nil)
	for i := range in {
		for k := range in {
			moment := mat.Dot(x.ColView(i), x.ColView(k)) / cases
			for j := range out {
				hessian.SetSym(i*out+j, k*out+j, 2*squares*moment)
			}
		}
	}
	for i, x := range w {
		hessian.SetSym(i, i, hessian.At(i, i)+exps*math.Exp(x))
	}
	check := func(name string, c *training[float64], b batch[float64]) {
		t.Helper()
		for _, sign := range []float64{1, -1} {
			without, with := spanOver(t, c, b, sign, false), spanOver(t, c, b, sign, true)
			scale := c.graph.scale() * cases / float64(len(b)) // a chunk's cost is a mean over its cases
			want := denseProducts(hessian, u[:len(w)], v[:len(w)])
			want[1] *= sign
			var got []float64
			for _, at := range [][2]int{{0, 0}, {0, 1}, {1, 1}} {
				got = append(got, scale*(with.ridge[at[0]][at[1]]-without.ridge[at[0]][at[1]]))
			}
			testnet.Near(t, name, got, want, 1e-12)
			if with.f != without.f || with.beside*scale != got[0] && math.Abs(with.beside*scale-got[0]) > 1e-12 {
				t.Errorf("%s: F is %v, want %v; beside %g", name, with.f, without.f, with.beside)
			}
		}
	}
	check("whole", c, batch[float64]{wholeChunk(c, nil)})
	parts, chunks := inChunks(t, whole, build, "x")
	for i, p := range parts.plan.order {
		copy(p.direction, c.plan.order[i].direction)
		copy(p.previous, c.plan.order[i].previous)
	}
	check("in chunks", parts, chunks)
}

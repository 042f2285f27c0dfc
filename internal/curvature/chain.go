package curvature

import (
	"fmt"
	"strconv"
)

// Chain is the block of a chain of layers: each layer feeds the next one and nothing else. Its
// inverse is block-tridiagonal (Martens & Grosse 2015, section 4.3). Each layer is used once for
// each case, so the cross moments of neighbours can pair their rows case by case. Every factor is
// whole.
//
// The moments are A_i and G_i for each layer i, then E[abar_i abar_{i+1}^T] and E[g_i g_{i+1}^T]
// for each layer but the last. All are estimated from the same cases with the same weights.
type Chain[T Float] struct {
	moments[T]
	layers         []*factors[T]
	crossA, crossG []*moment[T]
	inverses       pool[chainInverse[T]]
	work           pool[junctions[T]]

	turned []turned[T] // by layer; on if its weight is stored out x abar
	u, v   [][]T       // scratch of Apply
}

// junctions is the scratch of one inversion.
type junctions[T Float] struct{ a, g []junction[T] }

var _ Block[float64] = (*Chain[float64])(nil)

// NewChain makes the block of two or more layers.
func NewChain[T Float](shapes []Shape) *Chain[T] {
	n := len(shapes)
	b := &Chain[T]{u: make([][]T, n), v: make([][]T, n)}
	var abar, out []int
	for i, s := range shapes {
		abar, out = append(abar, s.Abar()), append(out, s.Out)
		b.layers = append(b.layers, newFactors(&b.moments, s, i, strconv.Itoa(i)))
		b.turned = append(b.turned, turned[T]{on: s.OutByIn, rows: s.Out, cols: s.Abar()})
	}
	for i := range n - 1 {
		overflow := Error{Layer: i, Op: "averages of its cross moments", Next: true}
		pair := fmt.Sprintf("%d,%d", i, i+1)
		b.crossA = append(b.crossA, b.add("A"+pair, newCross[T](abar[i], abar[i+1]), overflow))
		b.crossG = append(b.crossG, b.add("G"+pair, newCross[T](out[i], out[i+1]), overflow))
	}
	b.ready()
	b.inverses.make = func() *chainInverse[T] { return &chainInverse[T]{block: b, links: newTridiagonal[T](abar, out)} }
	b.work.make = func() *junctions[T] {
		w := &junctions[T]{}
		for i := range shapes {
			w.a = append(w.a, newJunction[T](abar[i], nextSize(abar, i)))
			w.g = append(w.g, newJunction[T](out[i], nextSize(out, i)))
		}
		return w
	}
	return b
}

func (b *Chain[T]) Observe(rows []Rows[T]) error {
	if rows[0].Again {
		for _, f := range b.crossG {
			f.multiply() // before its rows are written over
		}
	}
	for i, f := range b.layers {
		if err := f.observe(rows[i]); err != nil {
			return err
		}
	}
	for i := range b.crossA {
		x, y := b.layers[i], b.layers[i+1]
		a, g := true, true
		if rows[i].Again {
			g = b.crossG[i].observeAgain(x.gt, y.gt, x.rows)
		} else {
			a = b.crossA[i].observe(x.at, y.at, x.rows, x.rows)
			g = b.crossG[i].observe(x.gt, y.gt, x.rows, rows[i].Cases)
		}
		if !a || !g {
			return &Error{Layer: i, Op: "cross moments", Next: true, Err: ErrNotFinite}
		}
	}
	return nil
}

func (b *Chain[T]) Trace(avg *Averages[T]) (sum float64) {
	for i, f := range b.layers {
		sum += f.trace(avg.Moments[2*i], avg.Moments[2*i+1])
	}
	return sum
}

func (b *Chain[T]) Immediate() bool { return false }

func (b *Chain[T]) NewInverse() Inverse[T] { return b.inverses.get() }

func (b *Chain[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	v, w, n := b.inverses.get(), b.work.get(), len(b.layers)
	var a, g side[T]
	for i, f := range b.layers {
		factorA, factorG := avg.Moments[2*i], avg.Moments[2*i+1]
		dampA, dampG := f.dampings(factorA, factorG, d)
		a.factors, a.damping = append(a.factors, factorA), append(a.damping, dampA)
		g.factors, g.damping = append(g.factors, factorG), append(g.damping, dampG)
	}
	for i := range b.crossA {
		a.cross = append(a.cross, avg.Moments[2*(n+i)])
		g.cross = append(g.cross, avg.Moments[2*(n+i)+1])
	}
	firstA, thenA := a.join(v.links.a, w.a)
	firstG, thenG := g.join(v.links.g, w.g)
	return &Inversion[T]{
		First: append(firstA, firstG...), Then: append(thenA, thenG...),
		result: func() (Inverse[T], error) {
			b.work.put(w)
			var err error
			if v.raised, err = failures(w.a, w.g); err != nil {
				v.Release()
				return nil, err
			}
			v.links.keepDampings(w)
			return v, nil
		},
	}
}

// side holds the inputs for the links of one side of a chain: all A or all G. The factors are not
// damped yet. The cross moments E[f_i f_{i+1}^T] are never damped (section 4.3).
type side[T Float] struct {
	factors, cross [][]T
	damping        []float64
}

// join returns the computations of the links. Those in first may run at the same time. Those in
// then may run at the same time after all of first are done.
func (s side[T]) join(links []link[T], js []junction[T]) (first, then []func()) {
	for i := range js {
		j, l := &js[i], &links[i]
		first = append(first, func() { j.decompose(s.factors[i], s.damping[i]) })
		if i+1 < len(js) {
			then = append(then, func() { j.join(l, &js[i+1], s.cross[i]) })
		} else {
			then = append(then, func() { j.end(l) })
		}
	}
	return first, then
}

type chainInverse[T Float] struct {
	block  *Chain[T] // holds the scratch for Apply
	links  *tridiagonal[T]
	raised int
}

func (v *chainInverse[T]) Apply(u, grad [][]T) {
	b := v.block
	for i := range b.turned {
		b.u[i], b.v[i] = b.turned[i].enter(u[i], grad[i])
	}
	v.links.apply(b.u, b.v)
	for i := range b.turned {
		b.turned[i].leave(u[i])
	}
	clear(b.u) // do not keep references to the caller's memory
	clear(b.v)
}

func (v *chainInverse[T]) State(to Visitor[T]) {
	to.Count("raised", &v.raised)
	v.links.state(to, func(side string, i int) string { return fmt.Sprint(side, i) })
}

func (v *chainInverse[T]) Raised() int { return v.raised }

func (v *chainInverse[T]) Dampings() []float64 { return v.links.Dampings() }

func (v *chainInverse[T]) Release() { v.block.inverses.put(v) }

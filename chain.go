package kfac

import (
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// chainBlock is the block of the layers of a chain, with the block-tridiagonal inverse (Martens & Grosse 2015, section 4.3).
type chainBlock[T program.Float] struct {
	links []*layerBlock[T]
	// E[abar_i abar_{i+1}^T] and E[g_i g_{i+1}^T], from the same cases and with the same weights as the factors.
	crossA, crossG []moment[T]

	now, next, aside *tridiagonal[T] // next is that of the step in progress; aside that of stash, made when first needed
	a, g             []junction[T]

	v, u [][]T // abar x out: the layers' own memory, or room for what is transposed
}

func newChainBlock[T program.Float](links []*layerBlock[T]) *chainBlock[T] {
	b := &chainBlock[T]{links: links}
	abar, out := b.sizes()
	b.a, b.g = newJunctions[T](abar), newJunctions[T](out)
	b.now, b.next = newTridiagonal[T](abar, out), newTridiagonal[T](abar, out)
	for i, l := range links {
		if i+1 < len(links) {
			b.crossA = append(b.crossA, newMoment[T](abar[i], abar[i+1]))
			b.crossG = append(b.crossG, newMoment[T](out[i], out[i+1]))
		}
		if l.layer.OutByIn {
			b.v, b.u = append(b.v, make([]T, len(l.grad))), append(b.u, make([]T, len(l.dir)))
		} else {
			b.v, b.u = append(b.v, l.grad), append(b.u, l.dir)
		}
	}
	return b
}

// sizes are those of the layers' factors.
func (b *chainBlock[T]) sizes() (abar, out []int) {
	for _, l := range b.links {
		abar, out = append(abar, l.layer.Abar()), append(out, l.layer.Out)
	}
	return abar, out
}

func (b *chainBlock[T]) bind() {
	for _, l := range b.links {
		l.bind()
	}
}

func (b *chainBlock[T]) rest() {
	for _, l := range b.links {
		l.rest()
	}
}

func (b *chainBlock[T]) needsInverse() bool { return b.links[0].needsInverse() }

func (b *chainBlock[T]) observe(run *program.Run[T]) error {
	for _, l := range b.links {
		if err := l.observe(run); err != nil {
			return err
		}
	}
	for i := range b.crossA {
		x, y := b.links[i].factors, b.links[i+1].factors
		a := b.crossA[i].observe(x.at, y.at, x.rows, x.rows)
		g := b.crossG[i].observe(x.gt, y.gt, x.rows, run.Cases())
		if !a || !g {
			return b.links[i].badMoments("cross moments with " + b.links[i+1].layer.Name())
		}
	}
	return nil
}

// moments calls f for each cross moment.
func (b *chainBlock[T]) moments(f func(*moment[T])) {
	for i := range b.crossA {
		f(&b.crossA[i])
		f(&b.crossG[i])
	}
}

func (b *chainBlock[T]) take() {
	for _, l := range b.links {
		l.take()
	}
	b.moments((*moment[T]).take)
}

func (b *chainBlock[T]) drop() {
	for _, l := range b.links {
		l.drop()
	}
	b.moments((*moment[T]).drop)
}

func (b *chainBlock[T]) average(ema float64, settle bool) error {
	eps := decay(b.links[0].factors.updates+1, ema)
	for _, l := range b.links {
		if err := l.average(ema, settle); err != nil {
			return err
		}
	}
	for i := range b.crossA {
		if !b.crossA[i].average(eps, settle) || !b.crossG[i].average(eps, settle) {
			return b.links[i].badMoments("averages of its cross moments with " + b.links[i+1].layer.Name())
		}
	}
	return nil
}

func (b *chainBlock[T]) trace() (sum float64) {
	for _, l := range b.links {
		sum += l.trace()
	}
	return sum
}

func (b *chainBlock[T]) inversions(gamma float64) (first, then []func()) {
	var a, g, crossA, crossG [][]T
	var dampA, dampG []float64
	for i, l := range b.links {
		da, dg := l.dampings(gamma)
		a, g = append(a, l.factors.a.source()), append(g, l.factors.g.source())
		dampA, dampG = append(dampA, da), append(dampG, dg)
		if i < len(b.crossA) {
			crossA, crossG = append(crossA, b.crossA[i].source()), append(crossG, b.crossG[i].source())
		}
	}
	firstA, thenA := joinAll(b.next.a, b.a, a, crossA, dampA)
	firstG, thenG := joinAll(b.next.g, b.g, g, crossG, dampG)
	return append(firstA, firstG...), append(thenA, thenG...)
}

func (b *chainBlock[T]) freeze(on bool) {
	for _, l := range b.links {
		l.freeze(on)
	}
	b.moments(func(m *moment[T]) { m.freeze(on) })
}

func (b *chainBlock[T]) inverted() (raised int, err error) {
	for i := range b.links {
		for side, j := range []*junction[T]{&b.a[i], &b.g[i]} {
			if j.err != nil {
				return 0, notFactorised(b.links[i].layer, j.op+" of "+"AG"[side:side+1], j.n, j.damping, j.err)
			}
			if j.raised {
				raised++
			}
		}
	}
	return raised, nil
}

func (b *chainBlock[T]) precondition(_ float64, fresh bool) {
	for i, l := range b.links {
		l.gather()
		if l.layer.OutByIn {
			linalg.Transpose(b.v[i], l.grad, l.layer.Out, l.layer.Abar())
		}
	}
	inverse := b.now
	if fresh {
		inverse = b.next
	}
	inverse.apply(b.u, b.v)
	for i, l := range b.links {
		if l.layer.OutByIn {
			linalg.Transpose(l.dir, b.u[i], l.layer.Abar(), l.layer.Out)
		}
		l.scatter()
	}
}

func (b *chainBlock[T]) stash() {
	if b.aside == nil {
		b.aside = newTridiagonal[T](b.sizes())
	}
	b.next, b.aside = b.aside, b.next
}

func (b *chainBlock[T]) keep(fresh bool) {
	for _, l := range b.links {
		l.factors.keep()
	}
	b.moments((*moment[T]).keep)
	if fresh {
		b.now, b.next = b.next, b.now
	}
}

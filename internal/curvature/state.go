package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// A Visitor is shown the values that a state consists of, each once, by a name. One that writes
// takes them down; one that reads puts others in their place. So a kind of block says once what its
// state is. Values have the sizes that the block's shape gives them.
type Visitor[T Float] interface {
	Tensor(name string, x []T, shape ...int)
	Wide(name string, x []float64) // in float64 whatever the model's dtype
	Count(name string, n *int)     // 0 or more
	Reads() bool                   // what is shown gets new values
}

// visitFlag shows a flag as a count.
func visitFlag[T Float](v Visitor[T], name string, on *bool) {
	n := count(*on)
	v.Count(name, &n)
	*on = n > 0
}

// visitNumber shows a number.
func visitNumber[T Float](v Visitor[T], name string, x *float64) {
	one := []float64{*x}
	v.Wide(name, one)
	*x = one[0]
}

// State shows the averages after the last update.
func (b *moments[T]) State(v Visitor[T]) {
	v.Count("updates", &b.current.Updates)
	v.Count("dwarfs", &b.current.dwarfs)
	for i, f := range b.list {
		f.mirrored(b.current.Moments[i])
		v.Tensor(f.name, b.current.Moments[i], f.shape()...)
	}
}

// shape is that of the moment as a tensor.
func (f *moment[T]) shape() []int {
	if f.m == 1 {
		return []int{f.n}
	}
	return []int{f.n, f.m}
}

func (f *factorInverse[T]) state(v Visitor[T], name string) {
	visitFlag(v, name+" raised", &f.raised)
	visitNumber(v, name+" damping", &f.damping)
	if f.diagonal {
		v.Tensor(name, f.data, f.n)
	} else {
		v.Tensor(name, f.data, f.n, f.n)
	}
}

func (l *link[T]) state(v Visitor[T], name string) {
	v.Tensor("K "+name, l.k, l.n, l.n)
	v.Wide("s "+name, l.s)
	if l.m > 0 {
		v.Tensor("Psi "+name, l.psi, l.n, l.m)
	}
	if !v.Reads() {
		return
	}
	linalg.Transpose(l.kT, l.k, l.n, l.n)
	if l.m > 0 {
		linalg.Transpose(l.psiT, l.psi, l.n, l.m)
	}
}

func (t *tridiagonal[T]) state(v Visitor[T], names func(side string, i int) string) {
	v.Wide("damping", t.damping)
	for i := range t.a {
		t.a[i].state(v, names("A", i))
		t.g[i].state(v, names("G", i))
	}
}

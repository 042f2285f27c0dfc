package testnet

import (
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Data is the memory of a float64 input's value.
func Data(n *gorgonia.Node) []float64 { return n.Value().Data().([]float64) }

// Numbers copies a value as float64, which holds every float32 exactly. A tensor is in row-major
// order.
func Numbers(v gorgonia.Value) []float64 {
	var out []float64
	add := func(x any) {
		switch x := x.(type) {
		case float64:
			out = append(out, x)
		case float32:
			out = append(out, float64(x))
		}
	}
	switch v := v.(type) {
	case *gorgonia.F64:
		add(float64(*v))
	case *gorgonia.F32:
		add(float64(*v))
	case *tensor.Dense:
		EachElement(v, func(at, _ int) { add(v.Get(at)) })
	}
	return out
}

// EachElement calls f with the place in memory and the row-major number of each element of a
// tensor.
func EachElement(d *tensor.Dense, f func(at, i int)) {
	it := d.Iterator()
	i := 0
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		f(at, i)
		i++
	}
}

// Weights copies the values of nodes, one behind the other.
func Weights(nodes gorgonia.Nodes) []float64 {
	var all []float64
	for _, n := range nodes {
		all = append(all, Numbers(n.Value())...)
	}
	return all
}

// Gradients copies the gradients of nodes, one behind the other.
func Gradients(t TB, nodes gorgonia.Nodes) []float64 {
	t.Helper()
	var all []float64
	for _, n := range nodes {
		g, err := n.Grad()
		Check(t, err)
		all = append(all, Numbers(g)...)
	}
	return all
}

// ZeroGradients is what a user does who goes on after an error: with BindDualValues, gradients add
// up.
func ZeroGradients(params gorgonia.Nodes) {
	for _, p := range params {
		g, err := p.Grad()
		if err != nil {
			continue
		}
		switch g := g.(type) {
		case *gorgonia.F64:
			*g = 0
		case *gorgonia.F32:
			*g = 0
		case *tensor.Dense:
			g.Zero()
		}
	}
}

// Distance is |got - want| / |want|, in the Euclidean or Frobenius norm. It is infinite if the
// numbers differ in count.
func Distance(got, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i, w := range want {
		diff += (got[i] - w) * (got[i] - w)
		norm += w * w
	}
	if diff == 0 {
		return 0 // also from zero
	}
	return math.Sqrt(diff / norm)
}

// Near demands a distance of at most tol, of numbers that are there.
func Near(t TB, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: nothing to compare", what)
	}
	if d := Distance(got, want); !(d <= tol) {
		t.Errorf("%s: off by %.3g of its norm, tolerance %g\ngot  %.6g\nwant %.6g",
			what, d, tol, got[:min(len(got), 12)], want[:min(len(want), 12)])
	}
}

// SameBits demands that got and want are equal in every bit, NaN included, and not empty.
func SameBits(t TB, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d numbers, want %d > 0", what, len(got), len(want))
	}
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: element %d of %d is %v, want %v in every bit; largest relative difference %.3g",
				what, i, len(want), got[i], want[i], Distance(got, want))
		}
	}
}

// Moved demands that every one of nodes has changed since before.
func Moved(t TB, nodes gorgonia.Nodes, before []float64) {
	t.Helper()
	at := 0
	for _, n := range nodes {
		now := Numbers(n.Value())
		if Distance(now, before[at:at+len(now)]) == 0 {
			t.Errorf("%s has not moved", n.Name())
		}
		at += len(now)
	}
}

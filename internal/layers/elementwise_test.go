package layers_test

import (
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// elementwise are the parameters outside layers that act element by element.
func (m model) elementwise(pairs bool) []layers.Elementwise {
	var params []*program.Node
	for _, r := range m.rest {
		params = append(params, r.Param)
	}
	return layers.FindElementwise(m.program, params, pairs)
}

// onRow applies f to an input (cases, 3) and a parameter p (1, 3).
func onRow(f func(h, p node) node) func(s *sketch) node {
	return func(s *sketch) node { return f(s.input("x", cases, 3), s.param("p", 1, 3)) }
}

// scaled multiplies x with scale and adds shift, in new parameters of the given shape.
func (s *sketch) scaled(x node, shape []int, axes ...byte) node {
	scale, shift := s.param("scale", shape...), s.param("shift", shape...)
	return plus(times(x, scale, axes...), shift, axes...)
}

var row = []int{1, 3}

var elementwiseWirings = []wiring{
	{"sum", onRow(func(h, p node) node { return plus(h, p, 0) }), "p: offset, element by element"},
	{"sum, parameter first", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastAdd(p, h, []byte{0}, nil))
	}), "p: offset, element by element"},
	{"difference", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastSub(h, p, nil, []byte{0}))
	}), "p: offset, element by element"},
	{"difference, parameter first", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastSub(p, h, []byte{0}, nil))
	}), "p: offset, element by element"},
	{"product", onRow(func(h, p node) node { return times(h, p, 0) }), "p: scale, element by element"},
	{"product, parameter first", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastHadamardProd(p, h, []byte{0}, nil))
	}), "p: scale, element by element"},
	{"quotient", onRow(func(h, p node) node { return dividedBy(h, p, 0) }), "p: divisor, element by element"},
	{"quotient, parameter first", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastHadamardDiv(p, h, []byte{0}, nil))
	}), "p: dividend, element by element"},
	{"power", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastPow(h, p, nil, []byte{0}))
	}), "p: exponent, element by element"},
	{"power, parameter first", onRow(func(h, p node) node {
		return must(gorgonia.BroadcastPow(p, h, []byte{0}, nil))
	}), "p: base of a power, element by element"},
	{"several uses", onRow(func(h, p node) node {
		h = tanh(times(h, p, 0))
		return must(gorgonia.BroadcastSub(p, times(plus(h, p, 0), p, 0), []byte{0}, nil))
	}), "p: scale and offset at once, element by element"},
	{"several uses as a scale", onRow(func(h, p node) node {
		return times(tanh(times(h, p, 0)), p, 0)
	}), "p: scale, element by element"},
	{"reshaped", onRow(func(h, p node) node {
		return plus(times(h, reshape(reshape(p, 3), 1, 3), 0), p, 0)
	}), "p: scale and offset at once, element by element"},
	{"cases along the last axis", onRow(func(h, p node) node {
		return transpose(times(transpose(h), reshape(p, 3, 1), 1))
	}), "p: scale, element by element"},
	{"maximum in a batch of one", func(s *sketch) node {
		return must(gorgonia.MaxBetween(s.input("x", 1, 3), s.param("p", 1, 3)))
	}, "p: operand of max, element by element"},

	{"temperature", func(s *sketch) node {
		return dividedBy(s.input("x", cases, 3), s.param("p", 1, 1), 0, 1)
	}, "p: temperature: one number that divides"},
	{"scalar", func(s *sketch) node {
		return must(gorgonia.Mul(s.input("x", cases, 3), s.scalar("p")))
	}, "p: temperature: one number that multiplies"},
	{"scalar that is added", func(s *sketch) node {
		return must(gorgonia.Add(s.input("x", cases, 3), s.scalar("p")))
	}, "p: offset: one number that is added or subtracted"},
	{"scalar exponent", func(s *sketch) node {
		return must(gorgonia.Pow(s.input("x", cases, 3), s.scalar("p")))
	}, "p: exponent: one number"},

	{"scale and shift", func(s *sketch) node { return s.scaled(s.input("x", cases, 3), row, 0) },
		"scale and shift: scale and shift, element by element"},
	{"scale and shift, as vectors", func(s *sketch) node {
		return s.scaled(s.input("x", cases, 3), []int{3}, 0)
	}, "scale and shift: scale and shift, element by element"},
	{"gain and offset", func(s *sketch) node {
		return s.scaled(s.input("x", cases, 3), []int{1, 1}, 0, 1)
	}, "scale and shift: scale and shift: one number each"},
	{"a scale for all and a shift for each", func(s *sketch) node {
		gain, shift := s.param("gain", 1, 1), s.param("shift", 1, 3)
		return plus(times(s.input("x", cases, 3), gain, 0, 1), shift, 0)
	}, "gain: temperature: one number that multiplies\nshift: offset, element by element"},
	{"a scale behind a shift", func(s *sketch) node {
		scale, shift := s.param("scale", 1, 3), s.param("shift", 1, 3)
		return times(plus(s.input("x", cases, 3), shift, 0), scale, 0)
	}, "scale: scale, element by element\nshift: offset, element by element"},
	{"a scale used again", func(s *sketch) node {
		scale, shift := s.param("scale", 1, 3), s.param("shift", 1, 3)
		return times(tanh(plus(times(s.input("x", cases, 3), scale, 0), shift, 0)), scale, 0)
	}, "scale: scale, element by element\nshift: offset, element by element"},
	{"a scaled input used beside its shift", func(s *sketch) node {
		scale, shift := s.param("scale", 1, 3), s.param("shift", 1, 3)
		h := times(s.input("x", cases, 3), scale, 0)
		return hadamard(plus(h, shift, 0), tanh(h))
	}, "scale: scale, element by element\nshift: offset, element by element"},
	{"two scales and shifts", func(s *sketch) node {
		scale1, shift1 := s.param("scale1", 1, 3), s.param("shift1", 1, 3)
		scale2, shift2 := s.param("scale2", 1, 3), s.param("shift2", 1, 3)
		h := tanh(plus(times(s.input("x", cases, 3), scale1, 0), shift1, 0))
		return plus(times(h, scale2, 0), shift2, 0)
	}, `
scale1 and shift1: scale and shift, element by element
scale2 and shift2: scale and shift, element by element`},

	{"positions", func(s *sketch) node {
		return reshape(s.scaled(s.input("x", cases, 4, 3), []int{1, 1, 3}, 0, 1), cases, 12)
	}, "scale and shift: scale and shift, element by element"},
	{"positions folded into rows", func(s *sketch) node {
		return reshape(s.scaled(reshape(s.input("x", cases, 4, 3), cases*4, 3), row, 0), cases, 12)
	}, "scale and shift: scale and shift, element by element"},
	{"one for each position", func(s *sketch) node {
		return reshape(times(s.input("x", cases, 4, 3), s.param("p", 1, 4, 1), 0, 2), cases, 12)
	}, "p: scale, element by element"},
	{"channels", func(s *sketch) node {
		return reshape(times(s.input("x", cases, 3, 2, 2), s.param("p", 1, 3, 1, 1), 0, 2, 3), cases, 12)
	}, "p: scale, element by element"},
	{"every element", func(s *sketch) node {
		return reshape(times(s.input("x", cases, 3, 2, 2), s.param("p", 1, 3, 2, 2), 0), cases, 12)
	}, "p: scale, element by element"},
	{"convolution with a scale for each channel", func(s *sketch) node {
		h := convolve(s.input("x", cases, 2, 3, 3), s.param("filter", 3, 2, 2, 2), 0, 1)
		return reshape(tanh(times(h, s.param("p", 1, 3, 1, 1), 0, 2, 3)), cases, 12)
	}, `
filter: 8 to 3 stored out x in, rows [20]: convolution 2x2, stride 1, x * w, 4 positions per case
p: scale, element by element`},

	{"parameters of each other", func(s *sketch) node {
		return plus(s.input("x", cases, 3), hadamard(s.param("p", 1, 3), s.param("q", 1, 3)), 0)
	}, `
p is no weight: used by ⊙, which is no matrix product
q is no weight: used by ⊙, which is no matrix product`},
}

func TestElementwise(t *testing.T) { checkWirings(t, elementwiseWirings) }

// Without pairs each parameter is by itself, and said to be what it is.
func TestElementwiseWithoutPairs(t *testing.T) {
	for _, test := range []struct {
		name string
		out  func(s *sketch) node
		want []string
	}{
		{"behind a normalisation", func(s *sketch) node {
			return s.scaled(normalised(s.input("x", cases, 3)), row, 0)
		}, []string{"scale: scale of a normalisation, per channel", "shift: offset of a normalisation, per channel"}},
		{"behind none", func(s *sketch) node {
			return s.scaled(s.input("x", cases, 3), row, 0)
		}, []string{"scale: scale, element by element", "shift: offset, element by element"}},
	} {
		m, _ := build(t, test.out)
		var got []string
		for _, e := range m.elementwise(false) {
			got = append(got, e.Name()+": "+e.Describe())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

package layers_test

import (
	"slices"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
)

// A pooling uses layers at several positions of each case, and pools these in some way.
type pooling struct {
	name   string
	out    func(s *sketch) node
	reduce []string // the layers that Auto reduces
}

// sequence is an input of several positions.
func (s *sketch) sequence() node { return s.input("x", cases, steps, 3) }

// applied makes a layer w of a sequence, with 2 outputs.
func (s *sketch) applied() node { return folded(s.sequence(), s.param("w", 3, 2), nil) }

// filtered is a convolution of an image.
func (s *sketch) filtered(height, width int) node {
	return convolve(s.input("x", cases, 2, height, width), s.param("filter", 3, 2, 2, 2), 0, 1)
}

var poolings = []pooling{
	{"mean", func(s *sketch) node {
		w, b, v := s.param("w", 3, 4), s.param("b", 1, 4), s.param("v", 4, 2)
		return mul(meanOver(folded(s.sequence(), w, b), 1), v)
	}, []string{"w"}},
	{"sum", func(s *sketch) node {
		return sumOver(folded(s.sequence(), s.param("w", 3, 2), s.param("b", 1, 2)), 1)
	}, []string{"w"}},
	{"two layers, then mean, then another", func(s *sketch) node {
		w, b, u, c := s.param("w", 3, 4), s.param("b", 1, 4), s.param("u", 4, 3), s.param("c", 1, 3)
		return mul(meanOver(folded(folded(s.sequence(), w, b), u, c), 1), s.param("v", 3, 2))
	}, []string{"w", "u"}},
	{"sequence not folded", func(s *sketch) node {
		h := plus(rowsTimes(s.sequence(), s.param("w", 3, 4)), s.param("b", 1, 1, 4), 0, 1)
		return sumOver(rowsTimes(h, s.param("u", 4, 2)), 1)
	}, []string{"w", "u"}},
	{"nonlinear", func(s *sketch) node {
		w, b, u, v := s.param("w", 3, 4), s.param("b", 1, 4), s.param("u", 4, 3), s.param("v", 3, 2)
		return mul(meanOver(rectify(folded(tanh(folded(s.sequence(), w, b)), u, nil)), 1), v)
	}, []string{"w", "u"}},
	{"residual", func(s *sketch) node {
		w, v, x := s.param("w", 3, 3), s.param("v", 3, 2), s.sequence()
		return mul(meanOver(add(x, tanh(folded(x, w, nil))), 1), v)
	}, []string{"w"}},
	{"position embedding", func(s *sketch) node {
		return sumOver(tanh(plus(s.applied(), s.param("position", 1, steps, 2), 0)), 1)
	}, []string{"w"}},
	{"global average", func(s *sketch) node {
		filter, b, v := s.param("filter", 3, 2, 2, 2), s.param("b", 1, 3, 1, 1), s.param("v", 3, 2)
		x := s.input("x", cases, 2, 4, 3)
		h := must(gorgonia.Conv2d(x, filter, []int{2, 2}, []int{1, 0}, []int{1, 1}, []int{1, 1}))
		return mul(reshape(globalAverage(plus(h, b, 0, 2, 3)), cases, 3), v)
	}, []string{"filter"}},
	{"mean over both axes of an image", func(s *sketch) node {
		return meanOver(s.filtered(3, 3), 2, 3)
	}, []string{"filter"}},
	{"convolution, rectifier, global average", func(s *sketch) node {
		return reshape(globalAverage(rectify(s.filtered(3, 3))), cases, 3)
	}, []string{"filter"}},
	{"two convolutions, global average", func(s *sketch) node {
		h := convolve(tanh(s.filtered(4, 4)), s.param("filter2", 2, 3, 2, 2), 0, 1)
		return reshape(globalAverage(h), cases, 2)
	}, []string{"filter2"}},
	{"columns", func(s *sketch) node {
		h := plus(mul(s.param("w", 2, 3), s.input("x", 3, cases*steps)), s.param("b", 2, 1), 1)
		return sumOver(reshape(transpose(h), cases, steps, 2), 1)
	}, []string{"w"}},
	{"a batch of one", func(s *sketch) node {
		h := meanOver(folded(s.input("x", 1, steps, 3), s.param("w", 3, 4), s.param("b", 1, 4)), 1)
		return mul(reshape(h, 1, 4), s.param("v", 4, 2))
	}, []string{"w"}},

	{"positions joined", func(s *sketch) node {
		w, v := s.param("w", 3, 4), s.param("v", steps*4, 2)
		return mul(reshape(tanh(folded(s.sequence(), w, nil)), cases, steps*4), v)
	}, nil},
	{"an output at each position", func(s *sketch) node {
		return reshape(folded(s.sequence(), s.param("w", 3, 2), s.param("b", 1, 2)), cases, steps*2)
	}, nil},
	{"last position", func(s *sketch) node {
		h := must(gorgonia.Slice(tanh(s.applied()), nil, gorgonia.S(steps-1)))
		return mul(h, s.param("v", 2, 2))
	}, nil},
	{"positions mixed by attention", func(s *sketch) node {
		q, k, v, w := s.param("q", 3, 3), s.param("k", 3, 3), s.param("v", 3, 3), s.param("w", 3, 2)
		x := s.sequence()
		scores := must(gorgonia.SoftMax(batched(folded(x, q, nil), folded(x, k, nil), false, true), 2))
		return meanOver(folded(batched(scores, folded(x, v, nil)), w, nil), 1)
	}, []string{"w"}},
	{"mean of a part of the positions", func(s *sketch) node {
		return meanOver(must(gorgonia.Slice(s.applied(), nil, gorgonia.S(1, 3))), 1)
	}, nil},
	{"mean over one axis of an image", func(s *sketch) node {
		return reshape(meanOver(s.filtered(3, 3), 3), cases, 6)
	}, nil},
	{"mean over the features", func(s *sketch) node { return meanOver(s.applied(), 2) }, nil},
	{"mean over positions and features", func(s *sketch) node {
		return mul(reshape(meanOver(s.applied(), 1, 2), cases, 1), s.param("v", 1, 2))
	}, nil},
	{"normalised before the mean", func(s *sketch) node {
		h := normalised(mul(reshape(s.sequence(), cases*steps, 3), s.param("w", 3, 3)))
		return meanOver(reshape(h, cases, steps, 3), 1)
	}, nil},
	{"positions mixed by a contraction", func(s *sketch) node {
		return sumOver(must(gorgonia.Tensordot([]int{1}, []int{0}, s.applied(), s.param("mix", steps, 2))), 1)
	}, nil},
	{"a gate for each position", func(s *sketch) node {
		x := s.sequence()
		return sumOver(times(x, folded(x, s.param("w", 3, 1), nil), 2), 1)
	}, nil},
	{"pooled and not", func(s *sketch) node {
		h := s.applied()
		return concat(1, meanOver(h, 1), reshape(h, cases, steps*2))
	}, nil},
	{"maximum", func(s *sketch) node { return must(gorgonia.Max(s.applied(), 1)) }, nil},
	{"one position", func(s *sketch) node {
		return sumOver(folded(s.input("x", cases, 1, 3), s.param("w", 3, 2), s.param("b", 1, 2)), 1)
	}, nil},
}

// reduced lists the layers that are reduced, which their descriptions have to say.
func (m model) reduced(t *testing.T) (names []string) {
	t.Helper()
	for _, l := range m.layers {
		if l.Reduce {
			names = append(names, l.Name())
		}
		if says := strings.HasSuffix(l.Describe(m.program.Cases), " positions per case, reduced"); says != l.Reduce {
			t.Errorf("%s is reduced: %v, and described as %q", l.Name(), l.Reduce, l.Describe(m.program.Cases))
		}
	}
	return names
}

func TestSharing(t *testing.T) {
	for _, p := range poolings {
		t.Run(p.name, func(t *testing.T) {
			for sharing, want := range map[layers.Sharing][]string{layers.Auto: p.reduce, layers.Expand: nil} {
				m, _ := build(t, p.out)
				m.approximate(layers.Approximation{MaxDim: 100, Sharing: sharing})
				if got := m.reduced(t); !slices.Equal(got, want) {
					t.Errorf("sharing %d reduces %v, want %v", sharing, got, want)
				}
			}
		})
	}
}

// Reduce takes positions together wherever that is possible, pooled or not.
func TestReduce(t *testing.T) {
	for _, test := range []struct {
		name string
		out  func(s *sketch) node
		want []string
	}{
		{"an output at each position", func(s *sketch) node {
			w, b, u, c := s.param("w", 3, 4), s.param("b", 1, 4), s.param("u", 4, 2), s.param("c", 1, 2)
			return reshape(folded(folded(s.sequence(), w, b), u, c), cases, steps*2)
		}, []string{"w", "u"}},
		{"one position", poolings[len(poolings)-1].out, nil},
		{"lookups", func(s *sketch) node {
			found := lookup(s.param("table", 5, 2), s.words("words", cases*steps))
			return sumOver(reshape(found, cases, steps, 2), 1)
		}, nil},
		{"one-hot rows", func(s *sketch) node {
			s.oneHot = []string{"table"}
			return sumOver(folded(s.input("x", cases, steps, 300), s.param("table", 300, 2), nil), 1)
		}, nil},
		{"positions before cases", func(s *sketch) node {
			return sumOver(rowsTimes(s.input("x", steps, cases, 3), s.param("w", 3, 2)), 0)
		}, nil},
		{"tied", func(s *sketch) node {
			v := s.param("v", 3, 2)
			h := tanh(mul(reshape(s.sequence(), cases*steps, 3), v))
			return sumOver(reshape(mul(h, transpose(v)), cases, steps, 3), 1)
		}, nil},
	} {
		m, _ := build(t, test.out)
		m.approximate(layers.Approximation{MaxDim: 1000, Sharing: layers.Reduce})
		var got []string
		for _, l := range m.layers {
			if l.Reduce {
				got = append(got, l.Name())
			}
			if n := l.Positions(m.program.Cases); n != steps && test.name != "one position" {
				t.Errorf("%s: %s has %d positions per case, want %d", test.name, l.Name(), n, steps)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: reduced %v, want %v", test.name, got, test.want)
		}
	}
}

// The uses of a weight are positions as well.
func TestReduceOfSeveralProducts(t *testing.T) {
	m, _ := build(t, func(s *sketch) node {
		w, b, v := s.param("w", 3, 4), s.param("b", 1, 4), s.param("v", 4, 2)
		h := plus(mul(s.input("x", cases, 3), w), b, 0)
		return mul(add(h, plus(mul(s.input("y", cases, 3), w), b, 0)), v)
	})
	m.approximate(layers.Approximation{MaxDim: 10, Sharing: layers.Reduce})
	got := m.lines()
	want := `w + b: 3 to 4, rows [5 5]: dense layer x w + b, used 2 times, reduced
v: 4 to 2, rows [5]: dense layer x w`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

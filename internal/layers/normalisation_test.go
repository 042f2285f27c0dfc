package layers_test

import (
	"testing"

	"gorgonia.org/gorgonia"
)

const ofANormalisation = "scale and shift: scale and shift of a normalisation, per channel"

var normalisations = []wiring{
	{"batch normalisation", func(s *sketch) node {
		return batchNorm(s.input("x", cases, 3), s.param("scale", 1, 3), s.param("shift", 1, 3))
	}, ofANormalisation},
	{"batch normalisation of images", func(s *sketch) node {
		h := batchNorm(s.input("x", cases, 3, 2, 2), s.param("scale", 1, 3, 1, 1), s.param("shift", 1, 3, 1, 1))
		return reshape(h, cases, 12)
	}, ofANormalisation},
	{"batch normalisation of a layer", func(s *sketch) node {
		h := mul(s.input("x", cases, 4), s.param("w", 4, 3))
		h = batchNorm(h, s.param("scale", 1, 3), s.param("shift", 1, 3))
		return mul(tanh(h), s.param("v", 3, 2))
	}, `
w: 4 to 3, rows [5]: dense layer x w
v: 3 to 2, rows [5]: dense layer x w
` + ofANormalisation},
	{"group normalisation", func(s *sketch) node {
		scale, shift := s.param("scale", 1, 4, 1, 1), s.param("shift", 1, 4, 1, 1)
		return reshape(must(gorgonia.GroupNorm(s.input("x", cases, 4, 2, 1), scale, shift, 2, 4, 1e-3)), cases, 8)
	}, ofANormalisation},
	{"layer normalisation by a quotient", func(s *sketch) node {
		return s.scaled(normalised(s.input("x", cases, 3)), row, 0)
	}, ofANormalisation},
	{"layer normalisation of positions", func(s *sketch) node {
		h := normalised(reshape(s.input("x", cases, 4, 3), cases*4, 3))
		return reshape(s.scaled(reshape(h, cases, 4, 3), []int{1, 1, 3}, 0, 1), cases, 12)
	}, ofANormalisation},
	{"root mean square, by an inverse square root", func(s *sketch) node {
		x := s.input("x", cases, 3)
		length := must(gorgonia.InverseSqrt(reshape(meanOver(square(x), 1), cases, 1)))
		return times(times(x, length, 1), s.param("scale", 1, 3), 0)
	}, "scale: scale of a normalisation, per channel"},
	{"division by a constant", func(s *sketch) node {
		x := must(gorgonia.Div(s.input("x", cases, 3), gorgonia.NewConstant(2.0)))
		return s.scaled(x, row, 0)
	}, "scale and shift: scale and shift, element by element"},
	{"division by an input", func(s *sketch) node {
		return s.scaled(dividedBy(s.input("x", cases, 3), s.input("length", cases, 1), 1), row, 0)
	}, "scale and shift: scale and shift, element by element"},
	{"function in between", func(s *sketch) node {
		return s.scaled(tanh(normalised(s.input("x", cases, 3))), row, 0)
	}, "scale and shift: scale and shift, element by element"},
	{"one number behind a normalisation", func(s *sketch) node {
		return times(normalised(s.input("x", cases, 3)), s.param("p", 1, 1), 0, 1)
	}, "p: temperature: one number that multiplies"},
	{"every element behind a normalisation", func(s *sketch) node {
		h := reshape(normalised(reshape(s.input("x", cases, 2, 3), cases, 6)), cases, 2, 3)
		return reshape(times(h, s.param("p", 1, 2, 3), 0), cases, 6)
	}, "p: scale, element by element"},
}

func TestNormalisation(t *testing.T) { checkWirings(t, normalisations) }

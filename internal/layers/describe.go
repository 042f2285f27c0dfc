package layers

import (
	"fmt"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Block is the layer's name and the sizes of its factors.
func (l *Layer) Block() string {
	if l.Channels > 0 {
		return fmt.Sprintf("%s: A %d channels, G %d", l.Name(), l.Channels, l.Out)
	}
	diagonal := func(is bool) string {
		if is {
			return "diagonal "
		}
		return ""
	}
	return fmt.Sprintf("%s: %sA %d, %sG %d", l.Name(), diagonal(l.DiagonalA), l.Abar(), diagonal(l.DiagonalG), l.Out)
}

// Describe says what the layer is, in the words of the model.
func (l *Layer) Describe(cases int) string {
	s := l.describe(cases)
	if l.Reduce {
		s += ", reduced"
	}
	if l.Channels > 0 {
		s += ", pixels uncorrelated"
	}
	if l.Tied != nil {
		s = "tied weight: " + s + ", and its transpose: " + l.Tied.describe(cases)
	}
	return s
}

// describe is the layer by itself.
func (l *Layer) describe(cases int) string {
	s := l.form()
	uses := len(l.Sites)
	if l.Steps > 1 {
		s += fmt.Sprintf(", %d time steps", l.Steps)
	}
	if uses > l.Steps {
		s += fmt.Sprintf(", used %d times", uses)
	}
	if n := l.Positions(cases); n > uses {
		s += fmt.Sprintf(", %d positions per case", n)
	}
	return s
}

// form is the kind of the layer and its formula.
func (l *Layer) form() string {
	window, axes, isConvolution := l.convolution()
	first := l.Sites[0]
	switch {
	case first.Lookup:
		return fmt.Sprintf("embedding lookup, %d rows", l.In)
	case first.OneHot:
		return "embedding by one-hot rows " + l.product("x")
	case isConvolution:
		return describeConvolution(window, axes) + ", " + l.plusBias("x * w")
	case l.Steps > 1:
		return "recurrent weight " + l.product("h")
	}
	return "dense layer " + l.product("x")
}

// product is how the weight is multiplied with its input.
func (l *Layer) product(input string) string {
	s := l.Sites[0]
	columns := s.OutputColumns
	if op, ok := s.Output.Op.(program.MatVec); ok && s.Input == s.Output.Kids[1] {
		columns = !op.TransA // Gorgonia's mark of Mul(x, w)
	}
	switch {
	case columns && l.OutByIn:
		return l.plusBias("w " + input)
	case columns:
		return l.plusBias("w^T " + input)
	case l.OutByIn:
		return l.plusBias(input + " w^T")
	}
	return l.plusBias(input + " w")
}

func (l *Layer) plusBias(product string) string {
	if l.Bias == nil {
		return product
	}
	return product + " + " + l.BiasName()
}

// DescribeBias says what the layer's bias is.
func (l *Layer) DescribeBias() string { return "homogeneous coordinate of " + l.Name() }

// DescribeChains tells which layers the block-tridiagonal inverse links.
func DescribeChains(chains [][]*Layer) []string {
	if len(chains) == 0 {
		return []string{"block-tridiagonal inverse: no layer, used once per case, feeds just one other such; " +
			"all blocks are inverted by themselves"}
	}
	notes := make([]string, len(chains))
	for i, chain := range chains {
		names := make([]string, len(chain))
		for k, l := range chain {
			names[k] = l.Name()
		}
		notes[i] = "block-tridiagonal inverse along " + strings.Join(names, " - ")
	}
	return notes
}

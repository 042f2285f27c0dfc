package layers

import (
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// An Approximation says which forms of factors are wanted.
type Approximation struct {
	MaxDim       int // of a larger factor only the diagonal is kept
	Sharing      Sharing
	Uncorrelated bool // the pixels of a convolution are taken to be uncorrelated
}

// Approximate decides the form of the layer's factors.
func (l *Layer) Approximate(p *program.Program, a Approximation) {
	l.Reduce = l.reduces(p, a.Sharing)
	if c := l.imageChannels(); a.Uncorrelated && !l.Reduce && c > 0 && c < a.MaxDim && l.Out <= a.MaxDim {
		l.Channels = c
		return
	}
	l.DiagonalA = l.DiagonalA || l.Abar() > a.MaxDim
	l.DiagonalG = l.DiagonalG || l.Out > a.MaxDim
	if n := l.patches(); n != nil && !l.Reduce && !l.DiagonalA {
		l.Patches = gridOf(n)
	}
	l.swapped()
}

package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// WithLayerStats fills in Stats.Layers at every so many steps, at least 1. For each factor of n
// rows that takes 32 n^2 multiplications. Default: never, at no cost.
func WithLayerStats(every int) Option {
	return number("WithLayerStats", float64(every), every >= 1, "a number of steps >= 1",
		func(c *config) { c.layerStats = every })
}

// layerStats tells about each block after a step. left says that the caller makes the step.
func layerStats[T program.Float](p *planned[T], left bool) (all []LayerStats) {
	var whole float64
	for _, b := range p.blocks {
		for _, s := range shownLayers(b) {
			if left {
				s.UpdateNorm = math.NaN()
			}
			whole = math.Hypot(whole, s.UpdateNorm)
			all = append(all, s)
		}
	}
	for i := range all {
		part := all[i].UpdateNorm / whole
		all[i].Share = part * part
	}
	return all
}

// shownLayers tells about each layer of a block.
func shownLayers[T program.Float](b *block[T]) (all []LayerStats) {
	for _, l := range b.shown() {
		s := LayerStats{
			Params:     l.names(),
			ParamNorm:  l.norm(theWeights[T]),
			GradNorm:   l.norm(theGradient[T]),
			UpdateNorm: l.norm(thePrevious[T]),
			A:          l.a.stats(), G: l.g.stats(), F: l.f.stats(), Pi: math.NaN(),
		}
		if l.a != nil {
			s.Pi, _ = tikhonov(1).Split(l.a.Trace, l.a.Rows, l.g.Trace, l.g.Rows)
		}
		all = append(all, s)
	}
	return all
}

// A shown layer is one of a block, or all of a block outside layers, with its factors.
type shown[T program.Float] struct {
	groups  []*group[T]
	a, g, f *shownFactor[T] // nil where there is none
}

// A shownFactor is an average, with what was added to its diagonal for the inverse in use, or NaN.
type shownFactor[T program.Float] struct {
	curvature.Factor[T]
	damping float64
}

// shown returns the layers of a block. Their factors may be memory of the block.
func (b *block[T]) shown() (all []shown[T]) {
	var factors []*shownFactor[T]
	for _, f := range b.Factors() {
		factors = append(factors, &shownFactor[T]{f, math.NaN()})
	}
	if b.inverse != nil {
		for i, d := range b.inverse.Dampings() {
			factors[i].damping = d
		}
	}
	if len(factors) == 2*len(b.groups) {
		for i := range b.groups {
			all = append(all, shown[T]{groups: []*group[T]{&b.groups[i]}, a: factors[2*i], g: factors[2*i+1]})
		}
		return all
	}
	var outside shown[T]
	for i := range b.groups {
		outside.groups = append(outside.groups, &b.groups[i])
	}
	if len(factors) > 0 {
		outside.f = factors[0]
	}
	return []shown[T]{outside}
}

func (f *shownFactor[T]) stats() FactorStats {
	nan := math.NaN()
	if f == nil {
		return FactorStats{nan, nan, nan, nan}
	}
	largest, smallest := f.Extremes()
	return FactorStats{f.Trace, f.damping, largest, smallest}
}

// names are those of the parameters, or of the parts of them that the layer has.
func (l *shown[T]) names() (names []string) {
	for _, g := range l.groups {
		names = append(names, g.names...)
	}
	return names
}

// norm returns the Euclidean norm of something of the parameters that were given. It is finite if
// that is.
func (l *shown[T]) norm(of func(*parameter[T]) []T) (norm float64) {
	for _, g := range l.groups {
		for k, p := range g.params {
			if p.given {
				norm = math.Hypot(norm, linalg.Norm(g.of(k, of(p))))
			}
		}
	}
	return min(norm, math.MaxFloat64)
}

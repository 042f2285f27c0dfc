package kfac

import (
	"math"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// An Inspection shows the curvature of a layer, or of the parameters of a block outside layers.
type Inspection struct {
	Params []string // their names, the weight first; a part is called as in w[0]
	// A and G are the factors of a layer; a tied weight has those of the product that stands for
	// the two of its uses. F is the block of parameters outside layers. nil is what there is none
	// of.
	A, G, F *Spectrum
}

// A Spectrum shows the running average of a factor, in the coordinates that lambda counts in (see
// WithDamping), and what damping does to it. A has the inputs in the order of the weight, and the
// bias last; G the outputs. By WithSpatiallyUncorrelated A is that of a pixel's channels, with a 1
// behind them.
type Spectrum struct {
	Eigenvalues []float64 // the largest first
	// Matrix is the factor of n rows, row-major, n x n. It is nil where the factor is diagonal, or
	// has blocks along its diagonal.
	Matrix []float64
	// Damping is what was added to the diagonal for the inverse of the last step. It is NaN if
	// there is no inverse, as where a state was loaded without factors.
	Damping float64
}

// Condition returns the condition number: the largest eigenvalue over the smallest. It is +Inf if
// the factor is singular, and NaN if it is zero.
func (s *Spectrum) Condition() float64 { return s.condition(0) }

// Damped returns the condition number of the damped factor.
func (s *Spectrum) Damped() float64 { return s.condition(s.Damping) }

func (s *Spectrum) condition(damping float64) float64 {
	if len(s.Eigenvalues) == 0 {
		return math.NaN()
	}
	smallest := max(s.Eigenvalues[len(s.Eigenvalues)-1], 0) // rounding may leave it below
	return (s.Eigenvalues[0] + damping) / (smallest + damping)
}

// Effective returns how many directions the damping leaves in effect: the sum over the eigenvalues
// l of l / (l + damping). It is near the number of rows where the damping is small beside all, and
// near 0 where it is large beside all.
func (s *Spectrum) Effective() (directions float64) {
	for _, l := range s.Eigenvalues {
		if l > 0 {
			directions += l / (l + s.Damping)
		}
	}
	return directions
}

// inspections shows the layers of blocks.
func inspections[T program.Float](blocks []*block[T]) (all []Inspection, err error) {
	for _, b := range blocks {
		for _, l := range b.shown() {
			one := Inspection{Params: l.names()}
			for _, f := range []struct {
				to   **Spectrum
				of   *shownFactor[T]
				name string
			}{{&one.A, l.a, "A"}, {&one.G, l.g, "G"}, {&one.F, l.f, "F"}} {
				if f.of == nil {
					continue
				}
				if *f.to, err = f.of.spectrum(); err != nil {
					return nil, &LayerError{Layer: one.Params[0], Op: "eigenvalues of " + f.name, Dim: f.of.N, Err: err}
				}
			}
			all = append(all, one)
		}
	}
	return all, nil
}

func (f *shownFactor[T]) spectrum() (*Spectrum, error) {
	values, err := f.Eigenvalues()
	if err != nil {
		return nil, err
	}
	s := &Spectrum{Eigenvalues: values, Damping: f.damping}
	if f.Width == f.N && f.N > 1 {
		s.Matrix = make([]float64, len(f.Data))
		linalg.Convert(s.Matrix, f.Data)
	}
	return s, nil
}

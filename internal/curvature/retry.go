package curvature

// The damping of a factor that can't be factorised is raised by retryFactor, at most maxRetries
// times.
const (
	maxRetries  = 6
	retryFactor = 10
)

// attempt is what came of factorising a factor.
type attempt struct {
	damping float64 // that was added last
	raised  bool    // because less was not enough
	err     error
}

// retry calls try with damping, and for as long as that fails with more of it.
func retry(damping float64, try func(damping float64) bool) attempt {
	for n := range maxRetries + 1 {
		if n > 0 {
			damping *= retryFactor
		}
		if try(damping) {
			return attempt{damping, n > 0, nil}
		}
	}
	return attempt{damping, true, ErrNotPosDef}
}

// failure is the error of a factor of dim rows that could not be inverted, or nil.
func (a *attempt) failure(layer int, op string, dim int) error {
	if a.err == nil {
		return nil
	}
	return &Error{Layer: layer, Op: op, Dim: dim, Damping: a.damping, Err: a.err}
}

// count is the number of factors whose damping was raised.
func count(raised ...bool) (n int) {
	for _, r := range raised {
		if r {
			n++
		}
	}
	return n
}

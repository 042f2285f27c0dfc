package curvature

// If a factor can't be factorised, its damping is multiplied by retryFactor, at most maxRetries
// times.
const (
	maxRetries  = 6
	retryFactor = 10
)

// attempt is the outcome of factorising a factor.
type attempt struct {
	damping float64 // last value that was tried
	raised  bool    // the first value was too small
	err     error
}

// retry calls try with damping. If try fails, retry raises the damping and calls it again.
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

// failure returns nil, or the error of a factor of dim rows that could not be factorised.
func (a *attempt) failure(layer int, op string, dim int) error {
	if a.err == nil {
		return nil
	}
	return &Error{Layer: layer, Op: op, Dim: dim, Damping: a.damping, Err: a.err}
}

// count returns the number of arguments that are true: the factors whose damping was raised.
func count(raised ...bool) (n int) {
	for _, r := range raised {
		if r {
			n++
		}
	}
	return n
}

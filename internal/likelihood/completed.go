package likelihood

// completed is a likelihood of the user's. What it lacks is filled in: each natural parameter has a
// target of its own, which is not discrete, and any target will do.
type completed struct{ Essential }

// completedScaled is a completed likelihood that tells the factor from a gradient.
type completedScaled struct {
	completed
	factors
}

// completedFitted is one that tells factor and targets from gradients at two points.
type completedFitted struct {
	completed
	fit
}

type fit interface {
	Fit(c, y []float64, grad, z [2][]float64, cols int)
}

type factors interface {
	Factors(c, grad, z []float64, cols int)
}

// Complete returns a likelihood with all methods, those of l where it has them.
func Complete(l Essential) Likelihood {
	if whole, ok := l.(Likelihood); ok {
		return whole
	}
	if f, ok := l.(fit); ok {
		return completedFitted{completed{l}, f}
	}
	if f, ok := l.(factors); ok {
		return completedScaled{completed{l}, f}
	}
	return completed{l}
}

func (c completed) Variables(cols int) int {
	if l, ok := c.Essential.(interface{ Variables(cols int) int }); ok {
		return l.Variables(cols)
	}
	return cols
}

func (c completed) Discrete() bool {
	l, ok := c.Essential.(interface{ Discrete() bool })
	return ok && l.Discrete()
}

type targets interface {
	ImpliedTarget(y, r, z []float64, cols int)
	CheckTarget(y []float64, cols int, tol float64) error
}

func (c completed) ImpliedTarget(y, r, z []float64, cols int) {
	if l, ok := c.Essential.(targets); ok {
		l.ImpliedTarget(y, r, z, cols)
	}
}

func (c completed) CheckTarget(y []float64, cols int, tol float64) error {
	if l, ok := c.Essential.(targets); ok {
		return l.CheckTarget(y, cols, tol)
	}
	return nil
}

package curvature

// pool keeps unused values for later use, so that steps in the steady state allocate nothing.
type pool[E any] struct {
	free []*E
	make func() *E
}

func (p *pool[E]) get() *E {
	if n := len(p.free); n > 0 {
		e := p.free[n-1]
		p.free = p.free[:n-1]
		return e
	}
	return p.make()
}

func (p *pool[E]) put(e *E) { p.free = append(p.free, e) }

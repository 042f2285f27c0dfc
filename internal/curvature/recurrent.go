package curvature

// Recurrent is the block of a weight that is used once at each of T time steps. Its gradient is the
// sum of w_t = vec(abar_t g_t^T), and
//
//	F = sum over t and t' of E[w_t w_t'^T],
//	E[w_{t+1} w_t^T] = A' (x) G'  and  E[w_t w_t^T] = A (x) G.
//
// Steps that are farther apart depend on each other only through the steps between them: w_{t+1} =
// Phi w_t + noise (Martens, Ba & Johnson 2018, section 3.5).
//
// The moments are A, G, A', G', with A' = E[abar_{t+1} abar_t^T] and G' = E[g_{t+1} g_t^T]. A' and
// G' have the same divisors as A and G. The rows of one time step follow those of the step before.
// The number of steps may differ from run to run. The inverse is for the number of steps of the run
// observed last.
type Recurrent[T Float] struct {
	layer[T]
	lagA, lagG *moment[T]
	stationary bool
	steps      int // time steps in the run observed last
	inverses   pool[recurrentInverse[T]]
	work       pool[junctions[T]]
	turned     turned[T]
	y          []T // scratch of Apply: abar x out
}

var _ Block[float64] = (*Recurrent[float64])(nil)

// NewRecurrent makes the block of a layer. The time steps are modelled as a chain. If stationary,
// the chain has no end ("option 2" of the paper). Otherwise A' and G' are taken to be symmetric: a
// step depends on the step before it in the same way as the step before depends on it ("option 1").
func NewRecurrent[T Float](s Shape, stationary bool) *Recurrent[T] {
	abar, out := s.Abar(), s.Out
	b := &Recurrent[T]{stationary: stationary, turned: turned[T]{on: s.OutByIn, rows: out, cols: abar}}
	b.init(s)
	overflow := Error{Op: "averages of the cross moments of its time steps"}
	b.lagA = b.add("A'", newCross[T](abar, abar), overflow)
	b.lagG = b.add("G'", newCross[T](out, out), overflow)
	b.ready()
	nextA, nextG := 0, 0 // sizes; in a stationary chain the layer is its own neighbour
	if stationary {
		nextA, nextG = abar, out
	}
	b.inverses.make = func() *recurrentInverse[T] {
		v := &recurrentInverse[T]{block: b, gains: make([]T, abar*out)}
		v.a, v.g = []link[T]{newLink[T](abar, nextA)}, []link[T]{newLink[T](out, nextG)}
		v.tmp, v.damping = make([]T, abar*out), make([]float64, 2)
		return v
	}
	b.work.make = func() *junctions[T] {
		return &junctions[T]{[]junction[T]{newJunction[T](abar, nextA)}, []junction[T]{newJunction[T](out, nextG)}}
	}
	return b
}

func (b *Recurrent[T]) Observe(rows []Rows[T]) error {
	if err := b.layer.Observe(rows); err != nil {
		return err
	}
	f := b.factors
	b.steps = rows[0].Steps
	lag := f.rows / b.steps
	a, g := true, true
	if rows[0].Again {
		g = b.lagG.observeLagAgain(f.gt, f.rows, lag)
	} else {
		a = b.lagA.observeLag(f.at, f.rows, lag, f.a.runCount)
		g = b.lagG.observeLag(f.gt, f.rows, lag, f.g.runCount)
	}
	if !a || !g {
		return &Error{Op: "cross moments of its time steps", Err: ErrNotFinite}
	}
	return nil
}

func (b *Recurrent[T]) NewInverse() Inverse[T] { return b.inverses.get() }

// Invert first computes K and s of both sides, and then the gains, which need both.
func (b *Recurrent[T]) Invert(avg *Averages[T], d Damping) *Inversion[T] {
	v, w := b.inverses.get(), b.work.get()
	v.steps = b.steps
	m := avg.Moments
	dampA, dampG := b.factors.dampings(m[0], m[1], d)
	return &Inversion[T]{
		First: []func(){
			func() { b.join(&w.a[0], &v.a[0], m[0], m[2], dampA) },
			func() { b.join(&w.g[0], &v.g[0], m[1], m[3], dampG) },
		},
		Then: []func(){v.computeGains},
		result: func() (Inverse[T], error) {
			b.work.put(w)
			var err error
			if v.raised, err = failures(w.a, w.g); err != nil {
				v.Release()
				return nil, err
			}
			v.keepDampings(w)
			return v, nil
		},
	}
}

// join computes the link of one side.
func (b *Recurrent[T]) join(j *junction[T], l *link[T], factor, lag []T, damping float64) {
	j.decompose(factor, damping)
	if b.stationary {
		j.join(l, j, lag)
	} else {
		j.joinSymmetric(l, lag)
	}
}

// recurrentInverse is (F + damping)^-1 for a recurrent weight. A and G are damped like the factors
// of other layers. In the basis K, A and G are identities.
//
//   - If A' and G' are symmetric, they are diagonal in this basis, with entries s_A and s_G. So F
//     is diagonal, with entries sum over |d| < T of (1 - |d|/T) (s_A s_G)^|d|. G already contains
//     the sum over t.
//   - If stationary, F^-1 = (I - Phi)^T Q^-1 (I - Phi) with Phi = (A' A^-1) (x) (G' G^-1) and
//     Q = A (x) G - Phi (A (x) G) Phi^T. In this basis Q is diagonal with entries 1 - s_A s_G. This
//     is the block-tridiagonal inverse of a layer that is its own neighbour.
//
// See Martens, Ba & Johnson 2018, sections 3.5.3 and 3.5.4.
type recurrentInverse[T Float] struct {
	tridiagonal[T]
	block  *Recurrent[T] // holds the scratch for Apply
	steps  int           // time steps
	gains  []T           // abar x out: the inverse's diagonal factors in the basis K
	raised int
}

// computeGains computes the gains from the links of both sides.
func (v *recurrentInverse[T]) computeGains() {
	cols := v.g[0].n
	for r, sA := range v.a[0].s {
		for c, sG := range v.g[0].s {
			v.gains[r*cols+c] = T(v.gain(sA * sG))
		}
	}
}

// gain returns the factor for the product x = s_A s_G.
func (v *recurrentInverse[T]) gain(x float64) float64 {
	if v.block.stationary {
		return 1 / max(1-x, minGap)
	}
	x = min(max(x, -1), 1)
	sum, power := 1.0, 1.0
	for d := 1; d < v.steps; d++ {
		power *= x
		sum += 2 * (1 - float64(d)/float64(v.steps)) * power
	}
	return 1 / max(sum, minGap)
}

func (v *recurrentInverse[T]) Apply(u, grad [][]T) {
	x, y := v.block.turned.enter(u[0], grad[0])
	v.apply(x, y)
	v.block.turned.leave(u[0])
}

// apply computes U for V (abar x out).
func (v *recurrentInverse[T]) apply(u, grad []T) {
	a, g, b := &v.a[0], &v.g[0], v.block
	copy(u, grad)
	if b.stationary {
		v.subtract(u, a.psi, g.psi, grad, 0, 0)
	}
	v.solveWith(u, 0, func(x []T) {
		for i, s := range v.gains {
			x[i] *= s
		}
	})
	if b.stationary {
		b.y = append(b.y[:0], u...)
		v.subtract(u, a.psiT, g.psiT, b.y, 0, 0)
	}
}

// State leaves out the number of steps, which only the gains depend on.
func (v *recurrentInverse[T]) State(to Visitor[T]) {
	to.Count("raised", &v.raised)
	v.tridiagonal.state(to, func(side string, _ int) string { return side })
	to.Tensor("gains", v.gains, v.a[0].n, v.g[0].n)
}

func (v *recurrentInverse[T]) Raised() int { return v.raised }
func (v *recurrentInverse[T]) Release()    { v.block.inverses.put(v) }

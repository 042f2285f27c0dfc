package linalg

import "math"

// secular is the eigenproblem of diag(d) + rho z z^T, with d ascending and distinct, rho > 0, no
// element of z zero, and |z| <= 1. Its eigenvalues are the roots of the increasing function
//
//	f(x) = 1/rho + sum_i z_i^2 / (d_i - x).
//
// There is one between any d_j and d_j+1, and one between the last d and d + rho (Golub & Van Loan,
// Matrix Computations, 4th edition, section 8.5.3).
type secular struct {
	d      []float64 // the poles of f
	z2     []float64 // the squares of the elements of z
	rhoInv float64
}

// root is the number d[pole] + offset, where pole is the nearest one. The two are kept apart
// because the eigenvectors need the distance from each pole to nearly all its digits.
type root struct {
	pole   int
	offset float64
}

// distance returns d_i - r.
func (s *secular) distance(i int, r root) float64 { return (s.d[i] - s.d[r.pole]) - r.offset }

// point is what is known of f at one place. psi is the sum over the poles up to a given one, phi
// the sum over those after it.
type point struct {
	f, size     float64 // f, and the sum of the absolute values of its three parts
	dPsi, dPhi  float64 // derivatives
	left, right float64 // distances from the given pole and the one after it to this place
}

// at computes f at r, with psi ending at pole p.
func (s *secular) at(r root, p int) point {
	psi, dPsi := s.sum(0, p+1, r)
	phi, dPhi := s.sum(p+1, len(s.d), r)
	return point{
		f: s.rhoInv + psi + phi, size: s.rhoInv + math.Abs(psi) + math.Abs(phi),
		dPsi: dPsi, dPhi: dPhi,
		left: s.distance(p, r), right: s.distance(p+1, r),
	}
}

// sum returns the terms from <= i < to of f at r, and of its derivative.
func (s *secular) sum(from, to int, r root) (f, df float64) {
	origin, offset := s.d[r.pole], r.offset
	z2 := s.z2[from:to]
	for i, d := range s.d[from:to] {
		inv := 1 / ((d - origin) - offset)
		t := z2[i] * inv
		f += t
		df += t * inv
	}
	return f, df
}

const (
	// maxSteps bounds the evaluations of f per root. Three to six are usual. Bisection alone, at
	// every second step, needs fewer than this.
	maxSteps = 400
	// patience is the number of steps after which every second one is a bisection.
	patience = 12
	// rootTolerance is the value of f, relative to the sizes of its parts, that counts as zero: a
	// few roundings. The vectors are those of a nearby z for which the roots are exact (nearbyZ).
	// So this is a backward error (Gu & Eisenstat 1995, section 3).
	rootTolerance = 0x1p-49
)

// root finds the j-th root. Each step goes to the root of a model of f that has only two poles. It
// reports false if that does not converge.
func (s *secular) root(j int) (root, bool) {
	k := len(s.d)
	if k == 1 {
		return root{0, s.z2[0] / s.rhoInv}, true
	}
	p := min(j, k-2) // the model's poles are p and p+1
	r, lo, hi, at := s.start(j, p)
	left, right := s.z2[p], s.z2[p+1] // the weights of the model's poles: at first as f has them
	for step := range maxSteps {
		if math.Abs(at.f) <= rootTolerance*at.size {
			return r, true
		}
		if at.f < 0 {
			lo = r.offset
		} else {
			hi = r.offset
		}
		next := r.offset + at.step(left, right, lo-r.offset, hi-r.offset)
		if !(lo < next && next < hi) || step > patience && step%2 == 0 {
			next = middle(lo, hi)
		}
		if next == lo || next == hi || math.Abs(next-r.offset) <= 0x1p-53*math.Abs(next) {
			return r, true
		}
		r.offset = next
		at = s.at(r, p)
		left, right = at.left*at.left*at.dPsi, at.right*at.right*at.dPhi // from now on such that psi' and phi' agree
	}
	return r, false
}

// start returns a first guess of root j, bounds for its offset, of one sign, and f there.
func (s *secular) start(j, p int) (r root, lo, hi float64, at point) {
	if j == len(s.d)-1 { // 1/rho = sum_i z_i^2 / (x - d_i) lies between its last term and |z|^2 / (x - d_j)
		r = root{j, 0.5 / s.rhoInv}
		return r, 0.5 * s.z2[j] / s.rhoInv, 2 / s.rhoInv, s.at(r, p)
	}
	gap := s.d[j+1] - s.d[j]
	r = root{j, gap / 2}
	at = s.at(r, p)
	// Beyond the middle the terms of the farther side are at most 2 |z|^2 / gap, and balance that
	// of the nearer pole. The factor 1/2 is for rounding.
	if at.f >= 0 {
		return r, 0.5 * s.z2[j] / (s.rhoInv + 2/gap), gap / 2, at
	}
	r = root{j + 1, -gap / 2}
	return r, -gap / 2, -0.25 * s.z2[j+1] * gap, at
}

// step returns the distance from the point to the root of the model
//
//	c + left / (at.left - x) + right / (at.right - x) = 0,
//
// where c makes it equal f at the point. The model has two roots: the result is the one between lo
// and hi, or NaN. With the weights for which the derivatives of psi and phi agree, this converges
// quadratically (Li 1994, "Solving secular equations stably and efficiently").
func (at point) step(left, right, lo, hi float64) float64 {
	l, r := at.left, at.right
	c := at.f - left/l - right/r
	a := at.f*(l+r) - left*r/l - right*l/r
	b := at.f * l * r
	q := (a + math.Copysign(math.Sqrt(max(0, a*a-4*b*c)), a)) / 2 // c x^2 - a x + b = 0
	for _, x := range [2]float64{q / c, b / q} {
		if lo < x && x < hi {
			return x
		}
	}
	return math.NaN()
}

// middle returns the geometric mean of two numbers of one sign: offsets range over many orders.
func middle(lo, hi float64) float64 {
	return math.Copysign(math.Sqrt(math.Abs(lo))*math.Sqrt(math.Abs(hi)), lo)
}

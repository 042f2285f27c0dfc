// Package curvaturetest has what tests compare the blocks of the curvature with: the dense matrices
// that the blocks stand for, without regard to cost.
package curvaturetest

import "gonum.org/v1/gonum/mat"

// ChainFisher is the dense Fisher matrix of the linear Gaussian chain, the sum over |d| < steps of
// (1 - |d|/steps) V_d with V_d = Phi^d V_0 and V_{-d} = V_d^T; with steps 0 it is that of an
// endless one. It fails if V_0 cannot be inverted.
func ChainFisher(v0, v1 *mat.Dense, steps int) (*mat.Dense, error) {
	var inv, phi mat.Dense
	if err := inv.Inverse(v0); err != nil {
		return nil, err
	}
	phi.Mul(v1, &inv)
	sum, power := mat.DenseCopyOf(v0), mat.DenseCopyOf(v0)
	for d := 1; d < steps || steps == 0 && d < 20000; d++ {
		var next, both mat.Dense
		next.Mul(&phi, power)
		power = &next
		both.Add(power, power.T())
		weight := 1.0
		if steps > 0 {
			weight -= float64(d) / float64(steps)
		}
		both.Scale(weight, &both)
		sum.Add(sum, &both)
		if mat.Norm(power, 2) < 1e-15*mat.Norm(sum, 2) {
			break
		}
	}
	return sum, nil
}

// SymmetricPart is (m + m^T) / 2.
func SymmetricPart(m *mat.Dense) *mat.Dense {
	var s mat.Dense
	s.Add(m, m.T())
	s.Scale(0.5, &s)
	return &s
}

// PartialTraces are tr_out and tr_in of a matrix of (in out) x (in out): in x in and out x out.
func PartialTraces(m mat.Matrix, in, out int) (left, right *mat.Dense) {
	left, right = mat.NewDense(in, in, nil), mat.NewDense(out, out, nil)
	for i := range in {
		for j := range in {
			for o := range out {
				left.Set(i, j, left.At(i, j)+m.At(i*out+o, j*out+o))
			}
		}
	}
	for o := range out {
		for p := range out {
			for i := range in {
				right.Set(o, p, right.At(o, p)+m.At(i*out+o, i*out+p))
			}
		}
	}
	return left, right
}

// CrossMoments are X_i^T X_j / cases for all pairs of layers; X_i has a row for each case.
func CrossMoments(cases int, x []*mat.Dense) (moments [][]*mat.Dense) {
	for _, xi := range x {
		var row []*mat.Dense
		for _, xj := range x {
			var m mat.Dense
			m.Mul(xi.T(), xj)
			m.Scale(1/float64(cases), &m)
			row = append(row, &m)
		}
		moments = append(moments, row)
	}
	return moments
}

// Offsets are where layers of abar x out begin in the vector of all weights, and its length.
func Offsets(abar, out []int) []int {
	at := []int{0}
	for i := range abar {
		at = append(at, at[i]+abar[i]*out[i])
	}
	return at
}

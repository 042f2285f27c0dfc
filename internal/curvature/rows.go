package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// Float is the set of element types.
type Float = linalg.Float

// Shape describes a layer as far as its factors depend on it. Equal shapes have blocks of the same
// form.
type Shape struct {
	In, Out int  // sizes of the weight
	Bias    bool // abar has a homogeneous coordinate after the inputs
	OutByIn bool // V and U are out x abar, not abar x out
	Tied    bool // the weight is used as W and as W^T

	DiagonalA, DiagonalG bool // only the factor's diagonal is kept
	Channels             int  // for a convolution with pixels taken to be uncorrelated; otherwise 0
}

// Abar returns the size of the layer's input, including the homogeneous coordinate.
func (s Shape) Abar() int {
	if s.Bias {
		return s.In + 1
	}
	return s.In
}

// sizeA returns the number of rows of the factor A as it is kept.
func (s Shape) sizeA() int {
	if s.Channels > 0 {
		return s.Channels + 1
	}
	return s.Abar()
}

// InverseOperations returns the number of operations for inverting both factors.
func (s Shape) InverseOperations() float64 {
	var ops float64
	if n := float64(s.sizeA()); !s.DiagonalA {
		ops += n * n * n
	}
	if m := float64(s.Out); !s.DiagonalG {
		ops += m * m * m
	}
	return ops
}

// InverseNumbers returns the number of elements of the inverses of both factors.
func (s Shape) InverseNumbers() float64 {
	a, g := float64(s.sizeA()), float64(s.Out)
	if !s.DiagonalA {
		a *= a
	}
	if !s.DiagonalG {
		g *= g
	}
	return a + g
}

// Rows holds what a layer, or a parameter outside layers, saw in one run.
type Rows[T Float] struct {
	A, G    []T   // inputs and gradients: rows x In and rows x Out
	Lookups []int // for a lookup, instead of A: the index of the 1 in each one-hot row
	Cases   int   // divisor of the second moment of G
	Steps   int   // time steps of a recurrent weight; each has the same number of rows, step after step
	Patches *Grid // for a convolution with overlapping patches; otherwise nil
	// Groups: the rows lie in so many groups of as many rows for each case, case after case. 0 if
	// cases can't be told apart.
	Groups int
	// Again says that G is of another backward sweep of the run observed last. Its second moments
	// add to that run's, with the same divisor. A plays no part.
	Again bool
}

// A Grid is the geometry of a convolution's patches where they overlap: at position y, row ky+1 of
// the kernel sees what row ky sees at position y + Shift. A consists of blocks, one for each pair
// of kernel rows. Only the blocks of the first kernel row need the whole sum over positions. The
// others follow from
//
//	A(ky+1, ky'+1) = A(ky, ky') - (positions y < Shift, rows ky and ky')
//	                 + (positions y >= Height-Shift, rows ky+1 and ky'+1)
//
// So kh blocks are computed instead of kh (kh+1)/2. For a 3 x 3 kernel that is half the work.
type Grid struct {
	KernelRows    int // kh
	Height, Width int // positions
	Shift         int
	Place         []int // by element of a patch: its index when sorted by row of the kernel
}

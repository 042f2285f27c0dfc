package curvature

import "github.com/gorgonia-kfac/kfac/internal/linalg"

// Float is the set of element types.
type Float = linalg.Float

// Shape is what the factors of a layer depend on. Shapes are equal if their blocks are alike.
type Shape struct {
	In, Out int  // of the weight
	Bias    bool // abar has a homogeneous coordinate behind the inputs
	OutByIn bool // V and U are out x abar, not abar x out
	Tied    bool // the weight is used as W and as W^T

	DiagonalA, DiagonalG bool // of the factor only the diagonal is kept
	Channels             int  // of a convolution whose pixels are taken to be uncorrelated; else 0
}

// Abar is the size of the layer's input with the homogeneous coordinate.
func (s Shape) Abar() int {
	if s.Bias {
		return s.In + 1
	}
	return s.In
}

// sizeA is the number of rows of the factor A that is kept.
func (s Shape) sizeA() int {
	if s.Channels > 0 {
		return s.Channels + 1
	}
	return s.Abar()
}

// InverseOperations counts the operations that inverting both factors takes.
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

// Rows are what a layer, or a parameter, saw in one run.
type Rows[T Float] struct {
	A, G    []T   // inputs and gradients: rows x In and rows x Out
	Lookups []int // for a lookup, in place of a row of A: where the one of the one-hot row is
	Cases   int   // that the second moment of G is divided by
	Steps   int   // of time, of a recurrent weight: as many rows for each, one step behind the other
	Patches *Grid // of a convolution whose patches repeat each other; else nil
}

// A Grid is the geometry of a convolution's patches, where they repeat each other: what row ky+1 of
// the kernel sees at position y is what row ky sees at position y + Shift. So of the blocks of A,
// by rows of the kernel, only those of the first row need the whole sum over positions,
//
//	A(ky+1, ky'+1) = A(ky, ky') - (positions y < Shift, rows ky and ky')
//	                 + (positions y >= Height-Shift, rows ky+1 and ky'+1)
//
// which takes 1 of kh (kh+1)/2 blocks' work for each of kh: about half for 3 x 3.
type Grid struct {
	KernelRows    int // kh
	Height, Width int // positions
	Shift         int
	Place         []int // of a patch's element: where it goes when they are sorted by rows of the kernel
}

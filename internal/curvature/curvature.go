// Package curvature approximates blocks of the Fisher matrix by Kronecker products, and inverts
// them (Martens & Grosse 2015). It knows numbers only: what layers saw in a run comes in as rows,
// and what goes out are directions.
//
//	rows -> second moments -> running averages -> inverses -> directions
//
// There is one file for each kind of [Block]. A Block keeps its running averages. Everything that a
// step makes of it is a value: new [Averages], an [Inverse] of them. The step keeps these, or hands
// them back for their memory to be used again.
//
// # Shapes
//
// Matrices are row-major, with one row for each case or position. A layer computes s = abar W,
// where abar is its input a with a homogeneous coordinate 1 behind it if there is a bias. Its
// gradient V and its direction U are abar x out, or out x abar where the weight is stored so.
package curvature

// Averages are the running averages of a block's second moments after a number of updates.
type Averages[T Float] struct {
	Updates   int
	Moments   [][]T // row-major, in the order that the block's kind says
	Restarted bool  // those of the last update alone, though there were some before

	dwarfs int // updates, one after the other, whose inputs were dwarfed by the averages
}

// A Block is the curvature of one layer, of a chain of layers, or of parameters outside layers.
//
// Slices of slices hold one element for each layer of the block: Observe takes its rows, and an
// Inverse its V and its U. A tied weight has rows for either way that it is used, but one V and one
// U.
type Block[T Float] interface {
	// Observe computes the second moments of a run, in place of those observed last. The error is
	// an *Error.
	Observe(rows []Rows[T]) error
	// Accumulate counts what was observed last as one of several runs of the update in progress.
	Accumulate()
	// Discard forgets the runs of the update in progress.
	Discard()

	// Average returns what the runs of the update make of the averages: eps times these plus (1 -
	// eps) times the mean over the runs, with eps = min(1 - 1/k, ema) for the k-th update. Where an
	// outlier dwarfs the inputs for some updates, the averages start anew. The error is an *Error.
	Average(ema float64) (*Averages[T], error)
	// Restart is Average as if the update were the first: the mean over its runs alone.
	Restart() (*Averages[T], error)
	// Keep makes averages from Average or Restart the current ones, and ends the update.
	Keep(*Averages[T])
	// Update is Average and Keep in one, in less time. It does not look for an overflow.
	Update(ema float64) (restarted bool)
	// Copy returns a copy of the current averages that nothing else touches.
	Copy() *Averages[T]
	// Release takes back averages from Average, Restart or Copy that are not kept.
	Release(*Averages[T])

	// Trace is the sum of the eigenvalues of the block with these averages.
	Trace(*Averages[T]) float64
	// Invert begins the inverse of the block with these averages, damped. They must last until it
	// is done; if the block is Immediate, for as long as the inverse.
	Invert(*Averages[T], Damping) *Inversion[T]
	// Immediate reports whether inverses cost nothing: each step then takes one of its own
	// averages.
	Immediate() bool
}

// Damping is what is added to the diagonals of a block before it is inverted.
type Damping interface {
	// Split returns what to add to the diagonals of A (n x n) and of G (m x m), given their traces.
	Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64)
	// Whole is what to add to the diagonal of a block that has no factors.
	Whole() float64
}

// An Inverse is (F + damping)^-1 of a block: made once, applied many times.
type Inverse[T Float] interface {
	// Apply computes U = (F + damping)^-1 V. U and V must not share memory.
	Apply(u, v [][]T)
	// Raised is the number of factors whose damping had to be raised.
	Raised() int
	// Release says that the inverse is no longer needed, and its memory free for another.
	Release()
}

// An Inversion is an inverse in the making. The functions of First may run at the same time, and
// then those of Then. They touch nothing but the averages, which they read, and memory of their
// own.
type Inversion[T Float] struct {
	First, Then []func()
	result      func() (Inverse[T], error)
}

// Run runs all functions.
func (v *Inversion[T]) Run() {
	for _, f := range v.First {
		f()
	}
	for _, f := range v.Then {
		f()
	}
}

// Inverse returns what the functions, which must have run, have made. It is to be called once, and
// not beside other calls for the block. The error is an *Error.
func (v *Inversion[T]) Inverse() (Inverse[T], error) { return v.result() }

// done is an inversion for which there is nothing to do.
func done[T Float](v Inverse[T]) *Inversion[T] {
	return &Inversion[T]{result: func() (Inverse[T], error) { return v, nil }}
}

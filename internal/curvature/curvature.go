// Package curvature approximates blocks of the Fisher matrix by Kronecker products and inverts them
// (Martens & Grosse 2015). It works on numbers only and knows no graphs. Its input is rows: what
// the layers saw in a run. Its output is directions.
//
//	rows -> second moments -> running averages -> inverses -> directions
//
// Each kind of [Block] has a file. A Block keeps its running averages. A step gets new [Averages]
// and an [Inverse] as values. It keeps them, or releases them so that their memory can be used
// again.
//
// # Shapes
//
// Matrices are row-major, with one row for each case or position. A layer computes s = abar W. abar
// is the layer's input a, followed by a homogeneous coordinate 1 if the layer has a bias. The
// gradient V and the direction U of a layer are abar x out, or out x abar if the weight is stored
// that way.
package curvature

// Averages holds the running averages of a block's second moments after a number of updates.
type Averages[T Float] struct {
	Updates   int
	Moments   [][]T // row-major; each kind of block documents the order
	Restarted bool  // there were earlier averages, and these are of the last update alone

	dwarfs int            // number of consecutive updates whose inputs were dwarfed by the averages
	basis  *eigenbasis[T] // of an Eigen block, made from these averages; nil if not yet
}

// A Block is the curvature of one layer, of a chain of layers, or of parameters outside layers.
//
// A slice of slices has one element for each layer of the block. Observe takes the layers' rows. An
// Inverse takes the layers' V and computes their U. A tied weight has rows for each of its two
// uses, but one V and one U.
type Block[T Float] interface {
	// Observe computes the second moments of a run. They replace those of the run observed last,
	// unless the rows are of the same run Again. The error is an *Error.
	Observe(rows []Rows[T]) error
	// Accumulate adds the run observed last to the runs of the update in progress. It is used when
	// an update has several runs.
	Accumulate()
	// Discard forgets the runs of the update in progress.
	Discard()

	// Average returns the new averages: eps times the current averages plus (1 - eps) times the
	// mean over the runs of the update, with eps = min(1 - 1/k, ema) for update k. The averages
	// restart if an outlier has dwarfed the inputs of several updates. The error is an *Error.
	Average(ema float64) (*Averages[T], error)
	// Restart returns the averages as if the update were the first: the mean over its runs.
	Restart() (*Averages[T], error)
	// Keep makes the result of Average or Restart the current averages and ends the update.
	Keep(*Averages[T])
	// Update does the work of Average and Keep in less time. It does not check for overflow.
	Update(ema float64) (restarted bool)
	// Copy returns a copy of the current averages. Later updates do not change the copy.
	Copy() *Averages[T]
	// Release takes back averages from Average, Restart or Copy that are not kept.
	Release(*Averages[T])

	// The five of an update in parts; see parts.go.
	Tally(sums []float64) []float64
	Whole(sums []float64) (rest []float64)
	Swap(*Averages[T]) (before *Averages[T])
	Pack(dst []T, share *Averages[T]) []T
	Unpack(share *Averages[T], src []T) (whole *Averages[T], rest []T, err error)

	// Trace returns the sum of the eigenvalues of the block with the given averages.
	Trace(*Averages[T]) float64
	// Invert begins the inverse of the block with the given averages, damped. The averages must
	// stay unchanged until the inversion is done. If the block is Immediate, they must stay
	// unchanged while the inverse is in use.
	Invert(*Averages[T], Damping) *Inversion[T]
	// Factors shows the current averages: A and G of each layer, or F of a block without factors.
	// They may be memory of the block, which the next update changes.
	Factors() []Factor[T]
	// State shows the current averages to a Visitor.
	State(Visitor[T])
	// NewInverse returns an inverse that a Visitor is to fill in; nil if the block is Immediate.
	NewInverse() Inverse[T]

	// Immediate reports whether an inverse costs nothing. If so, each step makes a new inverse from
	// its own averages.
	Immediate() bool
}

// A Rebased block has averages in the basis of the inverse in use.
type Rebased[T Float] interface {
	Block[T]
	// Rebase is called at the end of each update, after Keep or Update, with the inverse that is in
	// use then. It changes that inverse to one of the present averages. Of an update in parts the
	// inverse gets a share, which it returns: it has to be summed over the parts. One of them is
	// the first.
	Rebase(inverse Inverse[T], first bool) (share []T)
}

// Damping says what to add to the diagonals of a block before it is inverted.
type Damping interface {
	// Split returns what to add to the diagonals of A (n x n) and of G (m x m), given their traces.
	Split(traceA float64, n int, traceG float64, m int) (dampA, dampG float64)
	// Whole returns what to add to the diagonal of a block that has no factors.
	Whole() float64
}

// An Inverse is (F + damping)^-1 of a block. It is made once and applied many times.
type Inverse[T Float] interface {
	// Apply computes U = (F + damping)^-1 V. U and V must not share memory.
	Apply(u, v [][]T)
	// Raised returns the number of factors whose damping was raised.
	Raised() int
	// Dampings returns what was added to the diagonals, in the order of Block.Factors, or nothing
	// if it was added to the block and not to its factors.
	Dampings() []float64
	// State shows the inverse to a Visitor. That of an Immediate block has none of its own.
	State(Visitor[T])
	// Release ends the use of the inverse. Its memory may then be used for another one.
	Release()
}

// An Inversion computes an inverse. The functions of First may run at the same time. The functions
// of Then may run at the same time after all of First are done. They read the averages and write
// only memory of the inversion.
type Inversion[T Float] struct {
	First, Then []func()
	result      func() (Inverse[T], error)
}

// Run runs all functions, one after the other.
func (v *Inversion[T]) Run() {
	for _, f := range v.First {
		f()
	}
	for _, f := range v.Then {
		f()
	}
}

// Inverse returns the inverse. All functions must have run. It may be called once only, and not at
// the same time as another call for the block. The error is an *Error.
func (v *Inversion[T]) Inverse() (Inverse[T], error) { return v.result() }

// done returns an inversion that has no work to do.
func done[T Float](v Inverse[T]) *Inversion[T] {
	return &Inversion[T]{result: func() (Inverse[T], error) { return v, nil }}
}

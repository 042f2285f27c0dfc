package kernels

import (
	"fmt"
	"sync"

	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Gemm computes C = alpha op(A) op(B) + beta C, where op(A) is m x k, op(B) is k x n and C is
// m x n. A is stored k x m if tA, B is stored n x k if tB. The strides between rows are lda, ldb
// and ldc elements. With beta = 0 the old contents of C do not matter, even if they are NaN. With
// alpha = 0 A and B do not. C must not overlap with A and B.
func Gemm[T Float](tA, tB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	compute(operands[T]{tA, tB, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc})
}

// UpperGram is Gemm for the upper triangle of an n x n matrix C only. What is below the diagonal
// stays.
func UpperGram[T Float](tA, tB bool, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	compute(operands[T]{tA, tB, true, n, n, k, alpha, a, lda, b, ldb, beta, c, ldc})
}

// operands are the arguments of Gemm, and whether only the upper triangle is wanted.
type operands[T Float] struct {
	tA, tB, upper bool
	m, n, k       int
	alpha         T
	a             []T
	lda           int
	b             []T
	ldb           int
	beta          T
	c             []T
	ldc           int
}

// check panics if a matrix does not fit into its slice: the kernels would write to other memory.
func (o *operands[T]) check() {
	matrix := func(name string, x []T, transposed bool, rows, cols, ld int) {
		if transposed {
			rows, cols = cols, rows
		}
		if ld < cols || len(x) < (rows-1)*ld+cols {
			panic(fmt.Sprintf("kernels: %s is %d x %d with stride %d in %d elements", name, rows, cols, ld, len(x)))
		}
	}
	if o.m < 0 || o.n < 0 || o.k < 0 {
		panic(fmt.Sprintf("kernels: sizes %d, %d, %d", o.m, o.n, o.k))
	}
	matrix("C", o.c, false, o.m, o.n, o.ldc)
	if o.k > 0 && o.alpha != 0 {
		matrix("A", o.a, o.tA, o.m, o.k, o.lda)
		matrix("B", o.b, o.tB, o.k, o.n, o.ldb)
	}
}

const (
	depthMost   = 384     // products in a row of a packed panel
	blockRows   = 64      // of C, that a processor computes in one go
	blockAcross = 8       // panels of B in a block of C
	worthForks  = 1 << 19 // multiplications
	few         = 400     // multiplications that take less time than the way to the kernels
)

// A product computes one product of matrices. Panels of B, as wide as a tile and depth deep, are
// copied so that they lie in one piece, and the tiles of C take their columns from them. Blocks of
// C are divided among the processors.
type product[T Float] struct {
	operands[T]
	*tiles[T]
	panels      int // of B
	blockPanels int
	packs       bool // whether whole panels of B are copied too
	from, depth int  // the present products
	packed      []T
	own         scratch[T] // of the goroutine that called

	packSome, blockSome func(from, to int) // methods, kept since making them allocates
}

var (
	products32 pool[product[float32]]
	products64 pool[product[float64]]
)

func productsOf[T Float]() *pool[product[T]] {
	if p, ok := any(&products32).(*pool[product[T]]); ok {
		return p
	}
	return any(&products64).(*pool[product[T]])
}

func compute[T Float](o operands[T]) {
	if o.m == 0 || o.n == 0 {
		return
	}
	o.check()
	switch {
	case o.k == 0 || o.alpha == 0:
		o.scale()
		return
	case o.m*o.n*o.k <= few:
		o.small()
		return
	case o.m == 1 && o.tB: // the columns of C take no panels of B
		o = operands[T]{!o.tB, !o.tA, false, o.n, 1, o.k, o.alpha, o.b, o.ldb, o.a, o.lda, o.beta, o.c, 1}
	}
	p := productsOf[T]().get()
	if p.packSome == nil {
		p.packSome, p.blockSome = p.pack, p.blocksAside
	}
	p.operands, p.tiles = o, fastest[T]()
	p.run()
	p.operands = operands[T]{}
	productsOf[T]().put(p)
}

// scale computes C *= beta.
func (o *operands[T]) scale() {
	for i := range o.m {
		row := o.c[i*o.ldc : i*o.ldc+o.n]
		if o.upper {
			row = row[i:]
		}
		for j, v := range row {
			row[j] = scaled(o.beta, v)
		}
	}
}

// small computes C without tiles, each row by sums of rows of B, or each element by itself.
func (o *operands[T]) small() {
	aRow, aStep := o.lda, 1
	if o.tA {
		aRow, aStep = 1, o.lda
	}
	for i := range o.m {
		row, first := o.c[i*o.ldc:i*o.ldc+o.n], 0
		if o.upper {
			first = i
		}
		if o.tB {
			for j := first; j < o.n; j += 2 { // two sums do not wait for each other
				next := min(j+1, o.n-1)
				y, z := o.b[j*o.ldb:][:o.k], o.b[next*o.ldb:][:o.k]
				var s, t T
				for l, at := 0, i*aRow; l < len(y) && l < len(z); l++ {
					s += o.a[at] * y[l]
					t += o.a[at] * z[l]
					at += aStep
				}
				row[j] = s*o.alpha + scaled(o.beta, row[j])
				if next > j {
					row[next] = t*o.alpha + scaled(o.beta, row[next])
				}
			}
			continue
		}
		row = row[first:]
		for j, v := range row {
			row[j] = scaled(o.beta, v)
		}
		for l := 0; l < o.k; l += 2 {
			x, y := o.alpha*o.a[i*aRow+l*aStep], o.b[l*o.ldb+first:][:len(row)]
			if l+1 == o.k {
				for j := range row {
					row[j] += x * y[j]
				}
				break
			}
			z, w := o.alpha*o.a[i*aRow+(l+1)*aStep], o.b[(l+1)*o.ldb+first:][:len(row)]
			for j := range row {
				row[j] += x*y[j] + z*w[j]
			}
		}
	}
}

// scaled is beta x, but 0 for beta = 0.
func scaled[T Float](beta, x T) T {
	if beta == 0 {
		return 0
	}
	return beta * x
}

func (p *product[T]) run() {
	width := p.width()
	p.panels = (p.n + width - 1) / width
	p.blockPanels = blockAcross
	if p.tA { // whose rows are copied once for each block
		p.blockPanels = 2 * blockAcross
	}
	p.packs = p.tB || p.m > 4*p.rows
	forks := p.m*p.n*p.k >= worthForks
	pieces := (p.k + depthMost - 1) / depthMost
	depth := (p.k + pieces - 1) / pieces
	if n := p.panels * width * depth; len(p.packed) < n {
		p.packed = make([]T, n)
	}
	blocks := p.countBlocks()
	for p.from = 0; p.from < p.k; p.from += depth {
		p.depth = min(depth, p.k-p.from)
		if forks {
			parallel.For(p.panels, 1, p.packSome)
			parallel.For(blocks, 1, p.blockSome)
		} else {
			p.pack(0, p.panels)
			p.blocks(&p.own, 0, blocks)
		}
		p.beta = 1
	}
}

// inB reports whether panel j is taken from B as it lies there.
func (p *product[T]) inB(j int) bool { return !p.packs && (j+1)*p.width() <= p.n }

// panel returns panel j: where it starts, the distance of its rows and its width in vectors.
func (p *product[T]) panel(j int) (b *T, bStep, vectors int) {
	col := j * p.width()
	if p.inB(j) {
		return &p.b[p.from*p.ldb+col], p.ldb, len(p.across)
	}
	vectors = min(len(p.across), (p.n-col+p.lanes-1)/p.lanes)
	return &p.packed[col*p.depth], vectors * p.lanes, vectors
}

// pack copies panels of B.
func (p *product[T]) pack(from, to int) {
	for j := from; j < to; j++ {
		if p.inB(j) {
			continue
		}
		col := j * p.width()
		_, width, _ := p.panel(j)
		dst, cols := p.packed[col*p.depth:][:width*p.depth], min(width, p.n-col)
		if p.tB {
			packColumns(p.tiles, dst, width, p.b[col*p.ldb+p.from:], p.ldb, cols, p.depth)
		} else {
			packRows(dst, width, p.b[p.from*p.ldb+col:], p.ldb, p.depth, cols)
		}
	}
}

// eachBlock calls f for the blocks of C that are wanted. First come those that need the first
// panels of B, which then stay in the processor's cache.
func (p *product[T]) eachBlock(f func(i, j int)) {
	for j := 0; j < p.panels; j += p.blockPanels {
		for i := 0; i < p.m; i += blockRows {
			if !p.upper || i < (j+p.blockPanels)*p.width() {
				f(i, j)
			}
		}
	}
}

func (p *product[T]) countBlocks() (n int) {
	p.eachBlock(func(int, int) { n++ })
	return n
}

// blocks computes some of the blocks of C.
func (p *product[T]) blocks(s *scratch[T], from, to int) {
	at := 0
	p.eachBlock(func(i, j int) {
		if from <= at && at < to {
			p.block(s, i, min(i+blockRows, p.m), j, min(j+p.blockPanels, p.panels))
		}
		at++
	})
}

// blocksAside is blocks, at the same time as others.
func (p *product[T]) blocksAside(from, to int) {
	s := scratchOf[T]().get()
	p.blocks(s, from, to)
	scratchOf[T]().put(s)
}

// block computes the tiles from row i0 to i1 and panel j0 to j1.
func (p *product[T]) block(s *scratch[T], i0, i1, j0, j1 int) {
	packed := p.tA || p.m < p.rows // else the tiles take A as it is
	stride := 0
	if packed {
		stride = p.packA(s, i0, i1)
	}
	for i := i0; i < i1; i += p.rows {
		r := rowsOfC{first: i, from: i, to: min(i+p.rows, p.m)}
		a, aRow, aStep := &s.a[i-i0], 1, stride
		if !packed {
			r.first = min(i, p.m-p.rows)
			a, aRow, aStep = &p.a[r.first*p.lda+p.from], p.lda, 1
		}
		for j := j0; j < j1; j++ {
			p.tile(s, r, j, a, aRow, aStep)
		}
	}
}

// packA copies the rows i0 to i1 of op(A) to columns, and returns the length of a row of these.
// Behind them are zeros, as many as the last tile needs.
func (p *product[T]) packA(s *scratch[T], i0, i1 int) (stride int) {
	stride = (i1 - i0 + p.rows - 1) / p.rows * p.rows
	dst := s.a[:stride*p.depth]
	if p.tA {
		packRows(dst, stride, p.a[p.from*p.lda+i0:], p.lda, p.depth, i1-i0)
	} else {
		packColumns(p.tiles, dst, stride, p.a[i0*p.lda+p.from:], p.lda, i1-i0, p.depth)
	}
	return stride
}

// rowsOfC are the rows of a tile. At the lower edge some before them are computed once more.
type rowsOfC struct{ first, from, to int }

// tile computes a tile of C in panel j. Where not all of the tile belongs to C, or only a triangle
// is wanted, it is computed aside.
func (p *product[T]) tile(s *scratch[T], r rowsOfC, j int, a *T, aRow, aStep int) {
	col := j * p.width()
	b, bStep, vectors := p.panel(j)
	width := vectors * p.lanes
	cols := min(p.n-col, width)
	if p.upper && r.from >= col+cols {
		return
	}
	kernel := p.across[vectors-1]
	if r.to-r.first == p.rows && r.first == r.from && cols == width && (!p.upper || r.to <= col+1) {
		kernel(p.depth, a, aRow, aStep, b, bStep, &p.c[r.from*p.ldc+col], p.ldc, p.alpha, p.beta)
		return
	}
	for i := r.from; i < r.to; i++ {
		copy(s.tile[(i-r.first)*width:], p.c[i*p.ldc+col:][:cols])
	}
	kernel(p.depth, a, aRow, aStep, b, bStep, &s.tile[0], width, p.alpha, p.beta)
	for i := r.from; i < r.to; i++ {
		skip := 0
		if p.upper {
			skip = min(max(0, i-col), cols)
		}
		copy(p.c[i*p.ldc+col+skip:i*p.ldc+col+cols], s.tile[(i-r.first)*width+skip:])
	}
}

// scratch is what a processor needs for tiles at the edge.
type scratch[T Float] struct {
	tile [8 * 48]T
	a    [blockRows * depthMost]T // rows of op(A)
}

var (
	scratch32 pool[scratch[float32]]
	scratch64 pool[scratch[float64]]
)

func scratchOf[T Float]() *pool[scratch[T]] {
	if p, ok := any(&scratch32).(*pool[scratch[T]]); ok {
		return p
	}
	return any(&scratch64).(*pool[scratch[T]])
}

// A pool hands out what was put back. It keeps as many as were ever out at the same time: a
// sync.Pool drops some, and makes others anew.
type pool[X any] struct {
	mu   sync.Mutex
	free []*X
}

func (p *pool[X]) get() *X {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return new(X)
	}
	x := p.free[last]
	p.free = p.free[:last]
	return x
}

func (p *pool[X]) put(x *X) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, x)
}

package kernels

// A tileKernel computes a tile of C = alpha op(A) op(B) + beta C. Row i of op(A) starts at
// a[i*aRow] and has its elements at distances of aStep. Row i of op(B) starts at b[i*bStep], row i
// of C at c[i*ldc]. There are k > 0 products to each sum. With beta = 0 C is not read.
type tileKernel[T Float] func(k int, a *T, aRow, aStep int, b *T, bStep int, c *T, ldc int, alpha, beta T)

// tiles are the kernels for tiles of one height and of one, two and three vectors across.
type tiles[T Float] struct {
	name   string
	rows   int
	lanes  int // elements of a vector
	across []tileKernel[T]

	side    int // of the squares that are transposed at once, if any
	squares func(n int, dst *T, ldd int, src *T, lds int)
}

// width is that of the widest tile.
func (t *tiles[T]) width() int { return t.lanes * len(t.across) }

// fastest are the tiles that this processor computes fastest.
func fastest[T Float]() *tiles[T] {
	if t, ok := any(&tiles32).(*tiles[T]); ok {
		return t
	}
	return any(&tiles64).(*tiles[T])
}

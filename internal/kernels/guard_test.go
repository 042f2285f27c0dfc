//go:build linux

package kernels

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded moves x to memory that ends where no more can be read, or starts where none could be.
func guarded[T Float](t *testing.T, x []T, atEnd bool) []T {
	page := syscall.Getpagesize()
	bytes := len(x) * int(unsafe.Sizeof(x[0]))
	room := (bytes + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, room+2*page,
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { syscall.Munmap(m) })
	for _, at := range []int{0, page + room} {
		if err := syscall.Mprotect(m[at:at+page], syscall.PROT_NONE); err != nil {
			t.Skip(err)
		}
	}
	start := page
	if atEnd {
		start += room - bytes
	}
	y := unsafe.Slice((*T)(unsafe.Pointer(&m[start])), len(x))
	copy(y, x)
	return y
}

// Nothing outside of the operands is read or written: that would end the test.
func TestGuardedOperands(t *testing.T) {
	onAll(t, testGuardedOperands[float32], testGuardedOperands[float64])
}

func testGuardedOperands[T Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for i := range 200 {
		tr := transposes[i%4]
		o := example[T](rng, tr[0], tr[1], 1+rng.IntN(40), 1+rng.IntN(120), 1+rng.IntN(20), 1, T(rng.IntN(2)))
		if o.upper = i%8 > 3; o.upper {
			o = example[T](rng, tr[0], tr[1], o.n, o.n, o.k, 1, 1)
			o.upper = true
		}
		atEnd := rng.IntN(2) == 0
		o.a, o.b, o.c = guarded(t, o.a, atEnd), guarded(t, o.b, atEnd), guarded(t, o.c, atEnd)
		compare(t, o)
	}
}

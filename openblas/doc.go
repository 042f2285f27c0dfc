// Package openblas makes Gorgonia, gonum and kfac compute with OpenBLAS. It is imported for that
// effect alone, once in a program:
//
//	import _ "github.com/gorgonia-kfac/kfac/openblas"
//
// It registers, before main starts,
//
//   - the matrix products of Gorgonia (gorgonia.Use) and of gonum (blas32.Use, blas64.Use), which
//     are also those of kfac,
//   - LAPACK's factorisations for gonum (lapack64.Use) and kfac,
//   - LAPACK's divide and conquer (dsyevd) for the symmetric eigenproblems of kfac's
//     block-tridiagonal inverse.
//
// It is a module of its own. So programs without it need no C compiler and download nothing for it.
//
// # What it needs
//
// cgo, which is on where there is a C compiler, and OpenBLAS with LAPACKE:
//
//	apt-get install gcc libopenblas-dev liblapacke-dev    Debian, Ubuntu
//	dnf install gcc openblas-devel lapack-devel           Fedora
//	brew install openblas                                 macOS
//
// No environment variable has to be set. If the libraries are not where the compiler looks,
// CGO_CFLAGS and CGO_LDFLAGS say where they are, as in CGO_LDFLAGS=-L/opt/openblas/lib. If a
// program is also built without cgo, put the import into a file of its own that begins with the
// line //go:build cgo.
//
// # Threads
//
// OpenBLAS is set to compute each call on the thread that makes it. Large matrix products are
// divided among GOMAXPROCS goroutines here. OpenBLAS's own threads wait in loops. That takes the
// processors away from Gorgonia and kfac between the products, and kfac factorises several matrices
// at once. If the environment has OPENBLAS_NUM_THREADS, OpenBLAS has that many threads and nothing
// is divided here.
//
// Results are reproducible for one number of threads: OpenBLAS adds products up in another order
// for another GOMAXPROCS or OPENBLAS_NUM_THREADS, so that the last bits of a training differ. With
// gonum's BLAS they do not.
//
// # Kernels
//
// An OpenBLAS that does not know the processor may run kernels for an older one, at half the speed
// or a fifth of it. Then a line on stderr says so once, with the remedy: set OPENBLAS_CORETYPE
// before the program starts, since OpenBLAS reads it when it is loaded. KFAC_OPENBLAS_QUIET=1
// leaves the line out.
package openblas

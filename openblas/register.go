//go:build cgo

package openblas

/*
#cgo darwin CFLAGS: -I/opt/homebrew/opt/openblas/include -I/usr/local/opt/openblas/include
#cgo darwin LDFLAGS: -L/opt/homebrew/opt/openblas/lib -L/usr/local/opt/openblas/lib -lopenblas
#cgo !darwin LDFLAGS: -llapacke -lopenblas

#if !__has_include(<lapacke.h>) && !__has_include(<lapacke/lapacke.h>) && !__has_include(<openblas/lapacke.h>)
#error "OpenBLAS with LAPACKE is not installed: apt-get install libopenblas-dev liblapacke-dev (or dnf install openblas-devel lapack-devel, brew install openblas)"
#endif

// Declared here since systems differ in where the headers are and in which has what.
void openblas_set_num_threads(int threads);
char *openblas_get_corename(void);
int LAPACKE_dsyevd(int layout, char job, char triangle, int n, double *a, int lda, double *values);
*/
import "C"

import (
	"fmt"
	"math"
	"os"

	gonum "gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/netlib/lapack/netlib"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

func init() {
	var b blas
	if os.Getenv("OPENBLAS_NUM_THREADS") == "" {
		setThreads(1)
		b.divide = true
	}
	register(b)
	lapack64.Use(lapack{})
	linalg.UseEigenSym(eigenSym)
	warn(os.Stderr, os.Getenv, kernels(), processor())
}

// register makes b the BLAS of Gorgonia and gonum.
func register(b blas) {
	gorgonia.Use(b)
	blas32.Use(b)
	blas64.Use(b)
}

// setThreads sets how many threads OpenBLAS computes a call on.
func setThreads(n int) { C.openblas_set_num_threads(C.int(n)) }

// lapack is LAPACK, but with what gonum's has and kfac relies on: a matrix that holds a NaN is not positive definite.
type lapack struct{ netlib.Implementation }

func (l lapack) Dpotrf(ul gonum.Uplo, n int, a []float64, lda int) (ok bool) {
	ok = l.Implementation.Dpotrf(ul, n, a, lda)
	for i := range n {
		ok = ok && !math.IsNaN(a[i*lda+i])
	}
	return ok
}

// kernels names the processor that OpenBLAS runs the kernels of.
func kernels() string { return C.GoString(C.openblas_get_corename()) }

// columnMajor is LAPACK_COL_MAJOR.
const columnMajor = 102

// eigenSym is linalg.EigenSym by dsyevd, whose eigenvectors are the columns of a column-major matrix.
func eigenSym(n int, a, values []float64) error {
	info := C.LAPACKE_dsyevd(columnMajor, 'V', 'L', C.int(n), (*C.double)(&a[0]), C.int(n), (*C.double)(&values[0]))
	if info != 0 {
		return fmt.Errorf("%w: dsyevd returned %d", linalg.ErrNoConvergence, info)
	}
	for i := range n {
		for j := range i {
			a[i*n+j], a[j*n+i] = a[j*n+i], a[i*n+j]
		}
	}
	return nil
}

//go:build cgo

package openblas

/*
int LAPACKE_dpotrf(int layout, char triangle, int n, double *a, int lda);
int LAPACKE_dpotri(int layout, char triangle, int n, double *a, int lda);
int LAPACKE_dsyevd(int layout, char job, char triangle, int n, double *a, int lda, double *values);
*/
import "C"

import (
	"fmt"
	"math"

	gonum "gonum.org/v1/gonum/blas"
	"gonum.org/v1/netlib/lapack/netlib"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

// columnMajor is LAPACK_COL_MAJOR. LAPACKE takes row-major matrices too, but it transposes them
// before and after, which costs more than a factorisation. No transposition is needed: the lower
// triangle of a row-major symmetric matrix is the upper one of the same matrix in columns.
const columnMajor = 102

func transposed(ul gonum.Uplo) C.char {
	if ul == gonum.Lower {
		return 'U'
	}
	return 'L'
}

// lapack is netlib's LAPACK with two differences. It does not transpose where kfac waits for it.
// And it says, as gonum's does and kfac relies on, that a matrix with a NaN is not positive
// definite.
type lapack struct{ netlib.Implementation }

// Dpotrf factorises a symmetric positive definite matrix by Cholesky.
func (l lapack) Dpotrf(ul gonum.Uplo, n int, a []float64, lda int) (ok bool) {
	if !symmetric(ul, len(a), n, lda) {
		return l.Implementation.Dpotrf(ul, n, a, lda)
	}
	if C.LAPACKE_dpotrf(columnMajor, transposed(ul), C.int(n), (*C.double)(&a[0]), C.int(lda)) != 0 {
		return false
	}
	for i := range n {
		if math.IsNaN(a[i*lda+i]) {
			return false
		}
	}
	return true
}

// Dpotri computes the inverse from what Dpotrf left.
func (l lapack) Dpotri(ul gonum.Uplo, n int, a []float64, lda int) (ok bool) {
	if !symmetric(ul, len(a), n, lda) {
		return l.Implementation.Dpotri(ul, n, a, lda)
	}
	return C.LAPACKE_dpotri(columnMajor, transposed(ul), C.int(n), (*C.double)(&a[0]), C.int(lda)) == 0
}

// symmetric reports whether the arguments describe a matrix. If they do not, netlib's functions
// panic.
func symmetric(ul gonum.Uplo, length, n, lda int) bool {
	return (ul == gonum.Lower || ul == gonum.Upper) && fits(length, lda, n, n, gonum.NoTrans)
}

// eigenSym is linalg.EigenSym by dsyevd. The eigenvectors are the columns of a column-major matrix.
func eigenSym(n int, a, values []float64) error {
	info := C.LAPACKE_dsyevd(columnMajor, 'V', 'L', C.int(n), (*C.double)(&a[0]), C.int(n), (*C.double)(&values[0]))
	if info != 0 {
		return fmt.Errorf("%w: dsyevd returned %d", linalg.ErrNoConvergence, info)
	}
	linalg.TransposeSquare(a, n)
	return nil
}

//go:build cgo

package openblas

/*
#cgo darwin CFLAGS: -I/opt/homebrew/opt/openblas/include -I/usr/local/opt/openblas/include
#cgo darwin LDFLAGS: -L/opt/homebrew/opt/openblas/lib -L/usr/local/opt/openblas/lib -lopenblas
#cgo !darwin LDFLAGS: -llapacke -lopenblas

#if !__has_include(<lapacke.h>) && !__has_include(<lapacke/lapacke.h>) && \
    !__has_include(<openblas/lapacke.h>)
#error "OpenBLAS with LAPACKE is not installed: apt-get install libopenblas-dev liblapacke-dev \
(or dnf install openblas-devel lapack-devel, brew install openblas)"
#endif

// Declared here since systems differ in where the headers are and in which has what.
void openblas_set_num_threads(int threads);
char *openblas_get_corename(void);
*/
import "C"

import (
	"os"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
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

// kernels names the processor that OpenBLAS runs the kernels of.
func kernels() string { return C.GoString(C.openblas_get_corename()) }

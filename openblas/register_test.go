//go:build cgo

package openblas

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	gonum "gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	purelapack "gonum.org/v1/gonum/lapack/gonum"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/netlib/lapack/netlib"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/linalg"
)

func TestRegistered(t *testing.T) {
	for where, got := range map[string]any{
		"gorgonia": gorgonia.WhichBLAS(),
		"blas32":   blas32.Implementation(),
		"blas64":   blas64.Implementation(),
	} {
		if _, ok := got.(blas); !ok {
			t.Errorf("%s has %T, want OpenBLAS", where, got)
		}
	}
	if kernels() == "" {
		t.Error("OpenBLAS does not tell its kernels")
	}
}

func TestCholesky(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 31, 64, 65, 200, 513} {
		a := positive(n, rng)
		invert := func() []float64 {
			work := slices.Clone(a)
			l, ok := lapack64.Potrf(blas64.Symmetric{N: n, Stride: n, Data: work, Uplo: gonum.Lower})
			if !ok {
				t.Fatalf("n=%d: not positive definite", n)
			}
			if _, ok := lapack64.Potri(l); !ok {
				t.Fatalf("n=%d: singular", n)
			}
			linalg.MirrorLower(work, n)
			return work
		}
		var want []float64
		inPureGo(t, func() { want = invert() })
		if d := furthest(invert(), want); !(d <= 1e-10) { // the largest elements are near 100
			t.Errorf("n=%d: the inverse differs by %g from gonum's", n, d)
		}
	}
	for _, a := range [][]float64{{1, 0, 2, 1}, {math.NaN(), 0, 0, 1}, {1, 0, math.NaN(), 1}, {1, 0, 0, math.NaN()}} {
		if _, ok := lapack64.Potrf(blas64.Symmetric{N: 2, Stride: 2, Data: a, Uplo: gonum.Lower}); ok {
			t.Errorf("%v passes as positive definite", a)
		}
	}
}

type inverter interface {
	Dpotrf(ul gonum.Uplo, n int, a []float64, lda int) bool
	Dpotri(ul gonum.Uplo, n int, a []float64, lda int) bool
}

// BenchmarkInverse compares Cholesky factorisation and inverse with those of netlib, which go
// through row-major LAPACKE, and of gonum.
func BenchmarkInverse(b *testing.B) {
	for _, n := range []int{256, 1000} {
		a := positive(n, rand.New(rand.NewPCG(1, 1)))
		for _, c := range []struct {
			name string
			inverter
		}{{"columns", lapack{}}, {"netlib", netlib.Implementation{}}, {"gonum", purelapack.Implementation{}}} {
			b.Run(fmt.Sprintf("n=%d/%s", n, c.name), func(b *testing.B) {
				work := make([]float64, n*n)
				for b.Loop() {
					copy(work, a)
					if !c.Dpotrf(gonum.Lower, n, work, n) || !c.Dpotri(gonum.Lower, n, work, n) {
						b.Fatal("not positive definite")
					}
				}
			})
		}
	}
}

func TestEigenSym(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	for _, c := range []struct {
		name string
		n    int
		a    func(n int) []float64
	}{
		{"one", 1, func(int) []float64 { return []float64{-3} }},
		{"zero", 40, func(n int) []float64 { return make([]float64, n*n) }},
		{"small", 3, func(n int) []float64 { return positive(n, rng) }},
		{"middle", 150, func(n int) []float64 { return positive(n, rng) }},
		{"large", 400, func(n int) []float64 { return positive(n, rng) }},
		{"tiny elements", 60, func(n int) []float64 { a := positive(n, rng); linalg.Scale(1e-250, a); return a }},
		{"huge elements", 60, func(n int) []float64 { a := positive(n, rng); linalg.Scale(1e250, a); return a }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, a := c.n, c.a(c.n)
			decompose := func() (vectors, values []float64) {
				vectors, values = slices.Clone(a), make([]float64, n)
				if err := linalg.EigenSym(n, vectors, values); err != nil {
					t.Fatal(err)
				}
				return vectors, values
			}
			v, s := decompose()
			var want []float64
			inPureGo(t, func() { _, want = decompose() })
			size := max(math.Abs(s[0]), math.Abs(s[n-1]))
			if d := furthest(s, want); !(d <= 1e-13*size) {
				t.Errorf("eigenvalues differ by %g from those in pure Go", d)
			}
			vs, av, vv := slices.Clone(v), make([]float64, n*n), make([]float64, n*n)
			for i := range vs {
				vs[i] *= s[i%n]
			}
			linalg.Gemm(false, false, n, n, n, 1, a, v, 0, av)
			if d := furthest(av, vs); !(d <= 1e-13*size) {
				t.Errorf("A V differs from V diag(values) by %g of %g", d, size)
			}
			linalg.Gemm(true, false, n, n, n, 1, v, v, 0, vv)
			for i := range n {
				vv[i*n+i]--
			}
			if d := furthest(vv, make([]float64, n*n)); !(d <= 1e-13) {
				t.Errorf("V^T V differs from I by %g", d)
			}
			if again, _ := decompose(); !slices.Equal(again, v) {
				t.Error("the same matrix gives other bits")
			}
		})
	}
}

func TestWarning(t *testing.T) {
	const avx512, avx2, older = 0, 1, 2
	for _, c := range []struct {
		kernels   string
		processor int
		env       string // that is set
		want      string
	}{
		{"Haswell", avx512, "", "SKYLAKEX"},
		{"Zen", avx512, "", "SKYLAKEX"},
		{"Prescott", avx512, "", "SKYLAKEX"},
		{"Prescott", avx2, "", "HASWELL"},
		{"Zen", avx512, "KFAC_OPENBLAS_QUIET", ""},
		{"Haswell", avx512, "OPENBLAS_CORETYPE", ""},
		{"Haswell", avx2, "", ""},
		{"Zen", avx2, "", ""},
		{"SkylakeX", avx512, "", ""},
		{"Cooperlake", avx512, "", ""},
		{"Sapphirerapids", avx512, "", ""},
		{"Nehalem", older, "", ""},
		{"neoversen1", older, "", ""},
	} {
		var out strings.Builder
		env := func(name string) string {
			if name == c.env {
				return "1"
			}
			return ""
		}
		warn(&out, env, c.kernels, c.processor)
		got := out.String()
		right := got == ""
		if c.want != "" {
			right = strings.Count(got, "\n") == 1 && strings.Contains(got, c.kernels) &&
				strings.Contains(got, "CORETYPE="+c.want)
		}
		if !right {
			t.Errorf("%+v: warning %q", c, got)
		}
	}
}

// TestWithoutCgo checks that a build without cgo says what is missing.
func TestWithoutCgo(t *testing.T) {
	build := exec.Command("go", "build", "-o", os.DevNull, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "openblas_needs_cgo_Install_a_C_compiler") {
		t.Errorf("error %v and\n%s\nwant a failure that asks for cgo", err, out)
	}
}

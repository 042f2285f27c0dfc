//go:build !cgo

package openblas

// Without cgo there is no way to OpenBLAS. A build without it would be ten times slower than its
// author expects, so it fails here. The package documentation tells what is needed, and how to
// leave the import out of such builds.
var _ = openblas_needs_cgo_Install_a_C_compiler_and_set_CGO_ENABLED_to_1

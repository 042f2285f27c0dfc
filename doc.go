package kfac

import (
	_ "gonum.org/v1/gonum/blas/blas64"
	_ "gorgonia.org/gorgonia"
	_ "gorgonia.org/tensor"
)

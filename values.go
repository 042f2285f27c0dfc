package kfac

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// flat is the row-major contents of a Gorgonia value. Of a contiguous tensor it is the tensor's own memory; of anything else (a
// view, a scalar) a copy, which store writes back.
type flat[T program.Float] struct {
	data  []T
	store func() // nil if data is the value's own memory
}

// flatten reads a float tensor or scalar. buf is used for copies.
func flatten[T program.Float](v gorgonia.Value, buf []T) (flat[T], error) {
	switch v := v.(type) {
	case *gorgonia.F64:
		return scalar(append(buf[:0], T(*v)), func(x T) { *v = gorgonia.F64(x) })
	case *gorgonia.F32:
		return scalar(append(buf[:0], T(*v)), func(x T) { *v = gorgonia.F32(x) })
	case *tensor.Dense:
		return flattenDense(v, buf)
	}
	return flat[T]{}, fmt.Errorf("%w: a %T is neither a float tensor nor a float scalar", ErrShape, v)
}

func scalar[T program.Float](data []T, write func(T)) (flat[T], error) {
	return flat[T]{data, func() { write(data[0]) }}, nil
}

func flattenDense[T program.Float](t *tensor.Dense, buf []T) (flat[T], error) {
	var want T
	if got, ok := t.Data().([]T); ok && !t.RequiresIterator() && !t.DataOrder().IsColMajor() {
		return flat[T]{data: got[:t.Shape().TotalSize()]}, nil
	}
	if t.IsScalar() {
		if x, ok := t.ScalarValue().(T); ok {
			return scalar(append(buf[:0], x), func(x T) { t.Set(0, x) })
		}
	}
	if _, ok := t.Data().([]T); !ok {
		return flat[T]{}, fmt.Errorf("%w: dtype %v where the model has %T", ErrShape, t.Dtype(), want)
	}
	data := buf[:0]
	eachElement(t, func(at int) { data = append(data, t.Get(at).(T)) })
	return flat[T]{data, func() {
		i := 0
		eachElement(t, func(at int) { t.Set(at, data[i]); i++ })
	}}, nil
}

// eachElement calls f with the position in memory of each element, in row-major order.
func eachElement(t *tensor.Dense, f func(at int)) {
	it := t.Iterator()
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		f(at)
	}
}

// valueSize is the number of elements of a value.
func valueSize(v gorgonia.Value) int { return v.Shape().TotalSize() }

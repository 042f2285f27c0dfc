package program

import (
	"errors"
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// valueOf is the user's current value of an input.
func valueOf(n *Node) (gorgonia.Value, error) {
	if v := n.Src.Value(); v != nil {
		return v, nil
	}
	if op := n.Src.Op(); op != nil && len(n.Kids) == 0 {
		if v, err := op.Do(); err == nil && v != nil { // a constant that no VM has bound yet
			return v, nil
		}
	}
	return nil, errors.New("it has no value yet: give it one by gorgonia.Let, WithValue or WithInit")
}

// sameExtents reports whether two shapes are the same up to axes of length 1, which Gorgonia adds
// and drops.
func sameExtents(a, b []int) bool {
	for {
		for len(a) > 0 && a[0] == 1 {
			a = a[1:]
		}
		for len(b) > 0 && b[0] == 1 {
			b = b[1:]
		}
		if len(a) == 0 || len(b) == 0 {
			return len(a) == len(b)
		}
		if a[0] != b[0] {
			return false
		}
		a, b = a[1:], b[1:]
	}
}

// floats is the data of a float value of the given shape, without a copy where the tensor is
// contiguous.
func floats[T Float](v gorgonia.Value, shape []int) ([]T, error) {
	if !sameExtents(v.Shape(), shape) {
		return nil, fmt.Errorf("its value has shape %v, the graph says %v", v.Shape(), shape)
	}
	if want := dtypeOf[T](); v.Dtype() != want {
		return nil, fmt.Errorf("its value has dtype %v, the model %v", v.Dtype(), want)
	}
	t, ok := v.(*tensor.Dense)
	switch {
	case !ok:
		return []T{v.Data().(T)}, nil
	case !t.IsScalar() && (t.RequiresIterator() || t.DataOrder().IsColMajor()):
		t = contiguous(t)
	}
	if t.Dtype() == tensor.Float32 { // these do not allocate, as Data does
		return any(t.Float32s()).([]T)[:size(shape)], nil
	}
	return any(t.Float64s()).([]T)[:size(shape)], nil
}

// contiguous copies a view into row-major order.
func contiguous(t *tensor.Dense) *tensor.Dense {
	out := tensor.New(tensor.Of(t.Dtype()), tensor.WithShape(t.Shape().Clone()...))
	it, i := t.Iterator(), 0
	for at, err := it.Start(); err == nil; at, err = it.Next() {
		out.Set(i, t.Get(at))
		i++
	}
	return out
}

// integers is the data of an integer value of the given shape, in buf if that is large enough.
func integers(v gorgonia.Value, shape []int, buf []int) ([]int, error) {
	if !sameExtents(v.Shape(), shape) {
		return nil, fmt.Errorf("its value has shape %v, the graph says %v", v.Shape(), shape)
	}
	if t, ok := v.(*tensor.Dense); ok && !t.IsScalar() && (t.RequiresIterator() || t.DataOrder().IsColMajor()) {
		v = contiguous(t)
	}
	buf = buf[:0]
	switch d := v.Data().(type) {
	case []int:
		return append(buf, d...), nil
	case []int64:
		return appendInts(buf, d), nil
	case []int32:
		return appendInts(buf, d), nil
	case []byte:
		return appendInts(buf, d), nil
	case int:
		return append(buf, d), nil
	case int64:
		return append(buf, int(d)), nil
	case int32:
		return append(buf, int(d)), nil
	case byte:
		return append(buf, int(d)), nil
	case []bool:
		for _, b := range d {
			buf = appendBool(buf, b)
		}
		return buf, nil
	case bool:
		return appendBool(buf, d), nil
	}
	return nil, fmt.Errorf("its value has dtype %v, which no op here reads", v.Dtype())
}

func appendBool(dst []int, b bool) []int {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendInts[E int64 | int32 | byte](dst []int, src []E) []int {
	for _, v := range src {
		dst = append(dst, int(v))
	}
	return dst
}

// wrap makes a Gorgonia value of an array, without a copy if it holds floats.
func wrap[T Float](a Array[T], dt tensor.Dtype) (gorgonia.Value, error) {
	var backing any = a.Data
	if a.Ints != nil {
		switch dt {
		case tensor.Int:
			backing = a.Ints
		case tensor.Int64:
			backing = convertInts[int64](a.Ints)
		case tensor.Int32:
			backing = convertInts[int32](a.Ints)
		case tensor.Byte:
			backing = convertInts[byte](a.Ints)
		case tensor.Bool:
			bools := make([]bool, len(a.Ints))
			for i, v := range a.Ints {
				bools[i] = v != 0
			}
			backing = bools
		default:
			return nil, fmt.Errorf("values of dtype %v are not supported", dt)
		}
	}
	if len(a.Shape) > 0 {
		return tensor.New(tensor.WithShape(a.Shape...), tensor.WithBacking(backing)), nil
	}
	switch d := backing.(type) {
	case []float64:
		return gorgonia.NewF64(d[0]), nil
	case []float32:
		return gorgonia.NewF32(d[0]), nil
	case []int:
		return gorgonia.NewI(d[0]), nil
	case []int64:
		return gorgonia.NewI64(d[0]), nil
	case []int32:
		return gorgonia.NewI32(d[0]), nil
	case []byte:
		return gorgonia.NewU8(d[0]), nil
	default:
		return gorgonia.NewB(d.([]bool)[0]), nil
	}
}

func convertInts[E int64 | int32 | byte](src []int) []E {
	dst := make([]E, len(src))
	for i, v := range src {
		dst[i] = E(v)
	}
	return dst
}

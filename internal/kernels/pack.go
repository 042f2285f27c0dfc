package kernels

// packRows copies rows of src to rows of dst, with zeros behind them.
func packRows[T Float](dst []T, stride int, src []T, ld, rows, cols int) {
	for i := range rows {
		row := dst[i*stride : (i+1)*stride]
		copy(row, src[i*ld:i*ld+cols])
		if cols < stride {
			clear(row[cols:])
		}
	}
}

// packColumns copies rows of src to columns of dst, with zeros behind them.
func packColumns[T Float](t *tiles[T], dst []T, stride int, src []T, ld, rows, cols int) {
	transpose(t, dst, stride, src, ld, rows, cols)
	for j := range cols {
		clear(dst[j*stride+rows : (j+1)*stride])
	}
}

// Transpose writes the transpose of src (rows x cols) to dst (cols x rows). ldd and lds are the
// strides between rows.
func Transpose[T Float](dst []T, ldd int, src []T, lds, rows, cols int) {
	transpose(fastest[T](), dst, ldd, src, lds, rows, cols)
}

func transpose[T Float](t *tiles[T], dst []T, stride int, src []T, ld, rows, cols int) {
	i := 0
	if side := t.side; side > 0 && cols >= side {
		squares := cols / side
		for ; i+side <= rows; i += side {
			t.squares(squares, &dst[i], stride, &src[i*ld], ld)
			copyColumns(dst[i:], stride, src[i*ld:], ld, side, squares*side, cols)
		}
	}
	for ; i+4 <= rows; i += 4 {
		s0, s1 := src[i*ld:i*ld+cols], src[(i+1)*ld:(i+1)*ld+cols]
		s2, s3 := src[(i+2)*ld:(i+2)*ld+cols], src[(i+3)*ld:(i+3)*ld+cols]
		at := i
		for j := range s0 {
			d := dst[at : at+4 : at+4]
			d[0], d[1], d[2], d[3] = s0[j], s1[j], s2[j], s3[j]
			at += stride
		}
	}
	if i < rows {
		copyColumns(dst[i:], stride, src[i*ld:], ld, rows-i, 0, cols)
	}
}

// copyColumns copies the columns from to to of src, of so many rows, to rows of dst.
func copyColumns[T Float](dst []T, stride int, src []T, ld, rows, from, to int) {
	for r := range rows {
		for j := from; j < to; j++ {
			dst[j*stride+r] = src[r*ld+j]
		}
	}
}

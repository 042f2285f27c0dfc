package program

// ruleFor is the rule of an op.
func ruleFor[T Float](op Op) rule[T] {
	switch op := op.(type) {
	case Leaf:
		return nil
	case Unary:
		return unaryRule[T]{unaries[T]()[op.Kind], secondDerivative[T](op.Kind), kinks[op.Kind]}
	case Binary:
		return binaryRule[T]{op.Kind, binaries[T]()[op.Kind], secondsOf[T](op.Kind), kinks[op.Kind]}
	case MatMul:
		return matMulRule[T]{op}
	case BatchedMatMul:
		return batchedMatMulRule[T]{op}
	case MatVec:
		return matVecRule[T]{op}
	case VecDot:
		return vecDotRule[T]{}
	case OuterProd:
		return outerProdRule[T]{}
	case Tensordot:
		return tensordotRule[T]{op}
	case Reshape:
		return reshapeRule[T]{}
	case Transpose:
		return transposeRule[T]{op}
	case Repeat:
		return repeatRule[T]{op}
	case SizeOf:
		return sizeOfRule[T]{op}
	case Sum:
		return sumRule[T]{op}
	case Max:
		return maxRule[T]{op}
	case Slice:
		return sliceRule[T]{op}
	case Concat:
		return concatRule[T]{op}
	case SoftMax:
		return softMaxRule[T]{op}
	case Sparsemax:
		return sparsemaxRule[T]{op}
	case ByIndices:
		return byIndicesRule[T]{op}
	case At:
		return atRule[T]{op}
	case Im2Col:
		return im2ColRule[T]{op}
	case MaxPool:
		return maxPoolRule[T]{op}
	case AvgPool:
		return avgPoolRule[T]{op}
	case GlobalAvgPool:
		return globalAvgPoolRule[T]{}
	case Upsample:
		return upsampleRule[T]{op}
	case BatchNorm:
		return batchNormRule[T]{BatchNorm: op}
	case GroupNorm:
		return groupNormRule[T]{GroupNorm: op}
	case Dropout:
		return dropoutRule[T]{op}
	case Random:
		return randomRule[T]{op}
	case Opaque:
		return &opaqueRule[T]{op: op.Op}
	}
	panic("program: no rule for " + op.String())
}

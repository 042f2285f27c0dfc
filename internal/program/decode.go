package program

import (
	"fmt"
	"reflect"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// decode recognises the op of a node. What it does not know becomes Opaque. So does a known op
// whose settings are not where Gorgonia v0.9.18 has them.
func decode(n *gorgonia.Node) Op {
	op := n.Op()
	if op == nil || n.IsVar() {
		return Leaf{}
	}
	f := fields{v: reflect.Indirect(reflect.ValueOf(op)), ok: true}
	known := f.decode(op, n)
	if known == nil || !f.ok {
		return Opaque{op}
	}
	return known
}

// fields reads unexported settings of an op. ok turns false if one is missing or of another kind.
type fields struct {
	v  reflect.Value
	ok bool
}

func (f *fields) field(name string, kinds ...reflect.Kind) (reflect.Value, bool) {
	if f.v.Kind() == reflect.Struct {
		v := f.v.FieldByName(name)
		for _, k := range kinds {
			if v.IsValid() && v.Kind() == k {
				return v, true
			}
		}
	}
	f.ok = false
	return reflect.Value{}, false
}

func (f *fields) int(name string) int {
	if v, ok := f.field(name, reflect.Int, reflect.Uint8, reflect.Int8); ok {
		if v.CanInt() {
			return int(v.Int())
		}
		return int(v.Uint())
	}
	return 0
}

// axis is a setting that is an axis of n. Gorgonia builds a softmax over axis 1 of a vector, too.
func (f *fields) axis(axis int, n *gorgonia.Node) int {
	f.ok = f.ok && axis < max(n.Dims(), 1)
	return axis
}

func (f *fields) bool(name string) bool {
	v, ok := f.field(name, reflect.Bool)
	return ok && v.Bool()
}

func (f *fields) float(name string) float64 {
	if v, ok := f.field(name, reflect.Float64, reflect.Float32); ok {
		return v.Float()
	}
	return 0
}

func (f *fields) ints(name string) []int {
	v, ok := f.field(name, reflect.Slice)
	if !ok {
		return nil
	}
	out := make([]int, v.Len())
	for i := range out {
		out[i] = int(v.Index(i).Int())
	}
	return out
}

// typeName is the op's type as Gorgonia's source names it, without package and pointer.
func typeName(op gorgonia.Op) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", op), "*")
	if rest, ok := strings.CutPrefix(name, "gorgonia."); ok {
		return rest
	}
	return name
}

func (f *fields) decode(op gorgonia.Op, n *gorgonia.Node) Op {
	switch name := typeName(op); name {
	case "constantScalar", "constantTensor":
		return Leaf{}
	case "elemUnaryOp":
		return knownUnary(op.String())
	case "elemBinOp":
		kind, _, _ := strings.Cut(op.String(), " ")
		return knownBinary(kind)
	case "maxBetween":
		return Binary{"max"}
	case "minBetween":
		return Binary{"min"}
	case "linAlgBinOp":
		return f.linAlg(op.String())
	case "tensordotOp":
		return Tensordot{f.ints("aAxes"), f.ints("bAxes")}
	case "reshapeOp":
		return Reshape{}
	case "transposeOp":
		return Transpose{f.ints("pattern")}
	case "repeatOp":
		return Repeat{f.int("along")}
	case "sizeOp":
		return SizeOf{f.int("axis")}
	case "sumOp":
		return Sum{f.ints("along")}
	case "maxOp":
		return Max{f.ints("along")}
	case "sliceOp":
		s, ok := op.(interface{ IsSlice() tensor.Slice })
		if !ok {
			return nil
		}
		return Slice{f.int("along"), s.IsSlice}
	case "concatOp":
		return Concat{f.axis(f.int("axis"), n)}
	case "softmaxOp":
		return SoftMax{f.axis(softmaxAxis(f.int("axis"), n.Shape()), n), f.bool("isLog")}
	case "sparsemaxOp":
		if axis := f.int("axis"); axis >= 0 {
			return Sparsemax{f.axis(axis, n)}
		}
		return Sparsemax{n.Dims() - 1}
	case "byIndicesOp":
		return ByIndices{f.axis(f.int("axis"), n)}
	case "im2colOp":
		return Im2Col{f.window("padH", "padW", "padH", "padW", true)}
	case "maxPoolOp":
		return MaxPool{f.window("padNorth", "padWest", "padSouth", "padEast", false)}
	case "avgPoolOp":
		return AvgPool{f.window("padNorth", "padWest", "padSouth", "padEast", false)}
	case "globalAveragePoolOp":
		return GlobalAvgPool{}
	case "upsampleOp":
		return Upsample{f.int("stride") + 1} // Gorgonia stores how many copies come after each pixel
	case "BatchNormOp":
		f.bool("training")
		v := f.v
		bn, ok := op.(*gorgonia.BatchNormOp)
		f.ok = f.ok && ok
		epsilon, momentum := f.float("epsilon"), f.float("momentum")
		return BatchNorm{bn, epsilon, momentum, func() bool { return v.FieldByName("training").Bool() }}
	case "GroupNormOp":
		return GroupNorm{f.int("numGroups"), f.float("epsilon")}
	case "dropoutOp":
		v := f.v
		f.float("probability")
		f.bool("isTraining")
		return Dropout{func() (float64, bool) {
			return v.FieldByName("probability").Float(), v.FieldByName("isTraining").Bool()
		}}
	case "randomOp":
		kinds := []string{"uniform", "gaussian", "binomial"}
		which := f.int("which")
		if which >= len(kinds) {
			return nil
		}
		return Random{kinds[which], f.float("a"), f.float("b")}
	case "atOp":
		return At{f.ints("coordinates")}
	}
	return nil
}

func (f *fields) linAlg(s string) Op {
	a, b := f.bool("transA"), f.bool("transB")
	switch {
	case strings.Contains(s, "×××"):
		return BatchedMatMul{a, b}
	case strings.Contains(s, "⋅"):
		return VecDot{}
	case strings.Contains(s, "⊗"):
		return OuterProd{}
	case strings.HasSuffix(s, "b"):
		return MatVec{a}
	case strings.Contains(s, "×"):
		return MatMul{a, b}
	}
	return nil
}

func (f *fields) window(north, west, south, east string, dilated bool) Window {
	w := Window{
		Kernel:    [2]int{f.int("h"), f.int("w")},
		Stride:    [2]int{f.int("strideH"), f.int("strideW")},
		Dilation:  [2]int{1, 1},
		PadBefore: [2]int{f.int(north), f.int(west)},
		PadAfter:  [2]int{f.int(south), f.int(east)},
	}
	if dilated {
		w.Dilation = [2]int{f.int("dilationH"), f.int("dilationW")}
	}
	return w
}

// softmaxAxis resolves the default axis -1 as Gorgonia does. That is the last axis, but the first
// one for a column vector.
func softmaxAxis(axis int, s tensor.Shape) int {
	switch {
	case axis >= 0:
		return axis
	case s.IsColVec() || (s.IsVector() && !s.IsRowVec()):
		return 0
	}
	return s.Dims() - 1
}

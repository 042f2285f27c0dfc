package program

import (
	"fmt"
	"reflect"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An Op says what a node computes. Gorgonia's ops are unexported types; decode recognises them by type name and String() and
// reads their settings, once, when a program is built. The concrete types below are plain data.
type Op interface{ String() string }

type (
	// Leaf is an input: data, a parameter, a constant, or a node that the program was told to cut at.
	Leaf struct{}
	// Unary is an elementwise function such as tanh.
	Unary struct{ Kind string }
	// Binary is an elementwise function of two operands. An operand that is a scalar, or has size 1 along an axis where
	// the result has not, is broadcast.
	Binary struct{ Kind string }
	// MatMul is op(A) op(B) of two matrices.
	MatMul struct{ TransA, TransB bool }
	// BatchedMatMul is MatMul for each index of the leading axes.
	BatchedMatMul struct{ TransA, TransB bool }
	// MatVec is op(A) b.
	MatVec struct{ TransA bool }
	// VecDot is the inner product of two vectors.
	VecDot struct{}
	// OuterProd is a b^T of two vectors.
	OuterProd struct{}
	// Tensordot contracts the axes A of the first with the axes B of the second operand.
	Tensordot struct{ A, B []int }
	// Reshape keeps the elements and their order.
	Reshape struct{}
	// Transpose permutes the axes: axis i of the result is axis Perm[i] of the operand.
	Transpose struct{ Perm []int }
	// Repeat repeats each element along Axis as often as the second operand says.
	Repeat struct{ Axis int }
	// SizeOf is the length of Axis of its operand, as a float.
	SizeOf struct{ Axis int }
	// Sum and Max reduce the axes Along.
	Sum struct{ Along []int }
	Max struct{ Along []int }
	// Slice is x[..., Start:End:Step, ...] along Axis. It reads the slice from the user's op at each run, since
	// gorgonia.UnsafeLet changes it in place.
	Slice struct {
		Axis  int
		Slice func() tensor.Slice
	}
	// Concat joins its operands along Axis.
	Concat struct{ Axis int }
	// SoftMax normalises over Axis; Log gives log-probabilities.
	SoftMax struct {
		Axis int
		Log  bool
	}
	// Sparsemax is the Euclidean projection of each row onto the simplex.
	Sparsemax struct{ Axis int }
	// ByIndices picks the entries of Axis that the second operand lists.
	ByIndices struct{ Axis int }
	// Im2Col unfolds the patches of a (B,C,H,W) image to (B, outH, outW, C*KH*KW).
	Im2Col struct{ Window }
	// MaxPool, AvgPool and GlobalAvgPool reduce the windows of a (B,C,H,W) image.
	MaxPool       struct{ Window }
	AvgPool       struct{ Window }
	GlobalAvgPool struct{}
	// Upsample repeats each pixel of a (B,C,H,W) image Factor times in both directions.
	Upsample struct{ Factor int }
	// BatchNorm normalises each channel by the statistics of the batch (while training) or by the op's running ones.
	BatchNorm struct {
		Op       *gorgonia.BatchNormOp
		Epsilon  float64
		Training func() bool // read at each run
	}
	// GroupNorm normalises groups of channels of each case.
	GroupNorm struct {
		Groups  int
		Epsilon float64
	}
	// Dropout zeroes elements with probability Prob and scales the others by 1/(1-Prob). Its settings are read at each run.
	Dropout struct {
		Settings func() (prob float64, training bool)
	}
	// Random draws new values at each run.
	Random struct {
		Kind string // uniform, gaussian or binomial
		A, B float64
	}
	// At picks one element.
	At struct{ Coord []int }
	// Opaque is an op with no rule here: it is run by its own Do and differentiated by its own SymDiff.
	Opaque struct{ Op gorgonia.Op }
)

// Window is the geometry of patches of an image; the axes are height and width.
type Window struct {
	Kernel, Stride, Dilation [2]int
	PadBefore, PadAfter      [2]int // north and west; south and east
}

func (Leaf) String() string            { return "input" }
func (o Unary) String() string         { return o.Kind }
func (o Binary) String() string        { return o.Kind }
func (o MatMul) String() string        { return "Mul" + marks(o.TransA, o.TransB) }
func (o BatchedMatMul) String() string { return "BatchedMatMul" + marks(o.TransA, o.TransB) }
func (o MatVec) String() string        { return "Mul(matrix, vector)" }
func (VecDot) String() string          { return "Mul(vector, vector)" }
func (OuterProd) String() string       { return "OuterProd" }
func (o Tensordot) String() string     { return fmt.Sprintf("Tensordot%v%v", o.A, o.B) }
func (Reshape) String() string         { return "Reshape" }
func (o Transpose) String() string     { return fmt.Sprintf("Transpose%v", o.Perm) }
func (o Repeat) String() string        { return fmt.Sprintf("Repeat%d", o.Axis) }
func (o SizeOf) String() string        { return fmt.Sprintf("SizeOf%d", o.Axis) }
func (o Sum) String() string           { return fmt.Sprintf("Sum%v", o.Along) }
func (o Max) String() string           { return fmt.Sprintf("Max%v", o.Along) }
func (o Slice) String() string         { return fmt.Sprintf("Slice%d", o.Axis) }
func (o Concat) String() string        { return fmt.Sprintf("Concat%d", o.Axis) }
func (o SoftMax) String() string       { return map[bool]string{false: "SoftMax", true: "LogSoftMax"}[o.Log] }
func (Sparsemax) String() string       { return "Sparsemax" }
func (o ByIndices) String() string     { return fmt.Sprintf("ByIndices%d", o.Axis) }
func (Im2Col) String() string          { return "Im2Col" }
func (MaxPool) String() string         { return "MaxPool2D" }
func (AvgPool) String() string         { return "AveragePool2D" }
func (GlobalAvgPool) String() string   { return "GlobalAveragePool2D" }
func (Upsample) String() string        { return "Upsample2D" }
func (BatchNorm) String() string       { return "BatchNorm" }
func (GroupNorm) String() string       { return "GroupNorm" }
func (Dropout) String() string         { return "Dropout" }
func (o Random) String() string        { return "Random " + o.Kind }
func (o At) String() string            { return fmt.Sprintf("At%v", o.Coord) }
func (o Opaque) String() string        { return o.Op.String() }

func marks(a, b bool) string {
	switch {
	case a && b:
		return "(AT, BT)"
	case a:
		return "(AT, B)"
	case b:
		return "(A, BT)"
	}
	return ""
}

// decode recognises the op of a node. What it does not know becomes Opaque, and so does a known op whose settings are not
// where Gorgonia v0.9.18 has them.
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

// fields reads unexported settings of an op; ok turns false if one is missing or of another kind.
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
		return Concat{f.int("axis")}
	case "softmaxOp":
		return SoftMax{softmaxAxis(f.int("axis"), n.Shape()), f.bool("isLog")}
	case "sparsemaxOp":
		if axis := f.int("axis"); axis >= 0 {
			return Sparsemax{axis}
		}
		return Sparsemax{n.Dims() - 1}
	case "byIndicesOp":
		return ByIndices{f.int("axis")}
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
		return BatchNorm{bn, f.float("epsilon"), func() bool { return v.FieldByName("training").Bool() }}
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

// softmaxAxis resolves the default axis -1 as Gorgonia does: the last one, but the first for a column vector.
func softmaxAxis(axis int, s tensor.Shape) int {
	switch {
	case axis >= 0:
		return axis
	case s.IsColVec() || (s.IsVector() && !s.IsRowVec()):
		return 0
	}
	return s.Dims() - 1
}

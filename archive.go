package kfac

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// An archive is the contents of a file of a solver's state, by name. The file is in the format
// safetensors: a header in JSON that says which tensors there are, with texts as its metadata, and
// the tensors' elements. Three of the texts are those of any version: format, version and checksum.
type archive struct {
	texts   map[string]string
	tensors map[string]safetensors.View
}

const (
	archiveFormat  = "gorgonia-kfac state"
	archiveVersion = 1
)

func newArchive() *archive {
	return &archive{map[string]string{}, map[string]safetensors.View{}}
}

// entries are those of a tensor to be written or read, in memory of the solver's.
type entries[E program.Float] struct {
	shape []int
	data  []E
}

func (d entries[E]) DType() safetensors.DType { return dtypeOf[E]() }
func (d entries[E]) DataLen() uint64          { return uint64(len(d.data)) * dtypeOf[E]().Size() }

func (d entries[E]) Shape() []uint64 {
	shape := make([]uint64, len(d.shape))
	for i, n := range d.shape {
		shape[i] = uint64(n)
	}
	return shape
}

func (d entries[E]) Data() []byte {
	data, err := binary.Append(make([]byte, 0, d.DataLen()), binary.LittleEndian, d.data)
	if err != nil {
		panic(err) // a slice of numbers has a size
	}
	return data
}

func dtypeOf[E program.Float]() safetensors.DType {
	if _, single := any(E(0)).(float32); single {
		return safetensors.F32
	}
	return safetensors.F64
}

// write writes the file. It goes through the tensors twice, since the checksum comes first.
func (a *archive) write(w io.Writer) error {
	a.texts["format"], a.texts["version"] = archiveFormat, strconv.Itoa(archiveVersion)
	a.texts["checksum"] = noChecksum
	sum := sha256.New()
	if err := safetensors.SerializeToWriter(a.tensors, a.texts, sum); err != nil {
		return err
	}
	a.texts["checksum"] = hex.EncodeToString(sum.Sum(nil))
	return safetensors.SerializeToWriter(a.tensors, a.texts, w)
}

// noChecksum is what the checksum is taken with in its own place.
var noChecksum = strings.Repeat("0", 2*sha256.Size)

// readArchive reads what write has written. Its tensors lie in the file's bytes.
func readArchive(file []byte) (*archive, error) {
	header, err := headerOf(file)
	if err != nil {
		return nil, err
	}
	var meta safetensors.Metadata
	if err := json.Unmarshal(header, &meta); err != nil {
		return nil, &StateError{What: "its header can't be read: " + err.Error(), Err: ErrDamaged}
	}
	texts := meta.Metadata()
	if texts["format"] != archiveFormat {
		return nil, &StateError{What: "its header does not say that it is one, or is damaged", Err: ErrForeignFile}
	}
	var end uint64
	for _, t := range meta.Tensors() {
		end = max(end, t.DataOffsets[1])
	}
	if have := uint64(len(file) - len(header) - lengthBytes); end > have {
		return nil, &StateError{What: fmt.Sprintf("%d of %d bytes of numbers are there", have, end), Err: ErrTruncated}
	}
	if !checked(file, len(header), texts["checksum"]) {
		return nil, &StateError{What: "its checksum is another", Err: ErrDamaged}
	}
	if version := texts["version"]; version != strconv.Itoa(archiveVersion) {
		what := fmt.Sprintf("it has version %q, and this package reads version %d", version, archiveVersion)
		if n, err := strconv.Atoi(version); err == nil && n < archiveVersion {
			return nil, &StateError{What: what, Err: ErrOlderFile,
				Hint: "go on with the version of the package that has written it, or read its weights alone: they " +
					"are the tensors weights/..., which any reader of safetensors finds"}
		}
		return nil, &StateError{What: what, Err: ErrNewerFile,
			Hint: "use the version of the package that has written it, or a later one"}
	}
	all, err := safetensors.Deserialize(file)
	if err != nil {
		return nil, &StateError{What: err.Error(), Err: ErrDamaged}
	}
	a := &archive{texts, map[string]safetensors.View{}}
	for _, t := range all.Tensors() {
		a.tensors[t.Name] = t.TensorView
	}
	return a, nil
}

// lengthBytes is the size of the header's length, which comes first in a file.
const lengthBytes = 8

// headerStart is how a header begins.
const headerStart = `{"__metadata__":{`

// headerOf returns the header of a file, in JSON.
func headerOf(file []byte) ([]byte, error) {
	if len(file) == 0 {
		return nil, &StateError{What: "it is empty", Err: ErrTruncated}
	}
	if len(file) <= lengthBytes {
		return nil, &StateError{What: fmt.Sprintf("it has %d bytes", len(file)), Err: ErrTruncated}
	}
	length, rest := binary.LittleEndian.Uint64(file), file[lengthBytes:]
	switch {
	case !bytes.HasPrefix(rest, []byte(headerStart)[:min(len(rest), len(headerStart))]):
		return nil, &StateError{What: "it does not begin as one", Err: ErrForeignFile}
	case length > uint64(len(rest)):
		return nil, &StateError{What: fmt.Sprintf("%d of %d bytes of its header are there", len(rest), length),
			Err: ErrTruncated}
	}
	return rest[:length], nil
}

// checked reports whether the file has this checksum.
func checked(file []byte, header int, checksum string) bool {
	at := bytes.Index(file[:lengthBytes+header], []byte(checksum))
	if len(checksum) != len(noChecksum) || at < 0 {
		return false
	}
	sum := sha256.New()
	sum.Write(file[:at])
	io.WriteString(sum, noChecksum)
	sum.Write(file[at+len(checksum):])
	return hex.EncodeToString(sum.Sum(nil)) == checksum
}

// under returns the names of what there is under a prefix, in order.
func (a *archive) under(prefix string) (texts, tensors []string) {
	with := func(name string) bool { return !strings.HasPrefix(name, prefix) }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(a.texts)), with),
		slices.DeleteFunc(slices.Sorted(maps.Keys(a.tensors)), with)
}

// A ledger is a writer or a reader of an archive: what it is shown, it takes down in the archive,
// or takes from there.
type ledger[T program.Float] interface {
	scalars
	curvature.Visitor[T]
	List(name string, x *[]T)      // of any length
	under(prefix string) ledger[T] // with names that begin so
}

// scalars is what a ledger does whatever the dtype.
type scalars interface {
	Count(name string, n *int)
	Number(name string, x *float64) // NaN and infinities too
	Flag(name string, on *bool)
	failed() bool // a reader's values are of no use
}

type writer[T program.Float] struct {
	to     *archive
	prefix string
}

func (w writer[T]) under(prefix string) ledger[T] { return writer[T]{w.to, w.prefix + prefix} }

func (w writer[T]) Tensor(name string, x []T, shape ...int) {
	w.to.tensors[w.prefix+name] = entries[T]{shape, x}
}

func (w writer[T]) Wide(name string, x []float64) {
	w.to.tensors[w.prefix+name] = entries[float64]{[]int{len(x)}, x}
}

func (w writer[T]) List(name string, x *[]T) { w.Tensor(name, *x, len(*x)) }

func (w writer[T]) failed() bool { return false }

func (w writer[T]) Reads() bool { return false }

func (w writer[T]) Count(name string, n *int) { w.to.texts[w.prefix+name] = strconv.Itoa(*n) }
func (w writer[T]) Flag(name string, on *bool) {
	w.to.texts[w.prefix+name] = strconv.FormatBool(*on)
}

// Number writes as many digits as tell the number from all others.
func (w writer[T]) Number(name string, x *float64) {
	w.to.texts[w.prefix+name] = strconv.FormatFloat(*x, 'g', -1, 64)
}

func (w writer[T]) Value(name string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is made of texts and flags
	}
	w.to.texts[w.prefix+name] = string(text)
}

// A reader gives zeros after something was not there, and keeps that error.
type reader[T program.Float] struct {
	from   *archive
	prefix string
	first  *error
}

func newReader[T program.Float](a *archive) reader[T] { return reader[T]{from: a, first: new(error)} }

func (r reader[T]) under(prefix string) ledger[T] {
	return reader[T]{r.from, r.prefix + prefix, r.first}
}

func (r reader[T]) err() error   { return *r.first }
func (r reader[T]) Reads() bool  { return true }
func (r reader[T]) failed() bool { return *r.first != nil }

func (r reader[T]) fail(name, format string, args ...any) {
	if *r.first == nil {
		*r.first = &StateError{What: fmt.Sprintf("%q %s", r.prefix+name, fmt.Sprintf(format, args...)),
			Err: ErrOtherModel, Hint: "the model, or the version of this package, is another than when it was saved"}
	}
}

func (r reader[T]) Tensor(name string, x []T, shape ...int) { into(r, name, entries[T]{shape, x}) }

func (r reader[T]) Wide(name string, x []float64) {
	into(r, name, entries[float64]{[]int{len(x)}, x})
}

func (r reader[T]) List(name string, x *[]T) {
	*x = make([]T, tensor.Shape(r.shape(name)).TotalSize())
	into(r, name, entries[T]{[]int{len(*x)}, *x})
}

// shape returns the shape of a tensor, of which the file has all elements.
func (r reader[T]) shape(name string) (shape []int) {
	t, ok := r.from.tensors[r.prefix+name]
	if !ok || t.DType() != dtypeOf[T]() {
		r.fail(name, "is not in the file")
		return []int{0}
	}
	for _, n := range t.Shape() {
		shape = append(shape, int(n))
	}
	return shape
}

// into reads a tensor of the given dtype and shape.
func into[E, T program.Float](r reader[T], name string, d entries[E]) {
	t, ok := r.from.tensors[r.prefix+name]
	switch {
	case !ok:
		r.fail(name, "is not in the file")
	case t.DType() != d.DType() || !slices.Equal(t.Shape(), d.Shape()) || t.DataLen() != d.DataLen():
		r.fail(name, "is %v %v in the file, and %v %v in this model", t.DType(), t.Shape(), d.DType(), d.Shape())
	default:
		if _, err := binary.Decode(t.Data(), binary.LittleEndian, d.data); err != nil {
			r.fail(name, "can't be read: %v", err)
		}
	}
}

func (r reader[T]) text(name string, parse func(text string) error) {
	text, ok := r.from.texts[r.prefix+name]
	if !ok {
		r.fail(name, "is not in the file")
	} else if err := parse(text); err != nil {
		r.fail(name, "can't be read: %v", err)
	}
}

func (r reader[T]) Count(name string, n *int) {
	r.text(name, func(text string) (err error) {
		if *n, err = strconv.Atoi(text); err == nil && (*n < 0 || *n > math.MaxInt32) {
			*n, err = 0, fmt.Errorf("%s is no count", text)
		}
		return err
	})
}

func (r reader[T]) Flag(name string, on *bool) {
	r.text(name, func(text string) (err error) { *on, err = strconv.ParseBool(text); return err })
}

func (r reader[T]) Number(name string, x *float64) {
	r.text(name, func(text string) (err error) { *x, err = strconv.ParseFloat(text, 64); return err })
}

func (r reader[T]) Value(name string, v any) {
	r.text(name, func(text string) error { return json.Unmarshal([]byte(text), v) })
}

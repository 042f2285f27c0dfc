// Package tensorboard writes event files, which TensorBoard draws: scalars and histograms against
// the number of a step. A [Writer] is a kfac.Recorder:
//
//	board, err := tensorboard.Create("runs/1")
//	...
//	defer board.Close()
//	solver, err := kfac.NewSolver(cost, dist, kfac.WithRecorder(board), kfac.WithLayerStats(10))
//
// and then, beside or after the training, tensorboard --logdir runs.
//
// An event file is a sequence of records in the format TFRecord. Each holds an Event, a protocol
// buffer of TensorFlow's: a time, a step, and a Summary, which is a list of named values.
package tensorboard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gorgonia-kfac/kfac"
)

var _ kfac.Recorder = (*Writer)(nil)

// A Writer writes one event file. It is not for concurrent use. Every call writes what it has, so
// that TensorBoard sees it at once, and nothing is lost if the program is killed.
type Writer struct {
	to  io.WriteCloser
	now func() time.Time

	record, event, summary, value []byte // scratch
}

// Create makes a new event file in a folder, which it makes too where there is none. TensorBoard
// takes the files of one folder for one run.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := fmt.Sprintf("events.out.tfevents.%010d.%s.%d", time.Now().Unix(), host, os.Getpid())
	for n := 0; ; n++ {
		path := filepath.Join(dir, fmt.Sprintf("%s.%d", name, n))
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return newWriter(file, time.Now)
	}
}

// newWriter begins a file with the version of its format.
func newWriter(to io.WriteCloser, now func() time.Time) (*Writer, error) {
	w := &Writer{to: to, now: now}
	w.begin()
	w.event = protowire.AppendTag(w.event, eventVersion, protowire.BytesType)
	w.event = protowire.AppendString(w.event, "brain.Event:2")
	if err := w.end(); err != nil {
		to.Close()
		return nil, err
	}
	return w, nil
}

// Numbers of the fields of TensorFlow's protocol buffers.
const (
	eventTime, eventStep, eventVersion, eventSummary = 1, 2, 3, 5 // Event

	summaryValue = 1 // Summary

	valueTag, valueScalar, valueHistogram = 1, 2, 5 // Summary.Value

	// HistogramProto
	histogramMin, histogramMax, histogramNum, histogramSum = 1, 2, 3, 4
	histogramSquares, histogramLimits, histogramCounts     = 5, 6, 7
)

// begin begins an event.
func (w *Writer) begin() {
	w.event = appendDouble(w.event[:0], eventTime, float64(w.now().UnixMicro())/1e6)
	w.summary = w.summary[:0]
}

// end writes the event as a record: its length, that number's checksum, the event, and its
// checksum.
func (w *Writer) end() error {
	w.record = binary.LittleEndian.AppendUint64(w.record[:0], uint64(len(w.event)))
	w.record = binary.LittleEndian.AppendUint32(w.record, checksum(w.record))
	w.record = append(w.record, w.event...)
	w.record = binary.LittleEndian.AppendUint32(w.record, checksum(w.event))
	_, err := w.to.Write(w.record)
	return err
}

// checksum is the CRC-32C in the masked form of TFRecord: turned right by 15 bits, plus a constant.
func checksum(data []byte) uint32 {
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return crc>>15 | crc<<17 + 0xa282ead8
}

// endSummary ends an event whose summary has its values.
func (w *Writer) endSummary(step int) error {
	w.event = protowire.AppendTag(w.event, eventStep, protowire.VarintType)
	w.event = protowire.AppendVarint(w.event, uint64(step))
	w.event = appendMessage(w.event, eventSummary, w.summary)
	return w.end()
}

// add adds the value that is complete to the summary.
func (w *Writer) add() { w.summary = appendMessage(w.summary, summaryValue, w.value) }

// name begins a value.
func (w *Writer) name(tag string) {
	w.value = protowire.AppendTag(w.value[:0], valueTag, protowire.BytesType)
	w.value = protowire.AppendString(w.value, tag)
}

func (w *Writer) addScalar(tag string, x float64) {
	w.name(tag)
	w.value = protowire.AppendTag(w.value, valueScalar, protowire.Fixed32Type)
	w.value = protowire.AppendFixed32(w.value, math.Float32bits(float32(x)))
	w.add()
}

func appendDouble(b []byte, field protowire.Number, x float64) []byte {
	b = protowire.AppendTag(b, field, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(x))
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

// appendDoubles appends a packed list.
func appendDoubles(b []byte, field protowire.Number, list []float64) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(8*len(list)))
	for _, x := range list {
		b = protowire.AppendFixed64(b, math.Float64bits(x))
	}
	return b
}

// Scalar writes a number, which the file has in float32. A tag such as "loss/test" is a group and a
// name in it.
func (w *Writer) Scalar(tag string, step int, x float64) error {
	w.begin()
	w.addScalar(tag, x)
	return w.endSummary(step)
}

// Record writes the numbers of a step that were computed, by the names of [kfac.Stats.All].
func (w *Writer) Record(s kfac.Stats) error {
	w.begin()
	for tag, x := range s.All() {
		if !math.IsNaN(x) {
			w.addScalar(tag, x)
		}
	}
	return w.endSummary(s.Step)
}

// Close closes the file.
func (w *Writer) Close() error { return w.to.Close() }

// buckets is the number of equal parts of a histogram, as many as TensorBoard draws.
const buckets = 30

// Histogram writes how values are distributed, in 30 buckets of equal width from the least to the
// largest. There must be at least one, and all must be finite.
func (w *Writer) Histogram(tag string, step int, values []float64) error {
	if len(values) == 0 {
		return fmt.Errorf("tensorboard: histogram %q of no values", tag)
	}
	var sum, squares float64
	for i, x := range values {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("tensorboard: histogram %q: value %d is %g; it takes finite ones", tag, i, x)
		}
		sum, squares = sum+x, squares+x*x
	}
	least, most := slices.Min(values), slices.Max(values)
	limits, counts := distribution(values, least, most)
	h := appendDouble(nil, histogramMin, least)
	h = appendDouble(h, histogramMax, most)
	h = appendDouble(h, histogramNum, float64(len(values)))
	h = appendDouble(h, histogramSum, sum)
	h = appendDouble(h, histogramSquares, squares)
	h = appendDoubles(h, histogramLimits, limits)
	h = appendDoubles(h, histogramCounts, counts)
	w.begin()
	w.name(tag)
	w.value = appendMessage(w.value, valueHistogram, h)
	w.add()
	return w.endSummary(step)
}

// distribution returns the upper limits of the buckets, and how many values lie in each.
func distribution(values []float64, least, most float64) (limits, counts []float64) {
	if least == most {
		return []float64{most}, []float64{float64(len(values))}
	}
	limits, counts = make([]float64, buckets), make([]float64, buckets)
	for i := range limits {
		t := float64(i+1) / buckets
		limits[i] = (1-t)*least + t*most
	}
	limits[buckets-1] = most
	for _, x := range values {
		i, _ := slices.BinarySearch(limits, x)
		counts[i]++
	}
	return limits, counts
}

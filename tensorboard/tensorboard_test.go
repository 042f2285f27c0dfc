package tensorboard

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gorgonia-kfac/kfac"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The examples of RFC 3720, appendix B.4, with the mask of TFRecord undone.
func TestChecksum(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[31-i] = byte(i), byte(i)
	}
	for _, c := range []struct {
		data []byte
		crc  uint32
	}{
		{make([]byte, 32), 0x8a9136aa}, {bytes.Repeat([]byte{0xff}, 32), 0x62a8ab43}, {up, 0x46dd794e},
		{down, 0x113fdb5c}, {[]byte("123456789"), 0xe3069283},
	} {
		turned := checksum(c.data) - 0xa282ead8
		if got := turned<<15 | turned>>17; got != c.crc {
			t.Errorf("CRC of %x: %#x, want %#x", c.data, got, c.crc)
		}
	}
}

// closing is a buffer that can be closed.
type closing struct{ bytes.Buffer }

func (*closing) Close() error { return nil }

var noon = time.Date(2020, 2, 3, 12, 0, 0, 250_000_000, time.UTC)

func writerInto(t testing.TB, to *closing) *Writer {
	t.Helper()
	w, err := newWriter(to, func() time.Time { return noon })
	check(t, err)
	return w
}

// Every file begins with these bytes: a record of 24 bytes, the checksum of that number, and an
// event with a time and a version.
func TestFileBeginsAsTensorFlowsDo(t *testing.T) {
	var file closing
	writerInto(t, &file)
	want, err := hex.DecodeString("1800000000000000" + "a37f4b22" + "09")
	check(t, err)
	if got := file.Bytes(); len(got) != 8+4+24+4 || !bytes.HasPrefix(got, want) {
		t.Errorf("%x, want %x and so on", got, want)
	}
	if !bytes.Contains(file.Bytes(), []byte("\x1a\x0dbrain.Event:2")) {
		t.Errorf("no version in %q", file.Bytes())
	}
}

// A message is what protocol buffers hold, by the number of the field.
type message map[protowire.Number][]any

// parse reads a message; fields of bytes are left as they are.
func parse(t testing.TB, b []byte) message {
	t.Helper()
	m := message{}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var x any
		switch kind {
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var bits uint32
			bits, n = protowire.ConsumeFixed32(b)
			x = math.Float32frombits(bits)
		case protowire.Fixed64Type:
			var bits uint64
			bits, n = protowire.ConsumeFixed64(b)
			x = math.Float64frombits(bits)
		case protowire.BytesType:
			x, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		m[field], b = append(m[field], x), b[n:]
	}
	return m
}

// records reads the events of a file.
func records(t testing.TB, file []byte) (events []message) {
	t.Helper()
	for len(file) > 0 {
		n := binary.LittleEndian.Uint64(file)
		if crc := binary.LittleEndian.Uint32(file[8:]); crc != checksum(file[:8]) {
			t.Fatalf("checksum %#x of the length", crc)
		}
		event := file[12 : 12+n]
		if crc := binary.LittleEndian.Uint32(file[12+n:]); crc != checksum(event) {
			t.Fatalf("checksum %#x of the event", crc)
		}
		events, file = append(events, parse(t, event)), file[16+n:]
	}
	return events
}

// values are those of an event's summary, by tag.
func values(t testing.TB, event message) map[string]message {
	t.Helper()
	all := map[string]message{}
	for _, v := range parse(t, event[5][0].([]byte))[1] {
		m := parse(t, v.([]byte))
		all[string(m[1][0].([]byte))] = m
	}
	return all
}

func TestScalar(t *testing.T) {
	var file closing
	w := writerInto(t, &file)
	check(t, w.Scalar("loss/test", 300, 0.125))
	check(t, w.Scalar("loss/test", 301, math.Inf(1)))
	events := records(t, file.Bytes())
	if len(events) != 3 {
		t.Fatalf("%d events, want 3", len(events))
	}
	for i, want := range []float32{0.125, float32(math.Inf(1))} {
		e := events[i+1]
		if got := values(t, e)["loss/test"][2][0]; got != want || e[2][0] != uint64(300+i) {
			t.Errorf("step %v: %v, want %v", e[2], got, want)
		}
		if at := e[1][0].(float64); at != float64(noon.UnixMilli())/1000 {
			t.Errorf("at %f", at)
		}
	}
}

func doubles(packed any) (list []float64) {
	b := packed.([]byte)
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return list
}

func sumOf(list []float64) (sum float64) {
	for _, x := range list {
		sum += x
	}
	return sum
}

func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]float64, 5000)
	for i := range random {
		random[i] = rng.NormFloat64()
	}
	for name, list := range map[string][]float64{
		"random": random, "one": {3}, "equal": {-2, -2, -2}, "two": {0, 1},
		"huge": {-math.MaxFloat64, 0, math.MaxFloat64},
	} {
		t.Run(name, func(t *testing.T) {
			var file closing
			w := writerInto(t, &file)
			check(t, w.Histogram("h", 7, list))
			event := records(t, file.Bytes())[1]
			h := parse(t, values(t, event)["h"][5][0].([]byte))
			limits, counts := doubles(h[6][0]), doubles(h[7][0])
			if len(limits) != len(counts) || !slices.IsSorted(limits) || sumOf(counts) != float64(len(list)) {
				t.Fatalf("limits %v, counts %v", limits, counts)
			}
			below := 0.0 // the limits are in order, and so many values are no larger
			for i, limit := range limits {
				below += counts[i]
				n := 0
				for _, x := range list {
					if x <= limit {
						n++
					}
				}
				if float64(n) != below {
					t.Errorf("%v values up to %g, want %d", below, limit, n)
				}
			}
			if h[1][0] != slices.Min(list) || h[2][0] != slices.Max(list) || h[3][0] != float64(len(list)) ||
				h[4][0] != sumOf(list) {
				t.Errorf("least, largest, number and sum %v", h)
			}
		})
	}
	var file closing
	w := writerInto(t, &file)
	size := file.Len()
	for _, bad := range [][]float64{nil, {1, math.NaN()}, {math.Inf(-1)}} {
		err := w.Histogram("odd", 1, bad)
		if err == nil || !strings.Contains(err.Error(), `"odd"`) || file.Len() != size {
			t.Errorf("%v: error %v", bad, err)
		}
	}
}

// failing fails to write.
type failing struct{ closing }

var errDisk = errors.New("no space")

func (*failing) Write([]byte) (int, error) { return 0, errDisk }

func TestErrorsOfTheFile(t *testing.T) {
	if _, err := newWriter(&failing{}, time.Now); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
	blocked := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(blocked, nil, 0o600))
	if _, err := Create(blocked); err == nil {
		t.Error("no error for a folder that is a file")
	}
}

// Two writers of one folder have files of their own.
func TestCreateTwice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		w, err := Create(dir)
		check(t, err)
		check(t, w.Close())
	}
	if files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*")); err != nil || len(files) != 2 {
		t.Errorf("files %q (%v), want two", files, err)
	}
}

// someStats are those of a step, with a layer.
func someStats(step int) kfac.Stats {
	nan := math.NaN()
	layer := kfac.LayerStats{Params: []string{"w1", "b1"}, Share: 0.5, Pi: 2}
	layer.F.Trace = nan
	return kfac.Stats{Step: step, Cost: 1 / float64(step), Rho: nan, Rejected: true,
		Layers: []kfac.LayerStats{layer}, Time: kfac.PhaseTimes{Total: 250 * time.Millisecond}}
}

// A step is one event, with what was computed.
func TestRecord(t *testing.T) {
	var file closing
	w := writerInto(t, &file)
	check(t, w.Record(someStats(4)))
	event := records(t, file.Bytes())[1]
	all := values(t, event)
	for tag, want := range map[string]float32{
		"Cost": 0.25, "Rejected": 1, "Time/Total": 0.25, "Layers/w1/Share": 0.5, "Layers/w1/Pi": 2,
	} {
		if v := all[tag]; v == nil || v[2][0] != want {
			t.Errorf("%s is %v, want %v", tag, v, want)
		}
	}
	for _, tag := range []string{"Rho", "Layers/w1/F/Trace"} {
		if all[tag] != nil {
			t.Errorf("%s was written", tag)
		}
	}
}

// The real TensorBoard reads what was written. TENSORBOARD_PYTHON is a Python that has it.
func TestReadByTensorBoard(t *testing.T) {
	python := os.Getenv("TENSORBOARD_PYTHON")
	if python == "" {
		t.Skip("TENSORBOARD_PYTHON is not set")
	}
	dir := t.TempDir()
	w, err := Create(dir)
	check(t, err)
	for step := 1; step <= 3; step++ {
		check(t, w.Record(someStats(step)))
	}
	list := []float64{-1, 0, 0.5, 0.5, 2}
	check(t, w.Histogram("weights", 3, list))
	check(t, w.Close())
	out, err := exec.Command(python, "testdata/read.py", dir).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	check(t, err)
	var got struct {
		Tags    map[string][][2]any
		Plugins map[string]string
	}
	check(t, json.Unmarshal(out, &got))
	if len(got.Tags["Cost"]) != 3 || got.Plugins["Cost"] != "scalars" || got.Plugins["weights"] != "histograms" {
		t.Fatalf("%s", out)
	}
	for i, e := range got.Tags["Cost"] {
		if step, want := float64(i+1), float64(float32(1/float64(i+1))); e[0] != step || e[1] != want {
			t.Errorf("step %v: %v; want %v at %v", e[0], e[1], want, step)
		}
	}
	var counts float64
	rows := got.Tags["weights"][0][1].([]any)
	for i, r := range rows {
		row := r.([]any)
		left, right, count := row[0].(float64), row[1].(float64), row[2].(float64)
		counts += count
		n := 0.0
		for _, x := range list {
			if (x > left || i == 0 && x == left) && x <= right {
				n++
			}
		}
		if n != count {
			t.Errorf("%v values in (%g, %g], want %v", count, left, right, n)
		}
	}
	if counts != 5 || len(rows) != buckets {
		t.Errorf("%d buckets, %v values", len(rows), counts)
	}
}

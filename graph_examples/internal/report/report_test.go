package report

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// points makes measurements of triples of updates, seconds and error.
func points(triples ...float64) []trial.Point {
	var ps []trial.Point
	for t := range slices.Chunk(triples, 3) {
		ps = append(ps, trial.Point{Updates: int(t[0]), Seconds: t[1], Error: t[2]})
	}
	return ps
}

// curves are of an optimizer that gets there, one that diverges, one that was interrupted before
// its first measurement, and one that makes no error at the end.
var curves = []*trial.Curve{
	{
		Entrant: trial.Entrant{Name: "kfac"},
		Points:  points(0, 0, 100, 10, 4.5, 30, 20, 9, 12),
		Steps:   20, Updates: 20, Seconds: 9,
	},
	{
		Entrant: trial.Entrant{Name: "adam", Rate: 0.5},
		Points:  points(0, 0, 100, 10, 3, 200),
		Steps:   20, Updates: 20, Seconds: 6, Diverged: true,
	},
	{Entrant: trial.Entrant{Name: "momentum", Rate: 0.01}, Steps: 20},
	{
		Entrant: trial.Entrant{Name: "oracle", Rate: 1},
		Points:  points(0, 0, 100, 10, 1, 0),
		Steps:   20, Updates: 10, Seconds: 1,
	},
}

// cells splits a table into rows of cells, which two spaces or more separate.
func cells(table string) map[string][]string {
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		var row []string
		for cell := range strings.SplitSeq(strings.TrimSpace(line), "  ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				row = append(row, cell)
			}
		}
		rows[row[0]] = row[1:]
	}
	return rows
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, []float64{30, 5}, curves); err != nil {
		t.Fatal(err)
	}
	rows := cells(out.String())
	for label, want := range map[string][]string{
		"optimizer":      {"kfac", "adam", "momentum", "oracle"},
		"learning rate":  {"default", "0.5", "0.01", "1"},
		"error <= 30":    {"10 in 4.5 s", "-", "-", "10 in 1.0 s"},
		"error <= 5":     {"-", "-", "-", "10 in 1.0 s"},
		"after 20":       {"12", "-", "-", "-"},
		"last error":     {"12", "diverged at 20", "-", "0"},
		"in all":         {"20 in 9.0 s", "20 in 6.0 s", "0 in 0.0 s", "10 in 1.0 s"},
		"seconds/update": {"0.45", "0.3", "-", "0.1"},
	} {
		if !slices.Equal(rows[label], want) {
			t.Errorf("row %q is %q, want %q", label, rows[label], want)
		}
	}
}

func TestLosses(t *testing.T) {
	rising := &trial.Curve{
		Entrant: trial.Entrant{Name: "rmsprop", Rate: 1},
		Points:  points(0, 0, 60, 10, 1, 10, 20, 2, 20, 80, 8, 15),
		Steps:   20, Updates: 80, Seconds: 8,
	}
	var out bytes.Buffer
	if err := Losses(&out, append(slices.Clone(curves), rising)); err != nil {
		t.Fatal(err)
	}
	rows := cells(out.String())
	for label, want := range map[string][]string{
		"optimizer":     {"kfac", "adam", "momentum", "oracle", "rmsprop"},
		"first loss":    {"100", "100", "-", "100", "60"},
		"lowest loss":   {"12", "100", "-", "0", "10"},
		"after 20":      {"12", "-", "-", "-", "20"},
		"last loss":     {"12", "diverged at 20", "-", "0", "15"},
		"rise / fall":   {"0.0 %", "-", "-", "0.0 %", "10.0 %"},
		"rise / lowest": {"0.0 %", "-", "-", "-", "50.0 %"},
		"as rmsprop":    {"20 in 9.0 s", "-", "-", "10 in 1.0 s", "10 in 1.0 s"},
	} {
		if !slices.Equal(rows[label], want) {
			t.Errorf("row %q is %q, want %q", label, rows[label], want)
		}
	}
}

func TestGrid(t *testing.T) {
	var out bytes.Buffer
	if err := Grid(&out, curves); err != nil {
		t.Fatal(err)
	}
	rows := cells(out.String())
	for name, want := range map[string][]string{
		"kfac":     {"default", "20 in 9.0 s", "12", "12"},
		"adam":     {"0.5", "20 in 6.0 s", "diverged at 20", "100"},
		"momentum": {"0.01", "0 in 0.0 s", "-", "-"},
	} {
		if !slices.Equal(rows[name], want) {
			t.Errorf("row of %s is %q, want %q", name, rows[name], want)
		}
	}
}

// size decodes a PNG file and returns its width and height.
func size(t *testing.T, file string) (width, height int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return picture.Bounds().Dx(), picture.Bounds().Dy()
}

func TestPlot(t *testing.T) {
	for name, list := range map[string][]*trial.Curve{
		"all":         curves,
		"none":        nil,
		"unmeasured":  curves[2:3],
		"first point": {{Points: points(0, 0, 100)}},
		"no error":    {{Points: points(0, 0, 0)}},
	} {
		file := filepath.Join(t.TempDir(), "plot.png")
		if err := Plot(file, "title", "error", list); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if w, h := size(t, file); w != 1600 || h > w/2 {
			t.Errorf("%s: %dx%d pixels, want two panels side by side", name, w, h)
		}
		files, err := Seconds(strings.TrimSuffix(file, ".png"), "title", "error", list)
		if err != nil || len(files) != 2 {
			t.Errorf("%s: files %q, error %v, want one for light ground and one for dark", name, files, err)
			continue
		}
		for _, file := range files {
			if w, _ := size(t, file); w != 1600 {
				t.Errorf("%s: %s is %d pixels wide", name, file, w)
			}
		}
	}
	if err := Plot(filepath.Join(t.TempDir(), "missing", "plot.png"), "", "", curves); err == nil {
		t.Error("no error for a folder that is missing")
	}
}

func TestLogTicks(t *testing.T) {
	labelled(t, logTicks{}, 3, 60, "5", "10", "20", "50")
	labelled(t, logTicks{}, 2.1, 5.9, "3", "4", "5") // with 5 alone nobody could read the others
}

// Updates are whole numbers, and an axis has three numbers at least.
func TestTicksFromZero(t *testing.T) {
	labelled(t, fromZero{}, 0, 5, "0", "2", "4")
	labelled(t, fromZero{}, 0, 20, "0", "10", "20")
	labelled(t, fromZero{}, 0, 90, "0", "20", "40", "60", "80")
	labelled(t, fromZero{}, 0, 0.031, "0", "0.01", "0.02", "0.03")
	labelled(t, fromZero{}, 0, 1900, "0", "400", "800", "1200", "1600")
}

func labelled(t *testing.T, ticker plot.Ticker, low, high float64, want ...string) {
	t.Helper()
	var labels []string
	for _, tick := range ticker.Ticks(low, high) {
		if tick.Value < low || tick.Value > high {
			t.Errorf("tick at %g, outside the axis from %g to %g", tick.Value, low, high)
		}
		if tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	if !slices.Equal(labels, want) {
		t.Errorf("labels %q, want %q", labels, want)
	}
}

func TestDigits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "digits.png")
	ink := make([]float32, mnist.Pixels)
	for i := range ink {
		ink[i] = float32(math.Sin(float64(i))) * 2 // beyond [0, 1] on both sides
	}
	rows := []Row{{Name: "a", Digits: [][]float32{ink, ink, ink}}, {Name: "b", Digits: [][]float32{ink}}, {Name: "c"}}
	if err := Digits(file, rows); err != nil {
		t.Fatal(err)
	}
	if w, h := size(t, file); w != labelWidth+3*digitSide || h != 3*digitSide {
		t.Errorf("%dx%d pixels, want room for 3 rows of 3 digits", w, h)
	}
	if err := Digits(file, []Row{{Name: "a", Digits: [][]float32{ink[1:]}}}); err == nil {
		t.Error("no error for a digit of 783 pixels")
	}
}

package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorgonia-kfac/kfac"
)

// The counts of a net of one layer, by hand.
func TestCounts(t *testing.T) {
	n := dense("one layer", 8, 3, 2) // abar has 4 elements
	if got := n.layers[0]; got != (layer{4, 2, 1}) || got.weights() != 8 || got.factors() != 20 ||
		got.inverse() != 72 || got.directions() != 96 {
		t.Errorf("%+v", got)
	}
	// Of 8 cases, all are in the statistics and in the products: 8 weights times 8 cases times 6 +
	// 2 + 10, and 8 times 20 for the moments.
	if got := n.operations(1); got != 8*8*18+8*20 {
		t.Errorf("%g operations", got)
	}
	e := n.update(machine{rate: 2}, 1, 4)
	if e.total() != (8*8*18+8*20+96)/2.+72/2./4 || e.latency != 0 || e.volume != 0 {
		t.Errorf("%+v", e)
	}
}

// Two equal layers on two ranks take half as long, and what is sent is what the layers have.
func TestTwoRanks(t *testing.T) {
	n := dense("two layers", 500, 999, 1000, 1000)
	n.layers[1].in = 1000
	one, two := n.update(machine{rate: 1}, 1, 20), n.update(machine{1, 3, 5}, 2, 20)
	if two.inverses != one.inverses/2 || two.directions != one.directions/2 {
		t.Errorf("%+v, %+v", one, two)
	}
	numbers := 2e6 + 2*2e6/2/20 + 2e6 // gradients, triangles of factors, directions
	if two.volume != width*numbers/5 || two.latency != 3*(2*messages+2+2) {
		t.Errorf("%+v", two)
	}
}

// A training of the autoencoder on two ranks, in one process, sends what the model says: small
// messages, and one or two of each of eight layers.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("trains the autoencoder")
	}
	err := kfac.InProcess(2, func(c kfac.Communicator) error {
		m, err := measure(c, 4, 20)
		if c.Rank() == 0 && (m.operations < messages || m.operations > messages+2*8 || m.bytes < 4*2.8e6) {
			t.Errorf("%+v", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDraw(t *testing.T) {
	var out bytes.Buffer
	s := settings{cases: 1, updates: 1, rate: 1e10, draw: true, out: filepath.Join(t.TempDir(), "new")}
	if err := s.run(&out); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(s.out, "scaling.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
	if rows := strings.Count(out.String(), "\n"); rows != 2+3*2*2*2 {
		t.Errorf("%d rows\n%s", rows, out.String())
	}
	s.rate = 0
	if s.run(&out) == nil {
		t.Error("drawn without a rate")
	}
}

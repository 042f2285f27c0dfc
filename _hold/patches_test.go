package kfac

import (
	"testing"

	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// The shortcut for patches that repeat each other gives the sums over all patches, whatever the
// geometry, with a homogeneous coordinate or without.
func TestPatchSums(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		s := testnet.NewSketch(rapid.Uint64().Draw(t, "seed"))
		pair := func(name string, from, to int) []int {
			return []int{rapid.IntRange(from, to).Draw(t, name+" y"), rapid.IntRange(from, to).Draw(t, name+" x")}
		}
		kernel, stride, dilation, pad := pair("kernel", 1, 3), pair("stride", 1, 2), pair("dilation", 1, 2),
			pair("pad", 0, 1)
		batch, channels := rapid.IntRange(1, 3).Draw(t, "batch"), rapid.IntRange(1, 3).Draw(t, "channels")
		filter := s.Random("f", 2, channels, kernel[0], kernel[1])
		h, err := gorgonia.Conv2d(s.Random("x", batch, channels, 9, 8), filter, kernel, pad, stride, dilation)
		testnet.Check(t, err)
		n := &testnet.Net{Sketch: s, Params: list(filter)}
		if rapid.Bool().Draw(t, "bias") {
			b := s.Random("b", 1, 2, 1, 1)
			h, n.Params = gorgonia.Must(gorgonia.BroadcastAdd(h, b, nil, []byte{0, 2, 3})), append(n.Params, b)
		}
		n.Out = reshape(h, batch, h.Shape().TotalSize()/batch)
		n.Cost, n.Loss = testnet.Squares(1)(s, n.Out)
		c := attach(t, n)
		l := layerBlocks(c)[0].layer
		if l.patches == nil {
			return
		}
		taken++
		testnet.Check(t, c.sampler.run.Forward(nil))
		var buf captured[float64]
		x := capture(l, c.sampler.run, &buf).a
		rows := len(x) / l.in
		var sums patchSums[float64]
		got, want := newFactor[float64](l.abar(), false), newFactor[float64](l.abar(), false)
		if !got.observePatches(l.patches, &sums, x) {
			t.Fatal("not finite")
		}
		xt := columnsOf(nil, x, rows, l.abar(), l.bias != nil)
		want.observe(xt, xt, rows, rows)
		want.multiply()
		testnet.Near(t, "sum", got.run, want.run, 1e-12)
		if got.runCount != want.runCount {
			t.Errorf("%d rows counted, want %d", got.runCount, want.runCount)
		}
	})
	if taken == 0 { // of 20 with -short, 100 else
		t.Error("the shortcut was taken for no convolution")
	}
}

package layers

import (
	"fmt"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// unfolded is the node whose patches a use multiplies with the weight.
// It is nil if the use is no convolution.
func (s Site) unfolded(in int) *program.Node {
	if s.InputColumns || s.Lookup {
		return nil
	}
	n := beforeReshapes(s.Input)
	if _, ok := n.Op.(program.Im2Col); ok && n.Shape[len(n.Shape)-1] == in {
		return n
	}
	return nil
}

// convolution is the geometry of a convolution, the same at all uses.
// Its images have one axis or two.
// ok is false for a layer that is none.
func (l *Layer) convolution() (w program.Window, axes int, ok bool) {
	axes = 1
	for i, s := range l.Sites {
		n := s.unfolded(l.In)
		if n == nil {
			return w, 0, false
		}
		window := n.Op.(program.Im2Col).Window
		if i > 0 && window != w {
			return w, 0, false
		}
		if w = window; n.Kids[0].Shape[2] > 1 || w.Kernel[0] > 1 || w.PadBefore[0] > 0 {
			axes = 2
		}
	}
	return w, axes, true
}

// patches is the node that unfolds the patches of a convolution with a single use, or nil.
func (l *Layer) patches() *program.Node {
	if len(l.Sites) != 1 || l.Tied != nil {
		return nil
	}
	return l.Sites[0].unfolded(l.In)
}

// Convolution reports whether the layer is a convolution of images.
func (l *Layer) Convolution() bool { return l.patches() != nil }

// imageChannels is the number of channels of the images that a convolution's patches come from.
// It is 0 if the layer is none, or its kernel is a single pixel.
func (l *Layer) imageChannels() int {
	if n := l.patches(); n != nil && n.Kids[0].Shape[1] < l.In {
		return n.Kids[0].Shape[1]
	}
	return 0
}

// describeConvolution names the kernel, the stride, and padding and dilation if there are any.
func describeConvolution(w program.Window, axes int) string {
	along := func(v [2]int) string {
		switch {
		case axes == 1:
			return fmt.Sprint(v[1])
		case v[0] == v[1]:
			return fmt.Sprint(v[0])
		}
		return fmt.Sprintf("%dx%d", v[0], v[1])
	}
	kernel := fmt.Sprintf("%dx%d", w.Kernel[0], w.Kernel[1])
	if axes == 1 {
		kernel = fmt.Sprint(w.Kernel[1])
	}
	s := "convolution " + kernel + ", stride " + along(w.Stride)
	if w.PadBefore != [2]int{} {
		s += ", padding " + along(w.PadBefore)
	}
	if d := along(w.Dilation); d != "1" {
		s += ", dilation " + d
	}
	return s
}

package layers

import (
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A Grid is the geometry of a convolution's patches, where they repeat each other.
// What row ky+1 of the kernel sees at position y is what row ky sees at position y + Shift.
type Grid struct {
	KernelRows    int
	Height, Width int // positions
	Shift         int
	// Place tells where an element of a patch goes when rows of the kernel are sorted first.
	Place []int
}

// gridOf is the geometry of unfolded patches, or nil if nothing is to be gained from it.
func gridOf(patches *program.Node) *Grid {
	w := patches.Op.(program.Im2Col).Window
	g := &Grid{
		KernelRows: w.Kernel[0],
		Height:     patches.Shape[1],
		Width:      patches.Shape[2],
		Shift:      w.Dilation[0] / w.Stride[0],
	}
	if g.KernelRows < 2 || w.Dilation[0]%w.Stride[0] != 0 || g.Height < 4*g.Shift {
		return nil
	}
	channels, columns := patches.Kids[0].Shape[1], w.Kernel[1]
	for c := range channels {
		for ky := range g.KernelRows {
			for kx := range columns {
				g.Place = append(g.Place, (ky*channels+c)*columns+kx)
			}
		}
	}
	return g
}

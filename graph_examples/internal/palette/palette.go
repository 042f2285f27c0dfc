// Package palette has the colors of all figures. The color-blind can tell them apart (Okabe & Ito,
// "Color universal design", 2008).
package palette

import "image/color"

// The colors, for light ground.
var (
	Vermilion = color.RGBA{R: 213, G: 94, A: 255}
	Blue      = color.RGBA{G: 114, B: 178, A: 255}
	Green     = color.RGBA{G: 158, B: 115, A: 255}
	Purple    = color.RGBA{R: 204, G: 121, B: 167, A: 255}
	Sky       = color.RGBA{R: 86, G: 180, B: 233, A: 255}
	Orange    = color.RGBA{R: 230, G: 159, A: 255}
	Black     = color.RGBA{A: 255}
	Grey      = color.RGBA{R: 190, G: 190, B: 190, A: 255}
)

// A Theme has the colors of a figure on light or on dark ground, and the curves' in their order.
type Theme struct {
	Ground, Ink, Grid color.Color
	Curves            []color.Color
}

// The two themes. In Dark the colors are lighter where they would sink into the ground.
var (
	Light = Theme{
		Ground: color.White, Ink: color.Black, Grid: color.Gray{210},
		Curves: []color.Color{Vermilion, Blue, Green, Purple, Sky, Orange, Black},
	}
	Dark = Theme{
		Ground: color.Gray{24}, Ink: color.Gray{225}, Grid: color.Gray{70},
		Curves: []color.Color{
			color.RGBA{R: 240, G: 128, B: 48, A: 255}, Sky, color.RGBA{G: 190, B: 140, A: 255}, Purple,
			color.RGBA{R: 240, G: 228, B: 66, A: 255}, Orange, color.Gray{225},
		},
	}
)

package report

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
)

// A Row is a named row of digits, each of mnist.Pixels values; values outside [0, 1] are clipped.
type Row struct {
	Name   string
	Digits [][]float32
}

const (
	digitZoom   = 2                        // side of a pixel in the picture
	digitSide   = mnist.Side*digitZoom + 4 // with a margin
	labelWidth  = 90                       // of the names at the left
	labelIndent = 6                        // of the names from the left
)

// Digits writes a PNG file with the rows of digits, one below the other, dark on light.
func Digits(file string, rows []Row) error {
	columns := 0
	for _, row := range rows {
		columns = max(columns, len(row.Digits))
	}
	picture := image.NewGray(image.Rect(0, 0, labelWidth+columns*digitSide, len(rows)*digitSide))
	draw.Draw(picture, picture.Bounds(), image.White, image.Point{}, draw.Src)
	for r, row := range rows {
		label := font.Drawer{
			Dst:  picture,
			Src:  image.Black,
			Face: basicfont.Face7x13,
			Dot:  fixed.P(labelIndent, r*digitSide+digitSide/2+basicfont.Face7x13.Ascent/2),
		}
		label.DrawString(names.Replace(row.Name))
		for c, digit := range row.Digits {
			if len(digit) != mnist.Pixels {
				return fmt.Errorf("picture %s: digit %d of row %q has %d pixels, want %d",
					file, c, row.Name, len(digit), mnist.Pixels)
			}
			drawDigit(picture, image.Pt(labelWidth+c*digitSide, r*digitSide), digit)
		}
	}
	return writePNG(file, picture)
}

func drawDigit(picture *image.Gray, at image.Point, digit []float32) {
	for y := range mnist.Side * digitZoom {
		for x := range mnist.Side * digitZoom {
			ink := digit[y/digitZoom*mnist.Side+x/digitZoom]
			picture.SetGray(at.X+x, at.Y+y, color.Gray{Y: 255 - uint8(255*min(max(ink, 0), 1)+0.5)})
		}
	}
}

func writePNG(file string, picture image.Image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := png.Encode(f, picture); err != nil {
		f.Close()
		return fmt.Errorf("picture %s: %w", file, err)
	}
	return f.Close()
}

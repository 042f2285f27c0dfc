package report

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// Colors and dashes of the curves, in their order. The color-blind can tell the colors apart (Okabe
// & Ito, "Color universal design", 2008).
var (
	colors = []color.Color{
		color.RGBA{R: 213, G: 94, A: 255},
		color.RGBA{G: 114, B: 178, A: 255},
		color.RGBA{G: 158, B: 115, A: 255},
		color.RGBA{R: 204, G: 121, B: 167, A: 255},
		color.RGBA{R: 86, G: 180, B: 233, A: 255},
		color.RGBA{R: 230, G: 159, A: 255},
		color.RGBA{A: 255},
	}
	dashes = [][]vg.Length{nil, {6, 3}, {2, 2}, {6, 2, 2, 2}, {10, 3}}
)

// Plot writes a PNG file with two panels: the error, on a logarithmic axis, against the updates and
// against the training seconds. Errors that are not positive are left out.
func Plot(file, title, quantity string, curves []*trial.Curve) error {
	updates, err := panel(title, "updates", quantity, curves, func(p trial.Point) float64 { return float64(p.Updates) })
	if err != nil {
		return err
	}
	seconds, err := panel(title, "training time, s", quantity, curves, func(p trial.Point) float64 { return p.Seconds })
	if err != nil {
		return err
	}
	canvas := vgimg.NewWith(vgimg.UseWH(26*vg.Centimeter, 11*vg.Centimeter), vgimg.UseDPI(120),
		vgimg.UseBackgroundColor(color.White))
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: vg.Centimeter, PadTop: 8, PadBottom: 4, PadLeft: 4, PadRight: 12}
	plots := [][]*plot.Plot{{updates, seconds}}
	for i, c := range plot.Align(plots, tiles, draw.New(canvas))[0] {
		plots[0][i].Draw(c)
	}
	return writePNG(file, canvas.Image())
}

func panel(title, x, y string, curves []*trial.Curve, at func(trial.Point) float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = x
	p.Y.Label.Text = y
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = logTicks{}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())

	low, high := math.Inf(1), math.Inf(-1)
	for i, c := range curves {
		var xys plotter.XYs
		for _, pt := range c.Points {
			if pt.Error > 0 {
				xys = append(xys, plotter.XY{X: at(pt), Y: pt.Error})
				low, high = min(low, pt.Error), max(high, pt.Error)
			}
		}
		if len(xys) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, fmt.Errorf("plot of %s: %w", c.Name, err)
		}
		line.Color, line.Dashes, line.Width = colors[i%len(colors)], dashes[i%len(dashes)], vg.Points(1.5)
		points.Color, points.Shape, points.Radius = line.Color, draw.CircleGlyph{}, vg.Points(1.5)
		p.Add(line, points)
		p.Legend.Add(c.Name, line, points)
	}
	if low > high { // nothing to show
		low, high = 1, 10
	}
	p.Y.Min, p.Y.Max = low/1.1, high*1.1
	p.X.Min, p.X.Max = 0, max(p.X.Max, 1e-3)
	return p, nil
}

// logTicks marks 1, 2 and 5 times the powers of ten with their numbers. Other multiples are marked
// without a number.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := math.Floor(math.Log10(low)); decade <= math.Log10(high); decade++ {
		for m := 1.0; m < 10; m++ {
			value := m * math.Pow(10, decade)
			if value < low || value > high {
				continue
			}
			tick := plot.Tick{Value: value}
			if m == 1 || m == 2 || m == 5 {
				tick.Label = fmt.Sprintf("%g", value)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

package main

import (
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/palette"
)

// colors are those of the parts, in their order.
var colors = []color.Color{palette.Grey, palette.Black, palette.Sky, palette.Green,
	palette.Vermilion, palette.Blue, palette.Orange, palette.Purple}

// drawPhases draws a bar for each model and optimizer, stacked of the parts. The unit is an
// iteration of the model's first optimizer.
func drawPhases(file string, results []result) error {
	p := plot.New()
	p.Title.Text = "Where the time of an iteration goes"
	p.Title.Padding = vg.Points(8)
	p.X.Label.Text = fmt.Sprintf("time, in iterations of %s", results[0].lines[0].name)
	p.X.Min = 0
	grid := plotter.NewGrid() // behind the bars
	grid.Horizontal.Color = nil
	p.Add(grid)
	var names []string
	values := make([]plotter.Values, len(parts))
	for i := len(results) - 1; i >= 0; i-- { // the first on top
		r := results[i]
		for j := len(r.lines) - 1; j >= 0; j-- {
			l := r.lines[j]
			names = append(names, fmt.Sprintf("%s %d %s, %s", r.model, r.batch, r.dtype, l.name))
			for k := range parts {
				values[k] = append(values[k], l.parts[k]/r.lines[0].seconds)
			}
		}
		if i > 0 {
			names = append(names, "")
			for k := range parts {
				values[k] = append(values[k], 0)
			}
		}
	}
	var below *plotter.BarChart
	for k, part := range parts {
		bars, err := plotter.NewBarChart(values[k], vg.Points(11))
		if err != nil {
			return err
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, colors[k], 0
		if below != nil {
			bars.StackOn(below)
		}
		p.Add(bars)
		p.Legend.Add(part.name, bars)
		below = bars
	}
	p.NominalY(names...)
	p.Legend.Top, p.Legend.Padding, p.Legend.XOffs = true, vg.Points(3), vg.Points(-4)
	p.X.Max *= 1.35 // room for the legend
	sans(p)
	height := vg.Length(len(names)+6) * vg.Points(17)
	canvas := vgimg.NewWith(vgimg.UseWH(600*vg.Inch/72, height), vgimg.UseDPI(192)) // 800 pixels on a page
	p.Draw(draw.Crop(draw.New(canvas), 8, -8, 4, -4))
	return write(file, canvas)
}

// sans gives a plot the type of the other figures.
func sans(p *plot.Plot) {
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant, style.Font.Size = "Sans", 11*vg.Inch/72
	}
}

// write writes a PNG file.
func write(file string, canvas *vgimg.Canvas) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(out); err != nil {
		return err
	}
	return out.Close()
}

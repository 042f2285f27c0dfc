package report

import (
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/palette"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A theme draws in the colors of a palette.
type theme struct{ palette.Theme }

var dashes = [][]vg.Length{nil, {6, 3}, {2, 2}, {6, 2, 2, 2}, {10, 3}}

// A figure is 1600 pixels wide, for 800 on the page: its text then has the size of that around it.
const (
	width     = 600 * vg.Inch / 72
	dpi       = 192
	textSize  = 11 * vg.Inch / 72
	titleSize = 13 * vg.Inch / 72
)

// An axis is what the error is drawn against.
type axis struct {
	label string
	at    func(trial.Point) float64
	shown func(*trial.Curve, trial.Point) bool
}

var (
	updates = axis{
		"updates",
		func(p trial.Point) float64 { return float64(p.Updates) },
		func(c *trial.Curve, p trial.Point) bool { return p.Updates <= c.Steps },
	}
	seconds = axis{
		"training time in seconds",
		func(p trial.Point) float64 { return p.Seconds },
		func(*trial.Curve, trial.Point) bool { return true },
	}
)

// Plot writes a PNG file with two panels: the error, on a logarithmic axis, against the updates
// that all have made, and against the training seconds. Errors that are not positive are left out.
func Plot(file, title, quantity string, curves []*trial.Curve) error {
	return theme{palette.Light}.write(file, title, quantity, curves, updates, seconds)
}

// Seconds writes PNG files with the second panel alone, on light ground and on dark. It returns
// their names, which begin with name.
func Seconds(name, title, quantity string, curves []*trial.Curve) (files []string, err error) {
	files = []string{name + ".png", name + "-dark.png"}
	for i, t := range []theme{{palette.Light}, {palette.Dark}} {
		if err := t.write(files[i], title, quantity, curves, seconds); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// write draws a title, the key, and below them the panels side by side.
func (t theme) write(file, title, quantity string, curves []*trial.Curve, axes ...axis) error {
	image := vgimg.NewWith(vgimg.UseWH(width, width*0.47), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(t.Ground))
	c := draw.New(image)
	top := c.Max.Y - 6
	heading := t.text(titleSize)
	c.FillText(heading, vg.Point{X: c.Min.X + 8, Y: top - heading.Height(title)}, title)
	top = t.key(c, top-heading.Height(title)-10, curves)

	tiles := draw.Tiles{Rows: 1, Cols: len(axes), PadX: 20, PadBottom: 6, PadLeft: 6, PadRight: 16}
	below := draw.Crop(c, 0, 0, 0, top-c.Max.Y)
	for i, a := range axes {
		p, err := t.panel(a, curves)
		if err != nil {
			return err
		}
		// The name of the error axis lies above it: it is often longer than the axis.
		tile, name := tiles.At(below, i, 0), t.text(textSize)
		tile.FillText(name, vg.Point{X: tile.Min.X, Y: tile.Max.Y - name.Height(quantity)}, quantity)
		p.Draw(draw.Crop(tile, 0, 0, 0, -name.Height(quantity)-8))
	}
	return writePNG(file, image.Image())
}

// text is a style that stands on its base line.
func (t theme) text(size vg.Length) text.Style {
	style := plot.New().Title.TextStyle
	style.Color, style.Font.Variant, style.Font.Size = t.Ink, "Sans", size
	style.XAlign, style.YAlign = text.XLeft, text.YBottom
	return style
}

// names are those of optimizers for people.
var names = strings.NewReplacer(
	"kfac-tri-nomomentum", "K-FAC, tridiagonal, no momentum", "kfac-tri", "K-FAC, tridiagonal",
	"kfac-nomomentum", "K-FAC, no momentum", "kfac", "K-FAC",
	"adam", "Adam", "rmsprop", "RMSProp", "nesterov-", "Nesterov momentum ", "momentum", "Momentum",
)

// key names the curves in lines below top, so that no name lies on a curve. It returns where it
// ends.
func (t theme) key(c draw.Canvas, top vg.Length, curves []*trial.Curve) vg.Length {
	const sample, gap, space = 26, 5, 18
	style := t.text(textSize)
	line := style.Height("K") + 5
	x := c.Min.X + 8
	for i, curve := range curves {
		name := names.Replace(curve.Name)
		needs := sample + gap + style.Width(name)
		if x+needs > c.Max.X-8 && i > 0 {
			x, top = c.Min.X+8, top-line
		}
		middle := top - line/2
		stroke := t.stroke(i)
		c.StrokeLine2(stroke, x, middle, x+sample, middle)
		c.FillText(style, vg.Point{X: x + sample + gap, Y: top - line + 3}, name)
		x += needs + space
	}
	return top - line - 6
}

func (t theme) stroke(i int) draw.LineStyle {
	return draw.LineStyle{Color: t.Curves[i%len(t.Curves)], Width: vg.Points(1.7), Dashes: dashes[i%len(dashes)]}
}

// panel draws the curves on axes, the error's a logarithmic one.
func (t theme) panel(a axis, curves []*trial.Curve) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = t.Ground
	p.X.Label.Text = a.label
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Tick.Color = t.Ink, t.Ink
		for _, style := range []*text.Style{&axis.Label.TextStyle, &axis.Tick.Label} {
			style.Color, style.Font.Variant, style.Font.Size = t.Ink, "Sans", textSize
		}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = t.Grid, t.Grid
	p.Add(grid)

	low, high := math.Inf(1), math.Inf(-1)
	for i, c := range curves {
		var xys plotter.XYs
		for _, pt := range c.Points {
			if pt.Error > 0 && a.shown(c, pt) {
				xys = append(xys, plotter.XY{X: a.at(pt), Y: pt.Error})
				low, high = min(low, pt.Error), max(high, pt.Error)
			}
		}
		if len(xys) == 0 {
			continue
		}
		line, err := plotter.NewLine(xys)
		if err != nil {
			return nil, fmt.Errorf("plot of %s: %w", c.Name, err)
		}
		line.LineStyle = t.stroke(i)
		p.Add(line)
	}
	if low > high { // nothing to show
		low, high = 1, 10
	}
	p.Y.Min, p.Y.Max = low/1.1, high*1.1
	p.X.Min, p.X.Max = 0, max(p.X.Max, 1e-3)
	p.X.Tick.Marker = fromZero{}
	return p, nil
}

// logTicks marks the powers of ten with their numbers, as many as there is room for. Where they are
// few, 2 and 5 times these have numbers too, and all multiples within half a decade. Others are
// marked without a number.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	first, last := math.Floor(math.Log10(low)), math.Log10(high)
	every := math.Ceil((last - first) / 8)
	narrow := high/low < math.Sqrt(10)
	for decade := first; decade <= last; decade++ {
		for m := 1.0; m < 10; m++ {
			value := m * math.Pow(10, decade)
			if value < low || value > high {
				continue
			}
			tick := plot.Tick{Value: value}
			if m == 1 && math.Mod(decade, every) == 0 || (m == 2 || m == 5) && last-first < 3 || narrow {
				tick.Label = shortest(value)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// fromZero marks an axis that begins at 0 with 1, 2 or 5 times a power of ten, and its multiples.
type fromZero struct{}

func (fromZero) Ticks(_, high float64) []plot.Tick {
	unit := math.Pow(10, math.Floor(math.Log10(high)))
	step := unit / 5
	switch {
	case high >= 5*unit:
		step = unit
	case high >= 2*unit:
		step = unit / 2
	}
	var ticks []plot.Tick
	for i := 0.0; i*step <= high*(1+1e-9); i++ {
		tick := plot.Tick{Value: i * step}
		if math.Mod(i, 2) == 0 {
			tick.Label = fmt.Sprintf("%.6g", i*step)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// shortest writes 1e-5, not 1e-05 or 0.00001, and 1e9.
func shortest(v float64) string {
	return strings.NewReplacer("e-0", "e-", "e+0", "e", "e+", "e").Replace(fmt.Sprintf("%.3g", v))
}

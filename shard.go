package kfac

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A shard is the part of a chunk that one rank has.
type shard struct {
	seed           [2]uint64
	first, counted int // index of its first case among those of all ranks, and among those that count
	run, cases     int // number of these
}

// of is the number of the cases of all ranks that count, where this one has own.
func (s *shard) of(own int) int {
	if s == nil {
		return own
	}
	return s.cases
}

// from is the index of the first case in a batch, of those that count, where chunks of so many come
// before this.
func (s *shard) from(before int) int {
	if s == nil {
		return before
	}
	return before + s.counted
}

// count counts the cases of all ranks, where this one has own. It returns rank 0's scales, or the
// first of them if there are many, and whether cases have weights on some rank.
func (s *shard) count(own int, weighs bool, scales []float64, on *ranks) (first []float64, weighed bool, err error) {
	said := []float64{float64(own), oneIf(weighs)}
	for _, c := range scales[:min(len(scales), headLength-headNumbers-len(said))] {
		said = append(said, c*oneIf(on.first()))
	}
	if err := on.meet(atCases, nil, addresses(said)...); err != nil {
		return nil, false, err
	}
	s.cases = int(said[0])
	return said[2:], said[1] > 0, nil
}

// place finds the place of this rank's own cases among those that count, on all ranks.
func (s *shard) place(own int, on *ranks) error {
	s.counted = s.first
	if s.cases == s.run {
		return nil
	}
	s.counted, s.cases = 0, 0
	for rank, n := range on.table(float64(own)) {
		if rank < on.Rank() {
			s.counted += int(n)
		}
		s.cases += int(n)
	}
	return on.broken.orNil()
}

func addresses(x []float64) (list []*float64) {
	for i := range x {
		list = append(list, &x[i])
	}
	return list
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// random makes source that of an output in a sweep, on a case of this rank.
func (s *shard) random(source *rand.PCG, sweep, output, row int) {
	s.reseed(source, sweep, output, s.first+row)
}

// reseed makes source one that is the same on all ranks.
func (s *shard) reseed(source *rand.PCG, by ...int) {
	var d digest
	for _, n := range by {
		d = d.with(uint64(n))
	}
	source.Seed(uint64(d.with(s.seed[0])), uint64(d.with(s.seed[1])))
}

// choose chooses n of the cases of all ranks that count, the same on each. It returns those of this
// rank, which has own that count, by their place among these. perm is scratch.
func (s *shard) choose(n, purpose, own int, perm []int) []int {
	perm = slices.Grow(perm[:0], s.cases)[:s.cases]
	for i := range perm {
		perm[i] = i
	}
	var source rand.PCG
	s.reseed(&source, purpose)
	shuffle(perm, n, rand.New(&source))
	chosen := perm[:0]
	for _, at := range perm[:n] {
		if at -= s.counted; at >= 0 && at < own {
			chosen = append(chosen, at)
		}
	}
	return chosen
}

// shuffle puts a random choice of n elements in front.
func shuffle(x []int, n int, rng *rand.Rand) {
	for i := range min(n, len(x)-1) {
		j := i + rng.IntN(len(x)-i)
		x[i], x[j] = x[j], x[i]
	}
}

// A digest tells numbers and texts apart.
type digest uint64

// with is the digest of more words.
func (d digest) with(words ...uint64) digest {
	for _, w := range words { // by the mixing function of splitmix64
		x := uint64(d) + 0x9e3779b97f4a7c15 + w
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		d = digest(x ^ x>>31)
	}
	return d
}

func (d digest) withText(s string) digest {
	for _, b := range []byte(s) {
		d = d.with(uint64(b))
	}
	return d
}

// number is one that a float64 holds.
func (d digest) number() float64 { return float64(d >> 12) }

// digestOf is the digest of numbers.
func digestOf[T program.Float](x []T) (d digest) {
	for _, v := range x {
		d = d.with(math.Float64bits(float64(v)))
	}
	return d
}

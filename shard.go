package kfac

import (
	"math"
	"math/rand/v2"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A shard is the part of a chunk that one rank has.
type shard struct {
	seed       [2]uint64
	first      int // index of its first case among those of all ranks
	cases, run int // of all ranks: that count, and that there are
}

// of is the number of the cases of all ranks that count, where this one has own.
func (s *shard) of(own int) int {
	if s == nil {
		return own
	}
	return s.cases
}

// from is the index of the first case in a batch, where chunks of so many cases come before this.
func (s *shard) from(before int) int {
	if s == nil {
		return before
	}
	return before + s.first
}

// all is the number of cases of all ranks, where this one has own.
func (s *shard) all(own int) int {
	if s == nil {
		return own
	}
	return s.run
}

// count counts the cases of all ranks, where this one has own. It returns rank 0's scales, or the
// first of them if there are many.
func (s *shard) count(own int, scales []float64, on *ranks) (first []float64, err error) {
	if s == nil {
		return nil, nil
	}
	said := []float64{float64(own)}
	for _, c := range scales[:min(len(scales), headLength-headNumbers-1)] {
		said = append(said, c*oneIf(on.first()))
	}
	if err := on.meet(atCases, nil, addresses(said)...); err != nil {
		return nil, err
	}
	s.cases = int(said[0])
	return said[1:], nil
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
	d := digest(0).with(uint64(sweep), uint64(output), uint64(s.first+row))
	source.Seed(uint64(d.with(s.seed[0])), uint64(d.with(s.seed[1])))
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

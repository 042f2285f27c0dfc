// Package batch draws mini-batches: every case once an epoch, in an order that a seed fixes.
package batch

import "math/rand/v2"

// A Sampler cuts the shuffled training cases into batches. At the end of an epoch it shuffles anew.
// A batch that the epoch cannot fill is filled from the next one, so all batches have the same
// size.
type Sampler struct {
	batch []int
	order []int // of the current epoch
	used  int   // leading entries of order that were handed out
	rng   *rand.Rand
}

// NewSampler returns a sampler of batches of the given size from cases 0 .. cases-1; both must be
// positive. Samplers with equal arguments give equal batches.
func NewSampler(cases, size int, seed uint64) *Sampler {
	s := &Sampler{
		batch: make([]int, size),
		order: make([]int, cases),
		rng:   rand.New(rand.NewPCG(seed, 0)),
	}
	for i := range s.order {
		s.order[i] = i
	}
	s.shuffle()
	return s
}

func (s *Sampler) shuffle() {
	s.rng.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
	s.used = 0
}

// Next returns the cases of the next batch. The slice is overwritten by the next call.
func (s *Sampler) Next() []int {
	for filled := 0; filled < len(s.batch); {
		if s.used == len(s.order) {
			s.shuffle()
		}
		n := copy(s.batch[filled:], s.order[s.used:])
		s.used += n
		filled += n
	}
	return s.batch
}

package kfac

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// Ranks send each other inverses, or the directions that these make, as placement.go has it. What
// is sent has the bits that were computed, so that the training is the same wherever a block is.

// invert computes the inverses of all blocks, each where it is at home. One that fails is computed
// anew on every rank.
func (d *distributed[T]) invert(blocks []*block[T], avg, shares averages[T], gamma, eta float64) (
	*inverses[T], error) {
	of := invertAll(blocks, avg, gamma, eta, d.ranks)
	if err := d.exchange(blocks, of); err != nil {
		release(of)
		return nil, err
	}
	return inversesOf(blocks, of, func(i int, failure error) (curvature.Inverse[T], error) {
		var share *curvature.Averages[T]
		own := dampingOf(blocks[i], gamma, eta)
		if !blocks[i].home.computes(d.ranks) {
			failure = failureOf(blocks[i], avg[i], own, failure)
		}
		v, err := restarted(blocks[i], avg, i, own, failure, func() (_ *curvature.Averages[T], err error) {
			share, err = blocks[i].Restart()
			whole, err := d.whole(blocks[i:i+1], averages[T]{share}, err)
			if err != nil {
				return nil, err
			}
			return whole[0], nil
		})
		if share != nil && err == nil {
			share, shares[i] = shares[i], share
		}
		if share != nil {
			blocks[i].Release(share)
		}
		if err == nil && !blocks[i].home.has(d.ranks) {
			defer v.Release()
			v = abroadOf(v)
		}
		return v, err
	})
}

// failureOf is the error of an inversion that has failed elsewhere, with that error.
func failureOf[T program.Float](b *block[T], avg *curvature.Averages[T], gamma tikhonov, there error) error {
	making := b.Invert(avg, gamma)
	making.Run()
	v, err := making.Inverse()
	if err != nil {
		return err
	}
	v.Release()
	return there
}

// release gives back what has come of inversions.
func release[T program.Float](of []outcome[T]) {
	for _, o := range of {
		if o.inverse != nil {
			o.inverse.Release()
		}
	}
}

// direct computes the directions from the gradients: U = (F + damping)^-1 V.
func (d *distributed[T]) direct(made *inverses[T], blocks []*block[T], params []*parameter[T],
	low *lowRanks[T]) error {
	made.apply(blocks, low, d.ranks)
	if err := d.sendDirections(blocks); err != nil {
		return err
	}
	return directAll(blocks, params)
}

// sendDirections sends those that only one rank has made.
func (d *distributed[T]) sendDirections(blocks []*block[T]) error {
	if !slices.ContainsFunc(blocks, func(b *block[T]) bool { return b.home.sole }) {
		return nil
	}
	if err := d.meet(atDirections, nil); err != nil {
		return err
	}
	for root := range d.Size() {
		var directions [][]T
		for _, b := range blocks {
			if b.home.sole && b.home.rank == root+1 {
				directions = append(directions, b.u...)
			}
		}
		sendAll(d.ranks, &d.buffer, directions, root)
	}
	return d.broken.orNil()
}

// exchange sends the outcomes for blocks from the ranks that have computed them to the others. What
// these have for an inverse is then one of their own, or abroad.
func (d *distributed[T]) exchange(blocks []*block[T], of []outcome[T]) error {
	if !slices.ContainsFunc(blocks, func(b *block[T]) bool { return b.home.rank > 0 }) {
		return nil
	}
	if err := d.meet(atInverses, nil); err != nil {
		return err
	}
	const columns = 3
	parcels, table := make([]*parcel[T], len(blocks)), make([]float64, columns*len(blocks))
	for i, b := range blocks {
		parcels[i] = &parcel[T]{}
		if b.home.rank == 0 || !b.home.computes(d.ranks) {
			continue
		}
		table[columns*i] = oneIf(of[i].err != nil)
		if of[i].err == nil {
			parcels[i].pack(b, of[i].inverse)
		}
		table[columns*i+1], table[columns*i+2] = float64(len(parcels[i].numbers)), float64(len(parcels[i].wide))
	}
	addUp(d.ranks, table)
	for i, p := range parcels {
		p.expect(int(table[columns*i+1]), int(table[columns*i+2]))
	}
	if err := d.deliver(blocks, parcels); err != nil {
		return err
	}
	for i, b := range blocks {
		switch {
		case b.home.computes(d.ranks):
		case table[columns*i] > 0:
			of[i].err = ErrNotPosDef
		default:
			of[i].inverse = parcels[i].unpack(b)
		}
	}
	return nil
}

// deliver sends parcels from the homes of blocks to all ranks, small ones together.
func (d *distributed[T]) deliver(blocks []*block[T], parcels []*parcel[T]) error {
	for root := range d.Size() {
		var numbers [][]T
		var wide [][]float64
		for i, p := range parcels {
			if blocks[i].home.rank == root+1 {
				numbers, wide = append(numbers, p.numbers), append(wide, p.wide)
			}
		}
		sendAll(d.ranks, &d.buffer, numbers, root)
		sendAll(d.ranks, &d.sums, wide, root)
	}
	return d.broken.orNil()
}

// sendAll sends slices of rank root, those that are small together.
func sendAll[T program.Float](r *ranks, buffer *[]T, slices [][]T, root int) {
	small := func(visit func(x []T)) {
		for _, x := range slices {
			if len(x) < largeAlone {
				visit(x)
			}
		}
	}
	*buffer = (*buffer)[:0]
	small(func(x []T) { *buffer = append(*buffer, x...) })
	send(r, *buffer, root)
	rest := *buffer
	small(func(x []T) { rest = rest[copy(x, rest):] })
	for _, x := range slices {
		if len(x) >= largeAlone {
			send(r, x, root)
		}
	}
}

// A parcel is an inverse on its way. It is a Visitor that writes until there is something to read.
type parcel[T program.Float] struct {
	numbers []T
	wide    []float64
	read    bool
}

// pack packs an inverse, or what other ranks have to know of one that they don't get.
func (p *parcel[T]) pack(b *block[T], inverse curvature.Inverse[T]) {
	if !b.home.sole {
		inverse.State(p)
		return
	}
	p.wide = append(append(p.wide, float64(inverse.Raised())), inverse.Dampings()...)
}

// unpack returns what was packed.
func (p *parcel[T]) unpack(b *block[T]) curvature.Inverse[T] {
	if b.home.sole {
		return abroad[T]{int(p.wide[0]), p.wide[1:]}
	}
	return p.fill(b.NewInverse())
}

// fill puts what was packed into an inverse.
func (p *parcel[T]) fill(inverse curvature.Inverse[T]) curvature.Inverse[T] {
	from := &parcel[T]{p.numbers, p.wide, true}
	inverse.State(from)
	return inverse
}

// expect makes room for what another rank has packed.
func (p *parcel[T]) expect(numbers, wide int) {
	if len(p.numbers) != numbers || len(p.wide) != wide {
		p.numbers, p.wide = make([]T, numbers), make([]float64, wide)
	}
}

func (p *parcel[T]) Reads() bool { return p.read }

func (p *parcel[T]) Tensor(_ string, x []T, _ ...int) {
	if p.read {
		p.numbers = p.numbers[copy(x, p.numbers):]
	} else {
		p.numbers = append(p.numbers, x...)
	}
}

func (p *parcel[T]) Wide(_ string, x []float64) {
	if p.read {
		p.wide = p.wide[copy(x, p.wide):]
	} else {
		p.wide = append(p.wide, x...)
	}
}

func (p *parcel[T]) Count(name string, n *int) {
	x := []float64{float64(*n)}
	p.Wide(name, x)
	*n = int(x[0])
}

// exchangeJobs exchanges what has come of jobs, each once, or fails with err.
func (d *distributed[T]) exchangeJobs(blocks []*block[T], jobs map[*block[T]]*job[T], err error) error {
	var of []*block[T]
	var outcomes []outcome[T]
	for _, b := range blocks {
		if j := jobs[b]; j != nil && !j.exchanged {
			v, failure := j.collect()
			of, outcomes, err = append(of, b), append(outcomes, outcome[T]{v, failure}), firstOf(err, j.panicked)
		}
	}
	if d.ranks == nil || len(of) == 0 {
		return err
	}
	if err := d.meet(atJobs, err); err != nil {
		return err
	}
	if err := d.exchange(of, outcomes); err != nil {
		return err
	}
	for i, b := range of {
		j := jobs[b]
		j.inverse, j.err, j.exchanged = outcomes[i].inverse, outcomes[i].err, true
	}
	return nil
}

// lend gives rank 0 the inverses that it has not, to be saved. back gives them back.
func (d *distributed[T]) lend(blocks []*block[T], jobs map[*block[T]]*job[T]) (back func(), err error) {
	back = func() {}
	if d.ranks == nil {
		return back, nil
	}
	if err := d.exchangeJobs(blocks, jobs, nil); err != nil {
		return back, err
	}
	var at []*curvature.Inverse[T] // that are abroad for rank 0
	var of []*block[T]
	for _, b := range blocks {
		if !b.home.sole {
			continue
		}
		if b.inverse != nil {
			at, of = append(at, &b.inverse), append(of, b)
		}
		if j := jobs[b]; j != nil && j.err == nil {
			at, of = append(at, &j.inverse), append(of, b)
		}
	}
	before := make([]curvature.Inverse[T], len(at))
	for i, b := range of { // one at a time, since together they may be large
		before[i] = *at[i]
		var p parcel[T]
		if b.home.computes(d.ranks) {
			before[i].State(&p)
		}
		lengths := []float64{float64(len(p.numbers)), float64(len(p.wide))}
		send(d.ranks, lengths, b.home.rank-1)
		p.expect(int(lengths[0]), int(lengths[1]))
		send(d.ranks, p.numbers, b.home.rank-1)
		send(d.ranks, p.wide, b.home.rank-1)
		if err = d.broken.orNil(); err != nil {
			break
		}
		if d.first() && !b.home.computes(d.ranks) {
			*at[i] = p.fill(b.NewInverse())
		}
	}
	return func() {
		for i, v := range before {
			if v != nil {
				*at[i] = v // what was lent is in the file, and belongs to nobody else
			}
		}
	}, err
}

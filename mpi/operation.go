package mpi

import (
	"fmt"

	"cogentcore.org/lab/base/mpi"

	"github.com/gorgonia-kfac/kfac"
)

// operation is what all ranks have to call.
type operation struct {
	what   int // leave, sum or broadcast
	bits   int // of a number
	length int
	root   int // of a broadcast
}

const (
	leave = iota
	sum
	broadcast
)

const fields = 4

func (o operation) numbers() [fields]int64 {
	return [fields]int64{int64(o.what), int64(o.bits), int64(o.length), int64(o.root)}
}

func (o operation) String() string {
	switch o.what {
	case leave:
		return "the end"
	case sum:
		return fmt.Sprintf("all-reduce of %d float%d", o.length, o.bits)
	}
	return fmt.Sprintf("broadcast of %d float%d from rank %d", o.length, o.bits, o.root)
}

// check returns an error, the same on all ranks, unless all have come with the same operation.
func (c *Communicator) check(op operation) error {
	if c.size > 1 {
		for i, v := range op.numbers() {
			c.own[i], c.own[fields+i] = v, -v
		}
		if err := c.world.AllReduceI64(mpi.OpMax, c.most, c.own); err != nil {
			return err
		}
		for i, most := range c.most[:fields] {
			if least := -c.most[fields+i]; least != most {
				return c.difference()
			}
		}
	}
	if op.root < 0 || op.root >= c.size {
		return &kfac.RankError{Rank: c.rank, Op: fmt.Sprintf("%v of %d", op, c.size), Err: kfac.ErrOutOfStep}
	}
	return nil
}

// difference tells all ranks which has left, or calls another operation than rank 0.
func (c *Communicator) difference() error {
	all := make([]int64, fields*c.size)
	if err := c.world.AllGatherI64(all, c.own[:fields]); err != nil {
		return err
	}
	at := func(rank int) operation {
		n := all[fields*rank:]
		return operation{int(n[0]), int(n[1]), int(n[2]), int(n[3])}
	}
	other := 0
	for rank := range c.size {
		switch {
		case at(rank).what == leave:
			return &kfac.RankError{Rank: rank, Op: "waiting for it", Err: kfac.ErrRankLeft}
		case other == 0 && at(rank) != at(0):
			other = rank
		}
	}
	return &kfac.RankError{Rank: other, Op: fmt.Sprintf("%v, where rank 0 has called %v", at(other), at(0)),
		Err: kfac.ErrOutOfStep}
}

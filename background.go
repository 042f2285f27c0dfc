package kfac

import "github.com/gorgonia-kfac/kfac/internal/program"

// background has inverses computed beside the training steps (WithBackgroundInverses), a few blocks at a time: after the steps of a period T3 the blocks
// have their turns, each from a copy of its averages, and what comes of it is taken up at a fixed later step. So the result does not depend on how long it
// took.
type background[T program.Float] struct {
	jobs map[block[T]]*inversion
	anew bool // the step in progress has computed all inverses itself
	redo bool // the next step has to, since one in the background has failed
}

// An inversion is in progress or waits for its step.
type inversion struct {
	due  int // the step that takes it up
	done chan struct{}
}

// launch gives the blocks whose turn it is after step k to a goroutine each.
func (g *background[T]) launch(blocks []block[T], k, period, lag int, gamma float64) {
	if k < firstInverses {
		return // the next step computes all anew
	}
	for i, b := range blocks {
		if k%period != i*period/len(blocks) || g.jobs[b] != nil {
			continue
		}
		b.freeze(true)
		first, then := b.inversions(gamma)
		if first == nil {
			b.freeze(false)
			continue
		}
		job := &inversion{due: k + lag, done: make(chan struct{})}
		go func() {
			defer close(job.done)
			for _, f := range first {
				f()
			}
			for _, f := range then {
				f()
			}
		}()
		if g.jobs == nil {
			g.jobs = map[block[T]]*inversion{}
		}
		g.jobs[b] = job
	}
	for b, job := range g.jobs {
		if k >= job.due+period { // the graphs lack its parameters, or it has been replaced
			g.drop(b)
		}
	}
}

// due reports whether a block takes up a new inverse at step k, and waits for it.
func (g *background[T]) due(b block[T], k int) bool {
	job := g.jobs[b]
	if job == nil || k < job.due {
		return false
	}
	<-job.done
	return true
}

// drop forgets a block's inversion, if there is one, when it has come to its end.
func (g *background[T]) drop(b block[T]) {
	if job := g.jobs[b]; job != nil {
		<-job.done
		b.freeze(false)
		delete(g.jobs, b)
	}
}

// takeUp reports the failures of the inversions that are due at step k. The next step computes all inverses anew then.
func (c *conductor[T]) takeUp(k int) (raised int, found bool, err error) {
	for _, b := range c.blocks {
		if !c.background.due(b, k) {
			continue
		}
		n, err := b.inverted()
		if err != nil {
			c.background.drop(b)
			c.background.redo = true
			return 0, false, err
		}
		raised, found = raised+n, true
	}
	return raised, found, nil
}

// refreshes reports whether step k computes all inverses.
func (c *conductor[T]) refreshes(k int) bool {
	if c.cfg.backgroundLag > 0 {
		return k <= firstInverses || c.background.redo || c.needsInverses()
	}
	return k <= firstInverses || k%c.period == 0 || c.needsInverses()
}

// firstInverses is the number of first steps that compute the inverses whatever the period is (Martens & Grosse 2015, section 8).
const firstInverses = 3

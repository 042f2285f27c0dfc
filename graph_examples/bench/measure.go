package main

import (
	"runtime"
	"slices"
	"time"

	"github.com/gorgonia-kfac/kfac"
)

// A subject is what is measured.
type subject struct {
	model string
	dtype string
	batch int
}

// A result is what came out, per optimizer.
type result struct {
	subject
	rateAlone float64 // of the BLAS's square products in this run, GFLOP/s
	lines     []line
}

// A line is about an iteration of one optimizer. Its figures are medians over the rounds of the
// means over a round's iterations.
type line struct {
	name      string
	seconds   float64 // RunAll and Step
	ratio     float64 // of the seconds to those of the first optimizer in the same round
	processor float64 // seconds of the processors, in all of them together; 0: not measured
	cpuRatio  float64 // of these to those of the first optimizer in the same round
	slowest   float64 // iteration of a round, over its median one
	parts     []float64
	products  products // of an iteration
	allocated float64  // by Step, bytes
	mallocs   float64  // by Step
	peak      int64    // bytes in memory, of a process of its own; 0: not measured
}

// parts are where the time of an iteration goes, in the order in which they are drawn.
var parts = []struct {
	name string
	of   func(kfac.PhaseTimes) time.Duration
}{
	{"RunAll", nil},
	{"gradients, update", func(t kfac.PhaseTimes) time.Duration { return t.Gradients + t.Update + t.Checks }},
	{"capture", func(t kfac.PhaseTimes) time.Duration { return t.Capture }},
	{"factors", func(t kfac.PhaseTimes) time.Duration { return t.Factors }},
	{"inverses", func(t kfac.PhaseTimes) time.Duration { return t.Inverses }},
	{"precondition", func(t kfac.PhaseTimes) time.Duration { return t.Precondition }},
	{"model", func(t kfac.PhaseTimes) time.Duration { return t.Model }},
	{"rho", func(t kfac.PhaseTimes) time.Duration { return t.Rho }},
}

// A tally sums up iterations.
type tally struct {
	each               []float64 // seconds of the iterations
	run, step          time.Duration
	processor          time.Duration
	parts              []time.Duration
	products           products
	allocated, mallocs uint64
}

// iterate does an iteration and adds it to the tally.
func (t *trainer) iterate(sum *tally, blas *counter) error {
	t.model.nextBatch()
	var before, after runtime.MemStats
	counted, processor := blas.read(), processorTime()
	start := time.Now()
	if err := t.vm.RunAll(); err != nil {
		return err
	}
	run := time.Since(start)
	runtime.ReadMemStats(&before)
	start = time.Now()
	if err := t.solver.Step(t.list); err != nil {
		return err
	}
	step := time.Since(start)
	runtime.ReadMemStats(&after)
	start = time.Now()
	t.vm.Reset()
	run += time.Since(start)
	sum.processor += processorTime() - processor
	sum.products = sum.products.plus(blas.read().minus(counted))
	sum.each = append(sum.each, (run + step).Seconds())
	sum.run += run
	sum.step += step
	sum.allocated += after.TotalAlloc - before.TotalAlloc
	sum.mallocs += after.Mallocs - before.Mallocs
	if sum.parts == nil {
		sum.parts = make([]time.Duration, len(parts))
	}
	sum.parts[0] += run
	if st, ok := t.stats(); ok {
		for i, p := range parts[1:] {
			sum.parts[i+1] += p.of(st.Time)
		}
	} else {
		sum.parts[1] += step
	}
	return nil
}

// measure does the rounds. In a round the optimizers take turns at each iteration, so that other
// work of the machine hits all of them.
func measure(sub subject, s settings, blas *counter) (result, error) {
	r := result{subject: sub}
	var trainers []*trainer
	for _, name := range s.optimizers {
		t, err := newTrainer(name, newModel(sub.dtype, sub.batch, s.shrink, s.seed, models[sub.model].build), s.seed)
		if err != nil {
			return r, err
		}
		defer t.close()
		trainers = append(trainers, t)
	}
	warm := make([]tally, len(trainers))
	for range s.warmup {
		for i, t := range trainers {
			if err := t.iterate(&warm[i], blas); err != nil {
				return r, err
			}
		}
	}
	rounds := make([][]tally, len(trainers)) // by optimizer
	var alone []float64
	for range s.rounds {
		alone = append(alone, blas.rateAlone(sub.dtype))
		sums := make([]tally, len(trainers))
		for range s.steps {
			for i, t := range trainers {
				if err := t.iterate(&sums[i], blas); err != nil {
					return r, err
				}
			}
		}
		for i := range sums {
			rounds[i] = append(rounds[i], sums[i])
		}
	}
	r.rateAlone = median(alone)
	for i, t := range trainers {
		l := summarise(t.name, rounds[i], rounds[0])
		if s.memory {
			l.peak = peakOf(sub, t.name, s)
		}
		r.lines = append(r.lines, l)
	}
	return r, nil
}

func summarise(name string, rounds, first []tally) line {
	l := line{name: name, parts: make([]float64, len(parts))}
	over := func(f func(i int, t tally) float64) float64 {
		var all []float64
		for i, t := range rounds {
			all = append(all, f(i, t))
		}
		return median(all)
	}
	mean := func(t tally, sum float64) float64 { return sum / float64(len(t.each)) }
	seconds := func(t tally) float64 { return mean(t, (t.run + t.step).Seconds()) }
	l.seconds = over(func(_ int, t tally) float64 { return seconds(t) })
	l.ratio = over(func(i int, t tally) float64 { return seconds(t) / seconds(first[i]) })
	processor := func(t tally) float64 { return mean(t, t.processor.Seconds()) }
	l.processor = over(func(_ int, t tally) float64 { return processor(t) })
	l.cpuRatio = over(func(i int, t tally) float64 { return processor(t) / processor(first[i]) })
	l.slowest = over(func(_ int, t tally) float64 { return slices.Max(t.each) / median(t.each) })
	for p := range parts {
		l.parts[p] = over(func(_ int, t tally) float64 { return mean(t, t.parts[p].Seconds()) })
	}
	l.products.operations = over(func(_ int, t tally) float64 { return mean(t, t.products.operations) })
	l.products.seconds = over(func(_ int, t tally) float64 { return mean(t, t.products.seconds) })
	l.allocated = over(func(_ int, t tally) float64 { return mean(t, float64(t.allocated)) })
	l.mallocs = over(func(_ int, t tally) float64 { return mean(t, float64(t.mallocs)) })
	return l
}

// median sorts x. It is NaN of nothing.
func median(x []float64) float64 {
	slices.Sort(x)
	n := len(x)
	return (x[(n-1)/2] + x[n/2]) / 2
}

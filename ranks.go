package kfac

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// ranks is the way of a training to the other ranks; nil if there are none. A call that all ranks
// make together goes from meeting to meeting. At each every rank says whether it has failed since
// the last. If one has, all get the same *RankError and give up. So a rank may fail anywhere: by
// leaving the call it goes to the next meeting, and nobody waits for it in vain.
//
// What is summed up between meetings can't fail but for the communicator. If that does, the next
// meeting returns its error, and so does every later one.
type ranks struct {
	Communicator
	busy   atomic.Bool // in a call
	call   string
	told   *RankError // what all ranks were told last
	left   bool       // a rank has left the call
	broken *RankError // of the communicator
	head   [headLength]float64
}

// headLength is the number of those that all ranks say at a meeting: whether they have failed,
// where they are, and up to headLength - headNumbers numbers to be summed.
const headLength, headNumbers = 16, 3

// leaving is what a rank says that leaves the call: more than all that have failed.
const leaving = 1 << 30

// A meeting is a place in a call where all ranks say how they are.
type meeting int

const (
	atLeaving meeting = iota // the call, with an error
	atStart
	atCases
	atUnits
	atOutputs
	atSweep
	atGradient
	atAverages
	atJobs
	atInverses
	atDirections
	atProducts
	atObjective
	atHalves
	atCommit
)

// together makes a call that all ranks make. If f fails on one, it fails on all.
func (r *ranks) together(call string, f func() error) error {
	if r == nil {
		return f()
	}
	if !r.busy.CompareAndSwap(false, true) {
		return &ConfigError{call, "a call during another one of the same Solver", "one call at a time"}
	}
	defer r.busy.Store(false)
	r.call, r.told, r.left = call, nil, false
	err := f()
	var told *RankError
	if err == nil || r.broken != nil || errors.As(err, &told) && told == r.told {
		return err
	}
	return r.meet(atLeaving, err)
}

// meet meets the other ranks. err is what this one has failed with. The numbers x are summed.
func (r *ranks) meet(at meeting, err error, x ...*float64) error {
	switch {
	case r == nil:
		return err
	case r.broken != nil:
		return r.broken
	}
	head := r.head[:]
	clear(head)
	place := float64(r.place(at))
	head[1], head[2] = place, place*place
	if err != nil {
		head[0] = 1
	}
	if at == atLeaving {
		head[0] = leaving
	}
	for i, v := range x {
		head[headNumbers+i] = *v
	}
	addUp(r, head)
	size := float64(r.Size())
	r.left = head[0] >= leaving
	switch {
	case r.broken != nil:
		return r.broken
	case head[0] > 0:
		return r.tell(err)
	case head[1] != size*place || head[2] != size*place*place: // some are elsewhere
		return r.outOfStep()
	}
	for i, v := range x {
		*v = head[headNumbers+i]
	}
	return nil
}

// over reports whether a rank has left the call, which no other one can go on with then.
func (r *ranks) over() bool { return r != nil && (r.left || r.broken != nil) }

// others reports whether there are other ranks.
func (r *ranks) others() bool { return r != nil && r.Size() > 1 }

// first reports whether this is rank 0, or there are none.
func (r *ranks) first() bool { return r == nil || r.Rank() == 0 }

// file sends rank 0's file to all ranks, or fails with err.
func (r *ranks) file(file []byte, err error) ([]byte, error) {
	length := float64(len(file))
	if err := r.meet(atStart, err, &length); err != nil || r == nil {
		return file, err
	}
	const each = 6 // bytes in a number
	x := make([]float64, (int(length)+each-1)/each)
	for i, b := range file {
		x[i/each] = x[i/each]*256 + float64(b)
	}
	send(r, x, 0)
	if !r.first() {
		file = make([]byte, int(length))
		for i := len(file) - 1; i >= 0; i-- {
			whole := math.Floor(x[i/each] / 256)
			file[i], x[i/each] = byte(x[i/each]-256*whole), whole
		}
	}
	return file, r.broken.orNil()
}

// seed is what the seeds of a rank's own random numbers differ by.
func (r *ranks) seed() uint64 {
	if r == nil {
		return 0
	}
	return uint64(r.Rank()) << 48
}

// place is a meeting in the present call as a number.
func (r *ranks) place(at meeting) (n int) {
	for _, c := range r.call {
		n = (31*n + int(c)) % 4093
	}
	return 100*n + int(at)
}

// tell tells all ranks the error of the first that has one.
func (r *ranks) tell(err error) error {
	texts := r.gather(written(err))
	if r.broken != nil {
		return r.broken
	}
	for rank, text := range texts {
		if text == "" {
			continue
		}
		if rank != r.Rank() {
			err = read(text)
		}
		return r.agree(&RankError{Rank: rank, Op: r.call, Err: err})
	}
	return err
}

// outOfStep tells all ranks that they are at different places.
func (r *ranks) outOfStep() error {
	calls := r.gather(r.call)
	if r.broken != nil {
		return r.broken
	}
	e := &RankError{Op: r.call, Err: ErrOutOfStep,
		Hint: "all ranks have to make the same calls of the solver, in the same order"}
	for rank, call := range calls {
		if call != calls[0] {
			e.Rank, e.Op = rank, fmt.Sprintf("%s, where rank 0 is in %s", call, calls[0])
			break
		}
	}
	return r.agree(e)
}

// agree notes that all ranks have the same error.
func (r *ranks) agree(err *RankError) error {
	r.told = err
	return err
}

// A distant error is what an error of another rank says.
type distant struct {
	text string
	is   error // of causes, or nil
}

func (e *distant) Error() string { return e.text }
func (e *distant) Unwrap() error { return e.is }

// causes are what errors.Is finds in an error of another rank.
var causes = []error{errGradientNotFinite, ErrNotFinite, ErrNotPosDef, ErrNoGradient, ErrNoValue, ErrOtherList,
	ErrForeign, ErrShape, ErrEmpty, ErrLoss, ErrNotInferred, ErrGradient, ErrStale, ErrAveraged, ErrSameName,
	ErrOtherWeights, ErrSharedMemory, ErrTruncated, ErrDamaged, ErrForeignFile, ErrNewerFile, ErrOlderFile,
	ErrOtherModel,
	ErrOtherSettings, ErrInner, ErrInUpdate, ErrStrict, ErrOutOfStep}

// written is an error as a text for other ranks; read reads it.
func written(err error) string {
	if err == nil {
		return ""
	}
	for i, cause := range causes {
		if errors.Is(err, cause) {
			return fmt.Sprintf("%d:%v", i, err)
		}
	}
	return fmt.Sprintf("%d:%v", len(causes), err)
}

func read(text string) error {
	number, message, _ := strings.Cut(text, ":")
	e := &distant{text: message}
	if i, err := strconv.Atoi(number); err == nil && i < len(causes) {
		e.is = causes[i]
	}
	return e
}

// gather returns the texts of all ranks, by rank.
func (r *ranks) gather(own string) []string {
	size := r.Size()
	lengths := r.table(float64(len(own)))
	texts := make([]string, size)
	total, at := 0, 0
	for rank := range size {
		if rank == r.Rank() {
			at = total
		}
		total += int(lengths[rank])
	}
	all := make([]float64, total)
	for i, b := range []byte(own) {
		all[at+i] = float64(b)
	}
	addUp(r, all)
	for rank := range size {
		n := int(lengths[rank])
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(all[i])
		}
		texts[rank], all = string(text), all[n:]
	}
	return texts
}

// table returns what all ranks give, one after the other.
func (r *ranks) table(own ...float64) []float64 {
	all := make([]float64, r.Size()*len(own))
	copy(all[r.Rank()*len(own):], own)
	addUp(r, all)
	return all
}

// addUp sums numbers over the ranks, in place.
func addUp[T program.Float](r *ranks, x []T) {
	if r.broken != nil || len(x) == 0 {
		return
	}
	switch x := any(x).(type) {
	case []float32:
		r.failed(r.AllReduceFloat32(x))
	case []float64:
		r.failed(r.AllReduceFloat64(x))
	}
}

// send puts the numbers of rank root into those of all.
func send[T program.Float](r *ranks, x []T, root int) {
	if r.broken != nil || len(x) == 0 {
		return
	}
	switch x := any(x).(type) {
	case []float32:
		r.failed(r.BroadcastFloat32(x, root))
	case []float64:
		r.failed(r.BroadcastFloat64(x, root))
	}
}

// orNil is an error, or none.
func (e *RankError) orNil() error {
	if e == nil {
		return nil
	}
	return e
}

// failed notes an error of the communicator.
func (r *ranks) failed(err error) {
	var known *RankError
	switch {
	case err == nil:
	case errors.As(err, &known):
		r.broken = known
	default:
		r.broken = &RankError{Rank: r.Rank(), Op: "reaching the other ranks", Err: err,
			Hint: "start all ranks again, from the last state that was saved"}
	}
}

// count sums a number.
func (r *ranks) count(n int) int {
	if r == nil {
		return n
	}
	x := []float64{float64(n)}
	addUp(r, x)
	return int(x[0])
}

// medians returns the median of each list, of which the ranks may have parts; 0 for an empty one.
// It sorts the lists.
func (r *ranks) medians(lists [][]float64) []float64 {
	made, counts := make([]float64, len(lists)), make([]float64, len(lists))
	for i, x := range lists {
		slices.Sort(x)
		counts[i] = float64(len(x))
	}
	if r != nil {
		addUp(r, counts)
	}
	below, above := make([]float64, len(lists)), make([]float64, len(lists))
	for i, n := range counts {
		below[i], above[i] = math.Floor((n-1)/2), math.Floor(n/2)
	}
	x, y := r.ordered(lists, below), r.ordered(lists, above)
	for i, n := range counts {
		if n > 0 {
			made[i] = x[i]/2 + y[i]/2
		}
	}
	return made
}

// ordered returns, of each list, the number with so many before it in order. The lists are sorted,
// and the ranks may have parts of them. That is found bit by bit.
func (r *ranks) ordered(lists [][]float64, before []float64) []float64 {
	found := make([]float64, len(lists))
	if r == nil {
		for i, x := range lists {
			if len(x) > 0 {
				found[i] = x[int(before[i])]
			}
		}
		return found
	}
	keys, counts := make([]uint64, len(lists)), make([]float64, len(lists))
	for bit := 63; bit >= 0; bit-- {
		for i, x := range lists {
			limit := keys[i] | 1<<bit
			counts[i] = float64(sort.Search(len(x), func(j int) bool { return orderedKey(x[j]) >= limit }))
		}
		addUp(r, counts)
		for i, n := range counts {
			if n <= before[i] {
				keys[i] |= 1 << bit
			}
		}
	}
	for i, key := range keys {
		found[i] = ofOrderedKey(key)
	}
	return found
}

// orderedKey maps numbers to keys in the same order; ofOrderedKey maps them back.
func orderedKey(v float64) uint64 {
	if v == 0 {
		v = 0 // not -0
	}
	if b := math.Float64bits(v); b>>63 == 0 {
		return b | 1<<63
	} else {
		return ^b
	}
}

func ofOrderedKey(key uint64) float64 {
	if key>>63 == 1 {
		return math.Float64frombits(key &^ (1 << 63))
	}
	return math.Float64frombits(^key)
}

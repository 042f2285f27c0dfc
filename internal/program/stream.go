package program

// A stream is a source of random numbers that costs nothing to start: splitmix64 (Steele, Lea and
// Flood 2014). Each element of a value has a stream of its own, which depends on the run's seed, on
// the user's node, and on the element's place in the whole batch. So programs that share the node,
// and runs of some of the cases, all draw the same.
type stream struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func (s *stream) Uint64() uint64 {
	s.state += golden
	return mixed(s.state)
}

func mixed(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// uniform is a number in [0, 1).
func (s *stream) uniform() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// streamOf is the key of a call's streams.
func streamOf[T Float](c *call[T]) uint64 {
	return mixed(c.batch.seed+golden) ^ mixed(uint64(c.node.Src.ID())*golden)
}

// start puts the stream to the beginning of that of an element.
func (s *stream) start(key uint64, element int) { s.state = mixed(key + uint64(element)) }

// pieces calls f for consecutive pieces of the result, with where each lies in the value of the
// whole batch.
func (c *call[T]) pieces(f func(from, to, at int)) {
	n, axis := size(c.out.Shape), c.node.CaseAxis
	if c.batch.rows == nil || axis < 0 {
		f(0, n, 0)
		return
	}
	one := size(c.out.Shape[axis:]) / max(c.batch.cases, 1)
	for o := range size(c.out.Shape[:axis]) {
		for k, row := range c.batch.rows {
			from := (o*c.batch.cases + k) * one
			f(from, from+one, (o*c.batch.all+row)*one)
		}
	}
}

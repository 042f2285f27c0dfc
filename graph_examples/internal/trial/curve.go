package trial

import "fmt"

// A Point is one measurement of the error while an optimizer trains.
type Point struct {
	Updates int
	Seconds float64 // of training so far, measurements excluded
	Error   float64
}

// A Curve is what an entrant reached, and when.
type Curve struct {
	Entrant
	Points   []Point // finite errors, in the order of the updates
	Steps    int     // updates that all entrants make; this one may have made more, in as many seconds
	Updates  int     // made in all
	Seconds  float64 // of training in all, measurements excluded
	Diverged bool    // the error became infinite or not a number, which ended the run
}

// Reached is the first point at which the error is at most goal.
func (c *Curve) Reached(goal float64) (Point, bool) {
	for _, p := range c.Points {
		if p.Error <= goal {
			return p, true
		}
	}
	return Point{}, false
}

// AfterSteps is the last point within the updates that all entrants make, if there is any.
func (c *Curve) AfterSteps() (last Point, ok bool) {
	for _, p := range c.Points {
		if p.Updates <= c.Steps {
			last, ok = p, true
		}
	}
	return last, ok
}

// Last is the last point, if there is any.
func (c *Curve) Last() (Point, bool) {
	if len(c.Points) == 0 {
		return Point{}, false
	}
	return c.Points[len(c.Points)-1], true
}

// RateText is the learning rate for people.
func (c *Curve) RateText() string {
	if c.Rate == 0 {
		return "default"
	}
	return fmt.Sprintf("%g", c.Rate)
}

// SecondsText writes a time with its unit, to a tenth of a second, and below one to two digits.
func SecondsText(seconds float64) string {
	if seconds > 0 && seconds < 0.95 {
		return fmt.Sprintf("%.2g s", seconds)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

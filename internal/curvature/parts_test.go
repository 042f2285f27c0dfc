package curvature

import "testing"

// An update in parts: each part of the cases has a block of its own, and the sum of their shares is
// the averages of a block that has seen all cases. A part may be without cases. Averages restart in
// all parts where they would in one. Triangles are all that is packed.
func TestParts(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const parts, ema = 3, 0.8
		s := newSource(3)
		whole := k.double()
		var shares []Block[float64]
		for range parts {
			shares = append(shares, k.double())
		}
		restarts := 0
		for update := range 40 {
			var rows []Rows[float64]
			empty := update % (parts + 2) // a part, or none
			for i, b := range shares {
				if i == empty {
					continue
				}
				own := k.rows(s, s.between(1, 3))
				if update == 20 { // an outlier
					for _, r := range own {
						for j := range r.A {
							r.A[j] *= 1e6
						}
					}
				}
				check(t, b.Observe(own))
				if rows == nil {
					rows = own
				} else {
					rows = k.joined(rows, own)
				}
			}
			check(t, whole.Observe(rows))
			want, err := whole.Average(ema)
			check(t, err)
			got, restarted := averagesOfParts(t, shares, ema)
			if restarted != want.Restarted {
				t.Fatalf("update %d: restarted %v, want %v", update, restarted, want.Restarted)
			}
			if restarted {
				restarts++
			}
			checkAverages(t, "averages", got, want, 1e-9)
			whole.Keep(want)
			shares[0].Release(got)
		}
		hasInputs := len(k.rows(s, 1)[0].A) > 0 && k.inverse != nil && len(whole.Copy().Moments) > 1
		if hasInputs && restarts == 0 {
			t.Error("the averages have not restarted")
		}
	})
}

// averagesOfParts averages each part's share, some by Average and some by Update, and returns the
// sum.
func averagesOfParts(t *testing.T, shares []Block[float64], ema float64) (whole *Averages[float64], restarted bool) {
	t.Helper()
	var tally, packed []float64
	for _, b := range shares {
		tally = sumInto(tally, b.Tally(nil))
	}
	for i, b := range shares {
		if rest := b.Whole(tally); len(rest) > 0 {
			t.Fatalf("%d numbers are left of the tally", len(rest))
		}
		if i == 1 {
			restarted = b.Update(ema)
		} else {
			share, err := b.Average(ema)
			check(t, err)
			b.Keep(share)
		}
	}
	for _, b := range shares {
		packed = sumInto(packed, b.Pack(nil, b.Copy()))
	}
	whole, rest, err := shares[0].Unpack(shares[0].Copy(), packed)
	check(t, err)
	if len(rest) > 0 {
		t.Fatalf("%d packed numbers are left", len(rest))
	}
	return whole, restarted
}

func sumInto(sum, x []float64) []float64 {
	if sum == nil {
		return x
	}
	for i, v := range x {
		sum[i] += v
	}
	return sum
}

// Of symmetric moments the triangle is packed.
func TestPackedSize(t *testing.T) {
	b := NewKronecker[float64](Shape{In: 6, Out: 3, Bias: true})
	if n := len(b.Pack(nil, b.Copy())); n != 7*8/2+3*4/2 {
		t.Errorf("%d numbers are packed", n)
	}
}

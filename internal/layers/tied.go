package layers

// readers are a layer and its Tied, by the way in which they read the weight.
type readers struct {
	layer, tied *Layer
}

// newReaders are those of a layer whose first use reads the weight as m.
func newReaders(l *Layer, m matrix) readers {
	l.In, l.Out, l.OutByIn = m.in, m.out, m.outByIn
	return readers{l, &Layer{Weight: l.Weight, In: l.Out, Out: l.In, OutByIn: !l.OutByIn, Steps: 1}}
}

// of is the one that reads the weight as m, or nil.
func (r readers) of(m matrix) *Layer {
	for _, l := range []*Layer{r.layer, r.tied} {
		if m == (matrix{l.In, l.Out, l.OutByIn}) {
			return l
		}
	}
	return nil
}

// tie joins the two, whose factors change places.
func (r readers) tie() {
	if len(r.tied.Sites) == 0 {
		return
	}
	r.layer.Tied = r.tied
	r.layer.DiagonalA = r.layer.DiagonalA || r.tied.DiagonalG
	r.layer.DiagonalG = r.layer.DiagonalG || r.tied.DiagonalA
	r.layer.swapped()
}

// swapped gives Tied the forms of the layer's factors, changed over.
func (l *Layer) swapped() {
	if l.Tied != nil {
		l.Tied.DiagonalA, l.Tied.DiagonalG = l.DiagonalG, l.DiagonalA
	}
}

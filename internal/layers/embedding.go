package layers

// minVocabulary is the number of inputs from which on one-hot inputs are taken as lookups.
// A is diagonal then. There is no homogeneous coordinate, so that it stays so.
// Below that A is kept whole, which costs little and holds the bias.
const minVocabulary = 256

// readLookup reads a use that picks rows of the weight.
func readLookup(u use) (Site, matrix) {
	weight, indices := u.weight(), u.input()
	return Site{Input: indices, Output: u.product, Rows: indices.Size(), Lookup: true},
		matrix{in: weight.Shape[0], out: size(weight.Shape[1:])}
}

// mayBeOneHot reports whether one-hot rows of the input would make a use a lookup.
func mayBeOneHot(s Site, m matrix) bool {
	return !s.InputColumns && !s.Lookup && m.in >= minVocabulary
}

// isEmbedding reports whether a use picks rows of the weight.
func (s Site) isEmbedding() bool { return s.Lookup || s.OneHot }

package curvature

// NewConvolution makes the block of a convolution (KFC; Grosse & Martens 2016). The layer's rows
// are the patches of its images, one for each position, with C kh kw elements.
//
// The block is A (x) G over these rows. Its inverse is a [KroneckerInverse], as for a dense layer.
// In patches.go, A takes about half the products where patches repeat each other.
//
// With Channels the pixels of a patch are taken to be uncorrelated. Then the block and its inverse
// are those of [Uncorrelated].
func NewConvolution[T Float](s Shape) Block[T] {
	if s.Channels > 0 {
		return NewUncorrelated[T](s)
	}
	return NewKronecker[T](s)
}

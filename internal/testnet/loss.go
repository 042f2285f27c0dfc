package testnet

import "gorgonia.org/gorgonia"

// A Family is a kind of distribution.
type Family int

// The families that a cost can be the negative log-likelihood of.
const (
	NormalFamily Family = iota + 1 // of the given variance
	BinaryFamily                   // independent binary numbers
	ClassFamily                    // one class per row
	JointFamily                    // several heads
)

// A Loss says what a cost is the negative log-likelihood of.
type Loss struct {
	Family   Family
	Out      *gorgonia.Node // natural parameters, or probabilities; nil if joint
	Variance float64        // of the normal family
	Heads    []Loss         // of the joint family
}

// Gaussian is a normal distribution around mean.
func Gaussian(mean *gorgonia.Node, variance float64) Loss {
	return Loss{Family: NormalFamily, Out: mean, Variance: variance}
}

// Normal is a normal distribution of variance 1 around mean.
func Normal(mean *gorgonia.Node) Loss { return Gaussian(mean, 1) }

// Bernoulli is a binary number for each element.
func Bernoulli(logits *gorgonia.Node) Loss { return Loss{Family: BinaryFamily, Out: logits} }

// Categorical is a class for each row.
func Categorical(logits *gorgonia.Node) Loss { return Loss{Family: ClassFamily, Out: logits} }

// Joint is several outputs, independent given the model.
func Joint(heads ...Loss) Loss { return Loss{Family: JointFamily, Heads: heads} }

// A Likelihood writes the cost of an output, and says what it is. It draws targets unless the
// sketch was given some.
type Likelihood func(s *Sketch, out *gorgonia.Node) (cost *gorgonia.Node, loss Loss)

// Written is a likelihood whose cost a test writes by itself, of an output and the given targets.
func Written(cost func(out, y *gorgonia.Node) *gorgonia.Node, loss func(out *gorgonia.Node) Loss) Likelihood {
	return func(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) { return cost(out, s.Y), loss(out) }
}

// Times is a likelihood whose cost has a factor.
func Times(l Likelihood, factor float64) Likelihood {
	return func(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
		cost, loss := l(s, out)
		return Hadamard(cost, gorgonia.NewConstant(s.number(factor))), loss
	}
}

// targets are those that were given, or else those that are drawn here.
func (s *Sketch) targets(draw func(name string, shape ...int) *gorgonia.Node, out *gorgonia.Node) *gorgonia.Node {
	if !s.given {
		s.Y = draw("y", out.Shape()...)
	}
	return s.Y
}

// oneHot makes an input of a class for each row.
func (s *Sketch) oneHot(name string, shape ...int) *gorgonia.Node {
	return s.Leaf(name, OneHots(s.Rng, shape[0], shape[1]), shape...)
}

// Squares is the mean over cases of |z-y|^2 / (2 variance), as a sum and a factor.
func Squares(variance float64) Likelihood {
	return func(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
		total := Sum(Square(Sub(out, s.targets(s.Random, out))))
		return s.times(total, 1/(2*variance*float64(CasesOf(out)))), Gaussian(out, variance)
	}
}

// Binary is the mean over cases of the binary cross-entropy, as a sum and a factor.
func Binary(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	y := s.targets(s.Uniform, out)
	total := Sum(Sub(Softplus(out), Hadamard(y, out)))
	return s.times(total, 1/float64(CasesOf(out))), Bernoulli(out)
}

// Classes is the mean over cases of the softmax cross-entropy, for an output of (cases, classes),
// as a sum and a factor.
func Classes(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	total := Sum(Hadamard(LogSoftMax(out), s.targets(s.oneHot, out)))
	return s.times(total, -1/float64(CasesOf(out))), Categorical(out)
}

// SquaredError is the mean over cases of |z-y|^2 / 2, as half a mean of sums.
func SquaredError(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	squares := Square(Sub(out, s.targets(s.Random, out)))
	half := gorgonia.NewConstant(s.number(0.5))
	return Hadamard(Mean(Sum(squares, 1)), half), Gaussian(out, 1)
}

// BinaryCrossEntropy is what Binary is, as a mean of sums.
func BinaryCrossEntropy(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	nll := Sub(Softplus(out), Hadamard(out, s.targets(s.Uniform, out)))
	return Mean(Sum(nll, 1)), Bernoulli(out)
}

// CrossEntropy is what Classes is, as a mean of sums.
func CrossEntropy(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	logp := LogSoftMax(out)
	return Neg(Mean(Sum(Hadamard(logp, s.targets(s.oneHot, out)), 1))), Categorical(out)
}

// TwoHeads reads the output twice, through fixed weights, with different shares in the cost.
func TwoHeads(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	width, fixed := out.Shape()[1], NewSketch(13)
	z1 := Mul(out, s.Leaf("head 1", fixed.Normals(width*2), width, 2))
	z2 := Mul(out, s.Leaf("head 2", fixed.Normals(width*3), width, 3))
	error1 := Sum(Square(Sub(z1, s.Random("y1", z1.Shape()...))))
	cost1 := s.times(error1, 0.2/float64(CasesOf(out)))
	cost2, loss2 := Classes(s, z2)
	return Add(cost1, cost2), Joint(Gaussian(z1, 1), loss2)
}

// TwoLosses are kfac-jax's for its autoencoder: Bernoulli and, with a tenth of its weight,
// Gaussian, of the same numbers.
func TwoLosses(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
	cost1, loss1 := Binary(s, out)
	same := s.times(out, 1)
	tenth := Sum(Square(Sub(same, s.Random("y2", out.Shape()...))))
	return Add(cost1, s.times(tenth, 0.05/float64(CasesOf(out)))), Joint(loss1, Gaussian(same, 1))
}

// AsSum is a likelihood whose cost is the sum over cases, not the mean.
func AsSum(loss Likelihood) Likelihood {
	return func(s *Sketch, out *gorgonia.Node) (*gorgonia.Node, Loss) {
		cost, l := loss(s, out)
		return s.times(cost, float64(CasesOf(out))), l
	}
}

// CasesOf is the number of rows of an output. A vector is one case.
func CasesOf(out *gorgonia.Node) int {
	if out.Dims() < 2 {
		return 1
	}
	return out.Shape()[0]
}

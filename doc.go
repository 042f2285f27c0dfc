// Package kfac is K-FAC, Kronecker-factored Approximate Curvature (Martens & Grosse 2015,
// arXiv:1503.05671), as a solver for Gorgonia. It takes the place of gorgonia.NewAdamSolver in a
// program; the model, its graph, the VM and the training loop stay as they are:
//
//	solver, err := kfac.NewSolver(cost, kfac.Categorical(logits))
//	...
//	err = vm.RunAll()
//	err = solver.Step(gorgonia.NodesToValueGrads(params))
//	vm.Reset()
//
// # What it computes
//
// Natural gradient descent moves the parameters by -F^-1 times the gradient of the cost, where F is
// the Fisher matrix of the model's predictive distribution. F is as large as the parameters
// squared, but the block of a layer that computes s from its input a is nearly a Kronecker product
// of two small matrices,
//
//	F_layer ~ A (x) G,   A = E[abar abar^T],   G = E[g g^T],
//
// where abar is a with a homogeneous coordinate 1 behind it for the bias, and g is the gradient
// with respect to s of the negative log-likelihood of targets sampled from the model's own
// predictions. The inverse of a Kronecker product is that of its factors, so the preconditioned
// gradient of the layer is U = A^-1 V G^-1. With [WithBlockTridiagonal] the inverse also holds what
// neighbouring layers have to do with each other.
//
// How far to go, and how much of the previous update to add, comes from the exact Fisher matrix
// along these two directions; how much damping, from how well that has predicted what steps do.
// Nothing needs to be tuned.
//
// # Shapes
//
// Gorgonia is row-major and has one row per case: s = a W + b, W is in x out. So A is (in+1) x
// (in+1) with the homogeneous coordinate last, or in x in without a bias, G is out x out, and V and
// U are (in+1) x out with the bias in the last row. For weights stored the other way round, as in
// Mul(x, Transpose(w)), everything is transposed.
//
// # Units
//
// The solver works with h, the mean over cases of the negative log-likelihood, in nats. It finds
// the scale c in cost = c x (sum over cases of the negative log-likelihood) by itself at the first
// step, so damping, learning rate and norm constraint mean the same whether a cost is a sum, a mean
// over cases or a mean over cases and outputs. A, G and the sampled gradients are per case.
//
// # The way of one step
//
// The files in the order in which a step uses them; data goes the same way:
//
//	solver.go     conducts: calls the others in order, and keeps what they made only when all have succeeded
//	gradients.go  reads the user's gradients and brings them to the units above
//	check.go      at the first step of a graph: is the cost what was declared? at the first two: are the gradients those of the cost?
//	sample.go     runs the model privately on some cases and sweeps the gradients of sampled targets back
//	hooks.go      captures, per layer, the inputs a and these gradients g
//	factors.go    makes the factors A and G of them and keeps their running averages
//	inverse.go    which way: inverts the damped factors and applies the inverses to the gradients
//	lowrank.go    the same where the batch is small beside a layer: applies them to the inputs and errors of the batch
//	modelstep.go  how far, and how much damping: conducts the part that algorithm 2 of the paper adds, by
//	quadratic.go  step length and momentum from products with the exact Fisher matrix,
//	objective.go  the cost at trial points,
//	damping.go    lambda, gamma and pi, and how they adapt, and
//	noise.go      provisions against the noise of small batches
//	update.go     the new weights; with [WithLearningRate], how far
//
// chunk.go takes in the RunAlls of a batch that is larger than the graph's, schedule.go holds the
// growing batch and the average of the iterates, chain.go and tridiagonal.go the block-tridiagonal
// inverse.
//
// graph.go holds what belongs to one graph of the user's, and goes on with another
// ([Solver.Attach]); all else is state, known by the names and shapes of parameters. attach.go
// finds the layers of a graph (with hooks.go) and plans the treatment of every parameter (plan.go,
// block.go). Kinds of layers that need more than A and G have files of their own: sharing.go
// (positions summed before the loss), recurrent.go (time steps that depend on each other),
// uncorrelated.go (convolutions with uncorrelated pixels), elementwise.go (scales, shifts,
// temperatures). loss.go holds the predictive distributions; options.go, stats.go and errors.go are
// what their names say. The package internal/program runs the model's graph without adding to it,
// with neither Gorgonia's VMs nor Grad.
//
// # Supported
//
// A Kronecker block: dense layers written as Mul(x, w), Mul(x, Transpose(w)), Mul(w, x) with x a
// vector or a matrix of columns, Tensordot or BatchedMatMul with a stack of one matrix, the weight
// reshaped or not, used once or several times, a vector too; convolutions, Im2Col written out
// included; embeddings, by ByIndices or products with one-hot rows; weights tied with their
// transposes; with a bias added by BroadcastAdd, as Add to a vector, behind other summands, or by a
// column of ones in the input. A small full block: parameters that act element by element, such as
// the scale and shift of a normalisation. Every other parameter gets a diagonal block; where its
// gradient can't be had, the identity. [Solver.Plan] says which, and why. Losses: categorical,
// Bernoulli and Gaussian, jointly too.
//
// # Limits
//
// A model whose cost is not a negative log-likelihood of its output is refused.
package kfac

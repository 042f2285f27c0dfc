// Package program runs a model's Gorgonia graph privately.
//
// A [Program] is built from some output nodes of a user's graph. Their ancestors are copied into
// nodes of its own, which keep the settings of the user's ops and point back to the user's nodes.
// A [Run] executes it in the model's dtype:
//
//	Forward   values, from the tensors that the user's input nodes hold at that moment (zero copy)
//	Reverse   gradients given at any nodes, swept back to any nodes (vector-Jacobian product)
//	Tangent   directions given at any nodes, swept forwards (Jacobian-vector product, R-operator)
//	Bend      how these gradients change along these directions (Hessian-vector product; bend.go)
//
// Each sweep takes all cases of the batch, or chosen ones. Every op has a rule for the three
// (rules.go). Where Gorgonia's own value or derivative of an op is wrong the rule here is right:
// Dropout (its gradient unless p is 0.5), SoftMax and LogSoftMax (of rows that differ by more than
// 100 in float32 or 700 in float64), Log2, InverseSqrt, AveragePool2D, ... Ops without a rule,
// among them ops of the user's own, are run by their Do and differentiated by their SymDiff
// (opaque.go).
//
// A [Machine] runs programs as a Gorgonia VM runs a graph. It leaves values and gradients with the
// user's nodes, and moves BatchNorm's running statistics.
//
// The package adds no node to the user's graph and removes none. It calls neither Grad nor any
// Gorgonia VM. Apart from a Machine's, runs leave the state that ops carry (BatchNorm's running
// statistics, Dropout's masks) as it was. The package knows nothing of K-FAC.
//
// Arrays are dense and row-major. A scalar has no axes and one element.
//
// The files build on each other: arrays, shapes and nodes; the call, which is what a rule sees of
// a run; one file for each kind of op, with its type and its rule; decode.go, which recognises the
// ops, and program.go; rules.go, which lists the rules; and run.go.
package program

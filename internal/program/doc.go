// Package program runs a model's Gorgonia graph privately.
//
// A [Program] is built from some output nodes of a user's graph: their ancestors are copied into nodes of its own that keep the
// user's Op settings and point back to the user's nodes. A [Run] executes it in the model's dtype:
//
//	Forward   values, from the tensors that the user's input nodes hold at that moment (zero copy)
//	Reverse   one sweep from gradients given at any nodes to the gradients of any nodes (vector-Jacobian product)
//	Tangent   one forward-mode sweep along a direction given at any nodes (Jacobian-vector product, the R-operator)
//
// on all cases of the batch or on chosen ones. Every op has a rule for the three (rule.go); where Gorgonia's own value or
// derivative of an op is wrong (Dropout, Log2, InverseSqrt, AveragePool2D, ...) the rule here is right. Ops that have no rule,
// among them ops of the user's own, are run by their Do and differentiated by their SymDiff (opaque.go).
//
// The package adds no node to the user's graph, removes none, calls neither Grad nor any Gorgonia VM, and leaves the state
// that ops carry (BatchNorm's running statistics, Dropout's masks) as it was. It knows nothing of K-FAC.
//
// Arrays are dense and row-major. A scalar has no axes and one element.
package program

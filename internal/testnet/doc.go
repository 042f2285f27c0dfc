// Package testnet builds the networks that kfac is tested on, and trains them.
//
// A [Sketch] is a graph in the making, with random inputs. A [Net] is a finished model: its graph,
// what a training loop touches, and what its cost is the negative log-likelihood of. A [Trainer]
// runs a net on one of Gorgonia's machines, and steps with any of Gorgonia's solvers. Nothing here
// knows package kfac, so that the tests inside that package can use it; export_test.go there makes
// a kfac.Distribution of a [Loss].
//
// Equal seeds give equal numbers. Tests depend on them: draw in the order that is there.
package testnet

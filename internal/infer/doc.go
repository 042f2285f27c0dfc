// Package infer finds in a graph what a user would declare: the cost that is minimised, and the
// outputs of the model that it is a negative log-likelihood of.
//
// It reads how the cost is written: as a sum of terms, each with a logarithm of probabilities or
// the square of a difference. What it finds is a proposal. Whether the cost is that likelihood the
// loss check tells, which knows nothing of how it is written.
package infer

// Package layers recognises the layers of a model in its program.
//
// [Find] says which parameters are weights and biases of layers, and why others are not. A [Layer]
// is a weight matrix with all its uses: dense layers, convolutions, embeddings, recurrent and tied
// weights are all read as matrix products. [FindElementwise] finds scales, shifts, temperatures and
// offsets.
// [Layer.Approximate] decides the form of a layer's Kronecker factors, and [Chains] which layers
// follow each other. Describe says in the user's words what was found.
//
// The package computes nothing. It looks at the graph only, never at a value.
package layers

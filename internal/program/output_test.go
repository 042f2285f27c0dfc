package program

import (
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An output that is no node as it is has the values of its nodes. Cut off, these are made of it,
// and what is computed from them stays the same, as do its gradients.
func TestOutputs(t *testing.T) {
	for name, c := range map[string]struct {
		shape, joined []int
		nodes, last   int
	}{
		"a node":                {[]int{6, 4}, []int{6, 4}, 1, 0},
		"matrices":              {[]int{6, 4}, []int{6, 8}, 2, 0},
		"vectors":               {[]int{6}, []int{6, 3}, 3, 0},
		"scalars":               {nil, []int{1, 2}, 2, 0},
		"positions":             {[]int{6, 3, 2}, []int{6, 3, 4}, 2, 0},
		"channels of an image":  {[]int{6, 3, 2, 5}, []int{6, 2, 5, 3}, 1, 1},
		"rows of an image":      {[]int{6, 3, 2, 5}, []int{6, 3, 5, 2}, 1, 2},
		"channels of positions": {[]int{6, 3, 2}, []int{6, 2, 3}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(tensor.Float64, 3)
			o := Output{Last: c.last}
			terms := b.constant(0)
			for k := range c.nodes {
				o.Nodes = append(o.Nodes, gorgonia.Must(gorgonia.Tanh(b.x(c.shape...))))
				term := gorgonia.Must(gorgonia.HadamardProd(b.x(c.shape...), gorgonia.Must(gorgonia.Exp(o.Nodes[k]))))
				if len(c.shape) > 0 {
					term = gorgonia.Must(gorgonia.Sum(term))
				}
				terms = gorgonia.Must(gorgonia.Add(terms, term))
			}
			if !slices.Equal(o.Shape(), c.joined) {
				t.Fatalf("shape %v, want %v", o.Shape(), c.joined)
			}
			whole, err := New([]*gorgonia.Node{terms})
			check(t, err)
			model, err := NewOf([]Output{o})
			check(t, err)
			tail, err := NewOf([]Output{{Nodes: []*gorgonia.Node{terms}}}, o)
			check(t, err)
			var runs [3]*Run[float64]
			for i, p := range []*Program{whole, model, tail} {
				runs[i], err = NewRun[float64](p, 0)
				check(t, err)
				if i == 2 {
					check(t, runs[2].Bind(tail.Cuts[0], runs[1].Value(model.Outputs[0]).Data))
				}
				check(t, runs[i].Forward(nil))
			}
			var values, gradients [][]float64
			cost := Seed[float64]{Node: whole.Outputs[0], Data: []float64{1}}
			var nodes []*Node
			for _, src := range o.Nodes {
				nodes = append(nodes, whole.Node(src))
			}
			check(t, runs[0].Reverse([]Seed[float64]{cost}, whole.Path(nodes...)))
			for _, n := range nodes {
				values = append(values, slices.Clone(runs[0].Value(n).Data))
				gradients = append(gradients, slices.Clone(runs[0].Gradient(n)))
			}
			z := runs[1].Value(model.Outputs[0]).Data
			if !slices.Equal(z, Joined(o, values)) {
				t.Errorf("the output is %v, want %v", z, Joined(o, values))
			}
			for k, part := range Parted(o, z) {
				if !slices.Equal(part, values[k]) {
					t.Errorf("part %d is %v, want %v", k, part, values[k])
				}
			}
			got, want := runs[2].Value(tail.Outputs[0]).Data[0], runs[0].Value(whole.Outputs[0]).Data[0]
			if !(math.Abs(got-want) <= 1e-13) {
				t.Errorf("the cost is %.15g, want %.15g", got, want)
			}
			cost.Node = tail.Outputs[0]
			check(t, runs[2].Reverse([]Seed[float64]{cost}, tail.Path(tail.Cuts[0])))
			for i, g := range Joined(o, gradients) {
				if !(math.Abs(runs[2].Gradient(tail.Cuts[0])[i]-g) <= 1e-13) {
					t.Fatalf("the gradient is %v, want %v", runs[2].Gradient(tail.Cuts[0]), Joined(o, gradients))
				}
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

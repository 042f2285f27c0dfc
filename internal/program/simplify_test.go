package program

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// rectifiedBroadcast is x + relu(c), where c is repeated along the cases.
func rectifiedBroadcast(b *builder) *gorgonia.Node {
	x, c, err := gorgonia.Broadcast(b.x(3, 4), b.input(spaced(0.3), 1, 4), gorgonia.NewBroadcastPattern(nil, []byte{0}))
	if err != nil {
		panic(err)
	}
	return must(gorgonia.Add(x, must(gorgonia.Rectify(c))))
}

// rectifiedTwice is relu(c) of a repeated c that has been rectified before.
func rectifiedTwice(b *builder) *gorgonia.Node {
	x, c, err := gorgonia.Broadcast(b.x(3, 2), b.input(spaced(0.3), 3, 1), gorgonia.NewBroadcastPattern(nil, []byte{1}))
	if err != nil {
		panic(err)
	}
	h := must(gorgonia.Rectify(must(gorgonia.Rectify(c))))
	return must(gorgonia.HadamardProd(must(gorgonia.Rectify(x)), h))
}

var rectifierCases = []opCase{
	{name: "Rectify of a broadcast", graph: rectifiedBroadcast},
	{name: "Rectify of a rectified broadcast", graph: rectifiedTwice},
	{name: "Rectify between matrices", graph: func(b *builder) *gorgonia.Node {
		w := b.input(always(1, 1, 1, 1, -1, -1, -1, -1), 2, 4) // one column of h is cut off, one is not
		h := must(gorgonia.Rectify(must(gorgonia.Mul(b.positive(3, 4), must(gorgonia.Transpose(w))))))
		return must(gorgonia.Mul(must(gorgonia.Transpose(h)), b.x(3, 2)))
	}},
}

// TestRectifierOfBroadcast: the value is Gorgonia's, and the derivatives are those of finite
// differences.
func TestRectifierOfBroadcast(t *testing.T) {
	for _, c := range rectifierCases {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				checkOp[float64](t, c, 3)
				checkOp[float32](t, c, 3)
			}
			b := newBuilder(tensor.Float64, 3)
			if s := prepare[float64](t, b, c.graph(b)); s.p.Whole == "" {
				s.checkRows(b.rng, []int{1, 0})
			}
		})
	}
}

// allCases are the graphs of the package's tests.
func allCases() []opCase {
	cases := slices.Concat(opCases, rectifierCases)
	for _, m := range modelCases {
		cases = append(cases, opCase{name: m.name, graph: m.graph})
	}
	for _, name := range slices.Sorted(maps.Keys(large)) {
		cases = append(cases, opCase{name: "large: " + name, graph: large[name]})
	}
	return append(cases,
		opCase{name: "BatchNorm net that trains", graph: batchNormNet(true)},
		opCase{name: "plain MLP", graph: plainMLP},
		opCase{name: "plain RNN", graph: plainRNN},
		opCase{name: "inputs of all kinds", graph: mixedInputs},
		opCase{name: "user's op", graph: weighed([]int{2, 0, -1})},
	)
}

// describe tells everything about a program but the addresses of its nodes.
func describe(p *Program) (lines []string) {
	places := func(nodes []*Node) []int {
		at := make([]int, len(nodes))
		for i, n := range nodes {
			at[i] = n.index
		}
		return at
	}
	for _, n := range p.Nodes {
		lines = append(lines, fmt.Sprintf("%d: %v of %v, used by %v: %v %v, cases along %d",
			n.index, n.Op, places(n.Kids), places(n.Users), n.Shape, n.Dtype, n.CaseAxis))
	}
	return append(lines, fmt.Sprintf("outputs %v, %d cases, whole %q", places(p.Outputs), p.Cases, p.Whole))
}

// TestProgramsAreReproducible builds the program of each graph fifty times. All are the same, also
// if the nodes are simplified in another order.
func TestProgramsAreReproducible(t *testing.T) {
	for _, c := range allCases() {
		b := newBuilder(tensor.Float64, 5)
		out := c.graph(b)
		var want []string
		for round := range 50 {
			p, err := New([]*gorgonia.Node{out})
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if got := describe(p); want == nil {
				want = got
			} else if !slices.Equal(got, want) {
				t.Fatalf("%s, round %d: %q, want %q", c.name, round, got, want)
			}
		}
		for round := range 10 {
			p := shuffled(t, b, out)
			if got := describe(p); !slices.Equal(got, want) {
				t.Fatalf("%s, other order %d: %q, want %q", c.name, round, got, want)
			}
		}
	}
}

// shuffled is the program of an output, simplified in a random order.
func shuffled(t *testing.T, b *builder, out *gorgonia.Node) *Program {
	t.Helper()
	copies, err := copyAncestors([]*gorgonia.Node{out}, nil, b.dt)
	if err != nil {
		t.Fatal(err)
	}
	b.rng.Shuffle(len(copies.nodes), func(i, j int) {
		copies.nodes[i], copies.nodes[j] = copies.nodes[j], copies.nodes[i]
	})
	simplify(copies.nodes)
	p := &Program{Outputs: []*Node{copies.bySrc[out]}, bySrc: map[*gorgonia.Node]*Node{}, dtype: b.dt}
	p.list(p.Outputs[0])
	p.Cases, p.Whole = findCases(p.Nodes, p.Outputs, false)
	return p
}

// TestWithVectorCases: a program under the other meaning is another one. The first stays as it was,
// and so do its runs. Cuts are kept.
func TestWithVectorCases(t *testing.T) {
	b := newBuilder(tensor.Float64, 1)
	h := must(gorgonia.Tanh(b.x(4, 3)))
	out := must(gorgonia.Mul(h, b.x(3)))
	one, err := New([]*gorgonia.Node{out}, h)
	if err != nil {
		t.Fatal(err)
	}
	before := describe(one)
	if same, err := one.WithVectorCases(false); err != nil || same != one {
		t.Errorf("the meaning that it has: another program, %v", err)
	}
	each, err := one.WithVectorCases(true)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(describe(one), before) || one.VectorCases {
		t.Errorf("the program has changed: %q, was %q", describe(one), before)
	}
	cut := each.Node(h)
	if !each.VectorCases || each.Cases != 4 || each.Whole != "" || cut.CaseAxis != 0 || !cut.IsLeaf() {
		t.Errorf("one number for each case: %q", describe(each))
	}
	for i, n := range each.Nodes {
		if n == one.Nodes[i] || n.Src != one.Nodes[i].Src {
			t.Errorf("node %d is shared, or of another node of the user's", i)
		}
	}
	back, err := each.WithVectorCases(false)
	if err != nil || !slices.Equal(describe(back), before) {
		t.Errorf("and back: %q, %v, want %q", describe(back), err, before)
	}
}

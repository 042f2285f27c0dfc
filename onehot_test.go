package kfac

import (
	"fmt"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/testnet"
)

// Products with one-hot rows are lookups: no factor of the vocabulary's size squared, the same
// course of training, and words that do not occur stay as they are.
func TestOneHotProductsAreLookups(t *testing.T) {
	words := []int{3, 299, 7, 3, 0}
	product, lookup := NewTrainer(t, testnet.Lookup(300, true, words)), NewTrainer(t, testnet.Lookup(300, false, words))
	before := testnet.Weights(product.Params)
	product.Steps(t, 8)
	lookup.Steps(t, 8)
	testnet.Near(t, "weights", testnet.Weights(product.Params), testnet.Weights(lookup.Params), 1e-9)
	for i := range 300 * 3 {
		if occurs := i/3 == 3 || i/3 == 299 || i/3 == 7 ||
			i/3 == 0; (before[i] != testnet.Weights(product.Params)[i]) != occurs {
			t.Errorf("row %d: was %g, is %g", i/3, before[i], testnet.Weights(product.Params)[i])
		}
	}
	for _, l := range []*Trainer{product, lookup} {
		if row := l.Solver.Plan().Params[0]; row.Block != "table: diagonal A 300, G 3" {
			t.Errorf("plan of the table: %v", row)
		}
	}
}

// Rows that are not one-hot, and small vocabularies, keep a whole factor.
func TestOneHotIsSeenInTheInputs(t *testing.T) {
	for name, n := range map[string]*testnet.Net{"small": testnet.Lookup(100, true, []int{1, 2, 3}),
		"two ones": testnet.Lookup(300, true, []int{1, 2, 3})} {
		want := "table: A 101, G 3"
		if name == "two ones" {
			want = "table: A 301, G 3"
			x := n.Input("x")
			testnet.Data(x)[5] = 1
		}
		if row := attach(t, n).describe().Params[0]; row.Block != want {
			t.Errorf("%s: block %q, want %q", name, row.Block, want)
		}
	}
}

// A vocabulary is a graph around a table of 300 words: what multiplies the table, in this order,
// and whether there is a bias.
func vocabulary(bias bool, inputs ...string) *testnet.Net {
	s := testnet.NewSketch(12)
	n := &testnet.Net{Sketch: s}
	table, v, b := s.Random("table", 300, 3), s.Scaled("v", 0.5, 3, 2), s.Random("b", 1, 2)
	var h *gorgonia.Node
	for i, kind := range inputs {
		name := fmt.Sprint("x", i)
		x := s.Scaled(name, 0.1, 5, 300)
		if kind == "words" {
			copy(testnet.Data(x), oneHotRows(5, 300, 7*i))
		}
		if product := mul(x, table); h == nil {
			h = product
		} else {
			h = add(h, product)
		}
	}
	n.Params = gorgonia.Nodes{table, v}
	out := mul(tanh(h), v)
	if bias {
		n.Params = append(n.Params, b)
		out = addRow(out, b)
	}
	return n.Ends(out, testnet.Squares(1))
}

func oneHotRows(rows, words, from int) []float64 {
	x := make([]float64, rows*words)
	for i := range rows {
		x[i*words+(from+11*i)%words] = 1
	}
	return x
}

// planOf is what the plan calls the block of a parameter.
func planOf(l *Trainer, name string) string {
	for _, row := range l.Solver.Plan().Params {
		if row.Name == name {
			return row.Block
		}
	}
	return ""
}

const diagonalTable, wholeTable = "table: diagonal A 300, G 3", "table: A 300, G 3"

// Each use of a table is looked at by itself, in whatever order they come.
func TestOneHotIsDecidedByUse(t *testing.T) {
	for _, test := range []struct {
		inputs []string
		oneHot []bool
		block  string
	}{
		{[]string{"words"}, []bool{true}, diagonalTable},
		{[]string{"numbers"}, []bool{false}, wholeTable},
		{[]string{"words", "numbers"}, []bool{true, false}, diagonalTable},
		{[]string{"numbers", "words"}, []bool{false, true}, diagonalTable},
		{[]string{"numbers", "words", "words"}, []bool{false, true, true}, diagonalTable},
		{[]string{"numbers", "numbers"}, []bool{false, false}, wholeTable},
	} {
		l := NewTrainer(t, vocabulary(false, test.inputs...))
		l.Falls(t, 30, 0.5)
		var oneHot []bool
		for _, s := range layerNamed(t, trainingOf(l), "table").Sites {
			oneHot = append(oneHot, s.OneHot)
		}
		if !slices.Equal(oneHot, test.oneHot) || planOf(l, "table") != test.block {
			t.Errorf("%v: one-hot %v, block %q", test.inputs, oneHot, planOf(l, "table"))
		}
	}
}

// What a layer is does not change with the inputs of later steps, though these may list more
// parameters, and so be planned for. Its block goes on.
func TestOneHotDoesNotFlip(t *testing.T) {
	for first, want := range map[string]string{"words": diagonalTable, "numbers": wholeTable} {
		l := NewTrainer(t, vocabulary(true, first))
		all := l.Params
		l.Params = all[:2]
		l.Steps(t, 2)
		before := layerNamed(t, trainingOf(l), "table").block
		x := testnet.Data(l.Input("x0"))
		if first == "words" {
			copy(x, testnet.NewSketch(5).Normals(len(x)))
		} else {
			copy(x, oneHotRows(5, 300, 3))
		}
		testnet.ZeroGradients(all)
		l.Params = all
		l.Steps(t, 3)
		if got := planOf(l, "table"); got != want || len(l.Solver.Plan().Params) != 3 {
			t.Errorf("%s first: the table's block is %q of\n%v", first, got, l.Solver.Plan())
		}
		if layerNamed(t, trainingOf(l), "table").block != before {
			t.Errorf("%s first: the table's block is a new one", first)
		}
	}
}

// A table that is trained from a later step on is looked at then.
func TestOneHotTableListedLater(t *testing.T) {
	for kind, want := range map[string]string{"words": diagonalTable, "numbers": wholeTable} {
		l := NewTrainer(t, vocabulary(true, kind))
		x := testnet.Data(l.Input("x0"))
		sound := slices.Clone(x)
		for i := range x { // not what it is later on
			x[i] = 1 - sound[i]
		}
		all := l.Params
		l.Params = all[1:]
		l.Steps(t, 2)
		copy(x, sound)
		testnet.ZeroGradients(all)
		l.Params = all
		l.Steps(t, 2)
		if got := planOf(l, "table"); got != want {
			t.Errorf("%s: block %q, want %q", kind, got, want)
		}
	}
}

// A table that comes with another graph is looked at in that graph, as is a further use of one that
// is known. Inputs that have no value when the graph is attached are looked at in its first step.
func TestOneHotTableOfAnotherGraph(t *testing.T) {
	numbers := func() *testnet.Net { // without the table
		n := testnet.NewNet(3)
		n.X = n.Random("x", 5, 3)
		v := n.Scaled("v", 0.5, 3, 2)
		n.Params = gorgonia.Nodes{v}
		return n.Ends(mul(n.X, v), testnet.Squares(1))
	}
	for _, test := range []struct {
		name   string
		first  *testnet.Net
		second []string
		want   string
	}{
		{"a new table", numbers(), []string{"words"}, diagonalTable},
		{"a new table that is none", numbers(), []string{"numbers"}, wholeTable},
		{"a known table", vocabulary(false, "words"), []string{"words"}, diagonalTable},
		{"a known table that sees numbers", vocabulary(false, "words"), []string{"numbers"}, diagonalTable},
		{"a known weight that sees words", vocabulary(false, "numbers"), []string{"words"}, wholeTable},
		{"a known weight with one more use", vocabulary(false, "numbers"), []string{"numbers", "words"}, diagonalTable},
		{"a known table with one more use", vocabulary(false, "words"), []string{"words", "numbers"}, diagonalTable},
	} {
		for _, late := range []bool{false, true} {
			l := NewTrainer(t, test.first)
			l.Steps(t, 2)
			n := vocabulary(false, test.second...)
			for i, p := range n.Params {
				for _, q := range l.Params {
					if p.Name() == q.Name() {
						testnet.Check(t, gorgonia.Let(n.Params[i], q.Value()))
					}
				}
			}
			run := testnet.Machines["BindDualValues"](t, n)
			last := n.Input(fmt.Sprint("x", len(test.second)-1))
			held := last.Value()
			if late {
				testnet.Check(t, gorgonia.Let(last, testnet.Tensor(n.Dtype, make([]float64, 1500), 5, 300)))
			}
			testnet.Check(t, l.Solver.Attach(n.Cost, Declared(n)))
			testnet.Check(t, gorgonia.Let(last, held))
			next := &Trainer{Net: n, Run: run, Solver: l.Solver}
			next.Steps(t, 3)
			if got := planOf(next, "table"); got != test.want {
				t.Errorf("%s, late %v: block %q, want %q", test.name, late, got, test.want)
			}
		}
	}
}

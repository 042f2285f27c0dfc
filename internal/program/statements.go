package program

import (
	"errors"
	"reflect"

	"gorgonia.org/gorgonia"
)

// statementsOf finds the Reads of a program's graph: all, or those of the program's nodes. The
// error is about a statement that no machine here can obey.
func statementsOf(p *Program, all bool) (reads []read, err error) {
	g := p.outputs[0].Nodes[0].Graph()
	for _, n := range g.AllNodes() {
		name := ""
		if op := n.Op(); op != nil {
			name = typeName(op)
		}
		if name != "readOp" && name != "letOp" {
			continue
		}
		of := g.ExactSubgraphRoots(n).From(n.ID()) // a graph of its own; see copier
		if !of.Next() {
			continue
		}
		from, ok := of.Node().(*gorgonia.Node)
		if !ok || !all && p.Node(from) == nil {
			continue
		}
		fail := &OpError{name, NameOf(from), "read", errors.New("no machine but Gorgonia's obeys it")}
		if name == "letOp" {
			fail.Op = "Set"
			return nil, fail
		}
		// The target is a private setting of the op, which itself does nothing.
		f := reflect.ValueOf(n.Op())
		if f.Kind() != reflect.Struct || f.FieldByName("into").Kind() != reflect.Pointer {
			return nil, fail
		}
		reads = append(reads, read{(*gorgonia.Value)(f.FieldByName("into").UnsafePointer()), from})
	}
	return reads, nil
}

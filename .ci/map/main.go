// Map draws which package of this module imports which, as a Mermaid graph in CONTRIBUTING.md, from
// the imports themselves. It runs in the root, and fails if the picture there is not the one that
// it would draw; with -w it draws it:
//
//	go run ./.ci/map -w
//
// An import that follows from others is left out, and so are tests and example programs.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const (
	file  = "CONTRIBUTING.md"
	begin = "```mermaid\n"
	end   = "```\n"
)

func main() {
	write := flag.Bool("w", false, "draw the picture in "+file)
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(write bool) error {
	imports, err := load()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return errors.New(file + " has no picture")
	}
	picture := draw(imports)
	switch {
	case picture == old:
		return nil
	case !write:
		return errors.New("the picture in " + file + " is not that of the imports: go run ./.ci/map -w")
	}
	return os.WriteFile(file, []byte(before+begin+picture+end+after), 0o644)
}

// load returns the packages of the module that each of them imports.
func load() (map[string][]string, error) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports,Module", ".", "./internal/...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	imports := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
			Module     struct{ Path string }
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return imports, nil
		} else if err != nil {
			return nil, err
		}
		var own []string
		for _, path := range p.Imports {
			if strings.HasPrefix(path, p.Module.Path+"/") {
				own = append(own, path)
			}
		}
		imports[p.ImportPath] = own
	}
}

// draw returns the graph of the packages that the root depends on, one arrow a line.
func draw(imports map[string][]string) string {
	var lines []string
	for from, list := range imports {
		for _, to := range list {
			follows := slices.ContainsFunc(list, func(via string) bool { return reaches(imports, via, to) })
			if !follows && !forTests(from) {
				lines = append(lines, fmt.Sprintf("    %s --> %s\n", last(from), last(to)))
			}
		}
	}
	slices.Sort(lines)
	return "graph TD\n" + strings.Join(lines, "")
}

// reaches reports whether a package imports another, by itself or by what it imports.
func reaches(imports map[string][]string, from, to string) bool {
	return slices.ContainsFunc(imports[from], func(next string) bool {
		return next == to || reaches(imports, next, to)
	})
}

func last(path string) string { return path[strings.LastIndex(path, "/")+1:] }

// forTests reports whether a package serves tests only.
func forTests(path string) bool {
	return strings.HasSuffix(last(path), "test") || last(path) == "testnet"
}

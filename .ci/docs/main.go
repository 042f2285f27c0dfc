// Docs fails if a package has no comment, or a name that a user can import has none: a function, a
// method of an exported type, a type, a constant or a variable. A comment on a group of constants
// or variables serves for all of it. Error, String and Unwrap need none.
//
// It also fails if docs/tuning.md does not name an option or an error of the root package, or
// CONTRIBUTING.md a file of it. It runs in the root:
//
//	go run ./.ci/docs
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	found, err := check()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, f := range found {
		fmt.Println(f)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
}

// check returns a message for each package and each name that has no comment.
func check() (found []string, err error) {
	tuning, err := os.ReadFile("docs/tuning.md")
	if err != nil {
		return nil, err
	}
	contributing, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	packages := map[string]bool{} // folder: has a package comment
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "out") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(name)
		packages[dir] = packages[dir] || file.Doc != nil
		if slices.Contains(strings.Split(filepath.ToSlash(dir), "/"), "internal") {
			return nil
		}
		if dir == "." {
			if !strings.Contains(string(contributing), "`"+name+"`") {
				found = append(found, "CONTRIBUTING.md does not name "+name)
			}
			found = append(found, untold(file, string(tuning))...)
		}
		for _, id := range undocumented(file) {
			found = append(found, fmt.Sprintf("%s: %s has no doc comment", files.Position(id.Pos()), id.Name))
		}
		return nil
	})
	for dir, documented := range packages {
		if !documented {
			found = append(found, dir+": no package comment")
		}
	}
	slices.Sort(found)
	return found, err
}

// untold returns a message for each option and each error of a file that the page does not name.
func untold(file *ast.File, page string) (found []string) {
	for _, name := range optionsAndErrors(file) {
		if !strings.Contains(page, name) {
			found = append(found, "docs/tuning.md does not name "+name)
		}
	}
	return found
}

func optionsAndErrors(file *ast.File) (names []string) {
	for name, object := range file.Scope.Objects {
		switch object.Kind {
		case ast.Fun:
			if strings.HasPrefix(name, "With") {
				names = append(names, name)
			}
		case ast.Typ:
			if ast.IsExported(name) && strings.HasSuffix(name, "Error") {
				names = append(names, name)
			}
		case ast.Var:
			if strings.HasPrefix(name, "Err") {
				names = append(names, name)
			}
		}
	}
	return names
}

// wellKnown are the methods of which everybody knows what they do.
var wellKnown = map[string]bool{"Error": true, "String": true, "Unwrap": true}

// undocumented returns the exported names of a file that have no comment.
func undocumented(file *ast.File) (names []*ast.Ident) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !wellKnown[d.Name.Name] {
				names = append(names, d.Name)
			}
		case *ast.GenDecl:
			if d.Doc != nil && (d.Lparen.IsValid() || d.Tok != token.TYPE) {
				continue
			}
			for _, spec := range d.Specs {
				names = append(names, undocumentedIn(spec, d.Doc)...)
			}
		}
	}
	return names
}

// undocumentedIn returns the exported names of one line of a declaration that have no comment.
func undocumentedIn(spec ast.Spec, group *ast.CommentGroup) (names []*ast.Ident) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && group == nil {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && s.Doc == nil && s.Comment == nil {
				names = append(names, name)
			}
		}
	}
	return names
}

// exportedReceiver reports whether a function is no method, or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return name == ""
	})
	return ast.IsExported(name)
}

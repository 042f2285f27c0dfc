// Docs fails if a package has no comment, or a name that a user can import has none: a function, a
// method of an exported type, a type, a constant or a variable. A comment on a group of constants
// or variables serves for all of it. Error, String and Unwrap need none.
//
// It also fails if docs/tuning.md does not name an option or an error of the root package, its
// package comment does not link to an option, or CONTRIBUTING.md does not name a file of it. It
// runs in the root:
//
//	go run ./.ci/docs
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gorgonia-kfac/kfac/.ci/repo"
)

func main() { repo.Main(check) }

// pages are those that name every option and every error of the root package, or every file of it.
type pages struct{ doc, tuning, contributing string }

// check returns a message for each package and each name that has no comment, and for what the
// pages leave out.
func check() (found []string, err error) {
	var p pages
	for name, page := range map[string]*string{
		"doc.go": &p.doc, "docs/tuning.md": &p.tuning, "CONTRIBUTING.md": &p.contributing,
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		*page = string(text)
	}
	files := token.NewFileSet()
	packages := map[string]bool{} // folder: has a package comment
	found, err = repo.Files(".go", func(name string, text []byte) (found []string, err error) {
		if strings.HasSuffix(name, "_test.go") {
			return nil, nil
		}
		file, err := parser.ParseFile(files, name, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(name)
		packages[dir] = packages[dir] || file.Doc != nil
		if slices.Contains(strings.Split(filepath.ToSlash(dir), "/"), "internal") {
			return nil, nil
		}
		if dir == "." {
			found = p.untold(name, file)
		}
		for _, id := range undocumented(file) {
			found = append(found, fmt.Sprintf("%s: %s has no doc comment", files.Position(id.Pos()), id.Name))
		}
		return found, nil
	})
	for dir, documented := range packages {
		if !documented {
			found = append(found, dir+": no package comment")
		}
	}
	slices.Sort(found)
	return found, err
}

// untold returns a message for each file, option and error of the root package that a page does not
// name.
func (p pages) untold(name string, file *ast.File) (found []string) {
	if !strings.Contains(p.contributing, "`"+name+"`") {
		found = append(found, "CONTRIBUTING.md does not name "+name)
	}
	for _, name := range optionsAndErrors(file) {
		if !strings.Contains(p.tuning, name) {
			found = append(found, "docs/tuning.md does not name "+name)
		}
		if strings.HasPrefix(name, "With") && !strings.Contains(p.doc, "["+name+"]") {
			found = append(found, "the package comment in doc.go does not link to "+name)
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

// Lines fails if a line of Go source in the repository is too wide. A comment on lines of its own
// has at most 100 columns, a line with code at most 120; a tab counts as 4. It runs in the root:
//
//	go run ./.ci/lines
//
// Lines that can't be broken are excused: //go: directives, a comment of a single word (a URL), the
// expected output of an example, and the text of a raw string of several lines. So are generated
// files.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"strings"
	"unicode/utf8"

	"github.com/gorgonia-kfac/kfac/.ci/repo"
)

const (
	commentWidth = 100
	codeWidth    = 120
	tab          = "    "
)

func main() {
	repo.Main(func() ([]string, error) { return repo.Files(".go", check) })
}

// check returns a message for each line of a file that is too wide.
func check(name string, src []byte) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(parsed) {
		return nil, nil
	}
	code, raw := tokens(src)
	var found []string
	output := false // in the expected output of an example
	for i, line := range strings.Split(string(src), "\n") {
		n := i + 1
		text := strings.TrimSpace(line)
		comment := !code[n] && !raw[n]
		output = comment && strings.HasPrefix(text, "//") && (output || startsOutput(name, text))
		limit := codeWidth
		if comment {
			limit = commentWidth
		}
		width := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", tab))
		if width <= limit || raw[n] || output || comment && unbreakable(text) {
			continue
		}
		found = append(found, fmt.Sprintf("%s:%d: %d columns, %d are allowed", name, n, width, limit))
	}
	return found, nil
}

// tokens returns the lines with code, and those on which a raw string goes on from the line before.
func tokens(src []byte) (code, raw map[int]bool) {
	code, raw = map[int]bool{}, map[int]bool{}
	file := token.NewFileSet().AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, scanner.ScanComments)
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return code, raw
		}
		if tok == token.COMMENT || tok == token.SEMICOLON && lit == "\n" {
			continue
		}
		first := file.Line(pos)
		code[first] = true
		for i := range bytes.Count([]byte(lit), []byte("\n")) {
			raw[first+1+i] = true
		}
	}
}

func startsOutput(name, text string) bool {
	text = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(text, "//")))
	isOutput := strings.HasPrefix(text, "output:") || strings.HasPrefix(text, "unordered output:")
	return isOutput && strings.HasSuffix(name, "_test.go")
}

func unbreakable(comment string) bool {
	words := strings.TrimSpace(strings.TrimPrefix(comment, "//"))
	return strings.HasPrefix(comment, "//go:") || !strings.ContainsAny(words, " \t")
}

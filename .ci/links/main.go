// Links fails if a Markdown file of the repository links to a file, a folder or a heading in the
// repository that does not exist. Links to other places are not followed. It runs in the root:
//
//	go run ./.ci/links
//
// It also fails if README.md has 120 lines or more, or a line of more than 120 columns.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gorgonia-kfac/kfac/.ci/repo"
)

const readmeLines, readmeWidth = 119, 120

func main() { repo.Main(check) }

func check() ([]string, error) {
	return repo.Files(".md", func(name string, text []byte) ([]string, error) {
		found := broken(name, string(text))
		if name == "README.md" {
			found = append(found, tooLarge(string(text))...)
		}
		return found, nil
	})
}

// tooLarge returns a message for each way in which the README is more than a newcomer reads.
func tooLarge(readme string) (found []string) {
	lines := strings.Split(strings.TrimSuffix(readme, "\n"), "\n")
	if len(lines) > readmeLines {
		found = append(found, fmt.Sprintf("README.md: %d lines, %d are allowed: details belong in docs",
			len(lines), readmeLines))
	}
	for i, line := range lines {
		if width := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); width > readmeWidth {
			found = append(found, fmt.Sprintf("README.md:%d: %d columns, %d are allowed", i+1, width, readmeWidth))
		}
	}
	return found
}

// Targets of links and pictures, in a line or in a definition of their own.
var (
	inline     = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	definition = regexp.MustCompile(`(?m)^\[[^\]]+\]: (\S+)$`)
	picture    = regexp.MustCompile(`\b(?:src|srcset)="([^"]+)"`)
	external   = regexp.MustCompile(`^[a-z]+:`)
)

// broken returns a message for each link of a file that leads nowhere.
func broken(name, text string) (found []string) {
	prose := strings.Join(outsideCode(text), "\n")
	var links [][]string
	for _, form := range []*regexp.Regexp{inline, definition, picture} {
		links = append(links, form.FindAllStringSubmatch(prose, -1)...)
	}
	for _, match := range links {
		target := match[1]
		if external.MatchString(target) {
			continue
		}
		path, heading, _ := strings.Cut(target, "#")
		file := name
		if path != "" {
			file = filepath.Join(filepath.Dir(name), path)
		}
		if _, err := os.Stat(file); err != nil {
			found = append(found, fmt.Sprintf("%s: link to %s: no such file", name, target))
		} else if heading != "" && !hasHeading(file, heading) {
			found = append(found, fmt.Sprintf("%s: link to %s: no such heading", name, target))
		}
	}
	return found
}

// outsideCode returns the lines that are not in a block of code.
func outsideCode(text string) (lines []string) {
	code := false
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "```") {
			code = !code
		} else if !code {
			lines = append(lines, line)
		}
	}
	return lines
}

// hasHeading reports whether a Markdown file has the heading that an anchor names.
func hasHeading(file, anchor string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for _, line := range outsideCode(string(text)) {
		if strings.HasPrefix(line, "#") && anchorOf(strings.TrimLeft(line, "# ")) == anchor {
			return true
		}
	}
	return false
}

// anchorOf is the anchor that code hosts make of a heading.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, heading)
}

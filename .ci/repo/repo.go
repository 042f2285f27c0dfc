// Package repo is what the checks of the repository share. They run in its root.
package repo

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Main is the main function of a check, which returns a message for each fault that it finds.
func Main(check func() (found []string, err error)) {
	found, err := check()
	for _, f := range found {
		fmt.Println(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || len(found) > 0 {
		os.Exit(1)
	}
}

// Files calls visit with each file of the repository that has the extension, and returns all that
// it finds. Folders of data and output are left out.
func Files(ext string, visit func(name string, text []byte) (found []string, err error)) (found []string, err error) {
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "out" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ext || !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		of, err := visit(name, text)
		found = append(found, of...)
		return err
	})
	return found, err
}

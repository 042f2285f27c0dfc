package main

import (
	"context"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

// A few steps leave the three pictures.
func TestPictures(t *testing.T) {
	s := defaults
	s.Steps, s.Batch, s.Cases, s.Out = 11, 50, 200, t.TempDir()
	if err := run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"factors.png", "eigenvalues.png", "steps.png"} {
		f, err := os.Open(filepath.Join(s.Out, name))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		f.Close()
		if err != nil || picture.Bounds().Dx() != 800 {
			t.Errorf("%s: %v pixels wide, error %v", name, picture.Bounds().Dx(), err)
		}
	}
}

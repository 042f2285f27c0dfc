package trial

import (
	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac"
)

// Resume puts K-FAC, its model's weights and the run where they were when the file of -resume was
// saved. skip is called for each update that was done, counted from 1, to draw its batches. Other
// optimizers start from the beginning.
func (r *Run) Resume(solver gorgonia.Solver, skip func(update int)) error {
	k, ok := solver.(*kfac.Solver)
	if !ok || r.settings.Resume == "" {
		return nil
	}
	if err := k.LoadFile(r.file(r.settings.Resume)); err != nil {
		return err
	}
	r.curve.Updates = k.Stats().Step
	for i := range r.curve.Updates {
		skip(i + 1)
	}
	return r.bar.Set(min(r.curve.Updates, r.settings.Steps))
}

// Save saves K-FAC and its model's weights to the file of -save.
func (r *Run) Save(solver gorgonia.Solver) error {
	k, ok := solver.(*kfac.Solver)
	if !ok || r.settings.Save == "" {
		return nil
	}
	return k.SaveFile(r.file(r.settings.Save))
}

// file is that of a variant of K-FAC, which has its own.
func (r *Run) file(path string) string {
	if r.Name != "kfac" {
		return path + "." + r.Name
	}
	return path
}

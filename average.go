package kfac

import (
	"slices"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// averageIterates adds the weights to the iterate average (Martens & Grosse 2015, section 8): mean
// = xi_k mean + (1 - xi_k) theta with xi_k = min(1 - 1/k, xi). The first averages are plain means
// of the iterates. The average covers every parameter that was ever in a step's list.
func averageIterates[T program.Float](params []*parameter[T], xi float64) {
	for _, p := range params {
		if !p.listed() && (p.averages == 0 || p.readWeights(false) != nil) {
			continue // never trained, or without readable weights: the average stays as it is
		}
		if p.mean == nil {
			p.mean = make([]T, p.size())
		}
		p.averages++
		keep := T(curvature.Decay(p.averages, xi))
		linalg.Scale(keep, p.mean)
		linalg.Axpy(1-keep, p.weights.data, p.mean)
	}
}

// exchangeAverages writes the averages into the parameters. restore writes the weights back.
func exchangeAverages[T program.Float](params []*parameter[T]) (restore func(), err error) {
	weights := make([][]T, len(params))
	for i, p := range params {
		if p.averages == 0 {
			continue
		}
		if err := p.readWeights(false); err != nil {
			return nil, err
		}
		weights[i] = slices.Clone(p.weights.data)
	}
	for i, p := range params {
		if weights[i] != nil {
			p.put(p.mean)
		}
	}
	return func() {
		for i, p := range params {
			if weights[i] != nil {
				p.put(weights[i])
			}
		}
	}, nil
}

// averaging returns an error if there is no average to use. taken says that the average is in use
// already.
func averaging[T program.Float](params []*parameter[T], xi float64, taken bool) error {
	begun := slices.ContainsFunc(params, func(p *parameter[T]) bool { return p.averages > 0 })
	switch {
	case xi == 0:
		return &ConfigError{"UseAverage", "no WithIterateAveraging", "that option: without it no average is kept"}
	case !begun:
		return &ConfigError{"UseAverage", "no average yet", "a step at or after the first of WithIterateAveraging"}
	case taken:
		return &ConfigError{"UseAverage", "a second call", "a call of restore (from the first call) before it"}
	}
	return nil
}

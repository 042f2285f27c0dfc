// Package iris holds Fisher's 150 irises, for the examples and the tests. Source: R. A. Fisher,
// "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936), table I;
// measured by E. Anderson.
package iris

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kinds of iris.
const (
	Setosa = iota
	Versicolor
	Virginica
	Species // how many there are
)

// A Flower is what was measured of one, in cm, and its kind.
type Flower struct {
	SepalLength, SepalWidth, PetalLength, PetalWidth float64
	Species                                          int
}

// Measurements are the four, in the order of the fields.
func (f Flower) Measurements() []float64 {
	return []float64{f.SepalLength, f.SepalWidth, f.PetalLength, f.PetalWidth}
}

// Standardise gives every column of rows mean 0 and variance 1.
func Standardise(rows [][]float64) {
	n := float64(len(rows))
	for k := range rows[0] {
		var sum, squares float64
		for _, r := range rows {
			sum += r[k]
			squares += r[k] * r[k]
		}
		mean := sum / n
		deviation := math.Sqrt(squares/n - mean*mean)
		for _, r := range rows {
			r[k] = (r[k] - mean) / deviation
		}
	}
}

//go:embed iris.csv
var file string

// Flowers returns them all, 50 of a kind after the other.
func Flowers() []Flower {
	r := csv.NewReader(strings.NewReader(file))
	r.Comment = '#'
	records, err := r.ReadAll()
	if err != nil {
		panic(fmt.Sprintf("iris.csv: %v", err))
	}
	flowers := make([]Flower, len(records))
	for i, rec := range records {
		var v [5]float64
		for k := range v {
			if v[k], err = strconv.ParseFloat(rec[k], 64); err != nil {
				panic(fmt.Sprintf("iris.csv, flower %d: %v", i, err))
			}
		}
		flowers[i] = Flower{v[0], v[1], v[2], v[3], int(v[4])}
	}
	return flowers
}

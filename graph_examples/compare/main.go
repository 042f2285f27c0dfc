// Compare trains the model of an example program with K-FAC, and with Gorgonia's Adam, Momentum and
// RMSProp from the same initial weights on the same batches. It prints a table of the losses and
// draws them against updates and seconds.
//
//	go run ./graph_examples/compare iris
//	go run ./graph_examples/compare charrnn -lstm -optimizers kfac,adam
//	go run ./graph_examples/compare convnet -grid
//	go run ./graph_examples/compare iris -help
//
// The models are those of linear, logistic, iris, convnet, charrnn and stacked.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gorgonia-kfac/kfac/graph_examples/internal/learn"
	"github.com/gorgonia-kfac/kfac/graph_examples/internal/trial"
)

// A model can be asked for by the name of its program.
type model struct {
	learn.Program
	run func(context.Context, trial.Settings) error
}

var models = []model{
	{linear, linear.Run},
	{logistic, logistic.Run},
	{flowers, flowers.Run},
	{convnet, convnet.Run},
	{charrnn, charrnn.Run},
	{stacked, runStacked},
}

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run trains the model that the first argument names, by the flags that follow. It returns the exit
// status.
func run(args []string, stderr io.Writer) int {
	var names []string
	for _, m := range models {
		if len(args) > 0 && args[0] == m.Name {
			return trial.Main("compare "+m.Name, args[1:], m.Defaults, m.run, stderr)
		}
		names = append(names, m.Name)
	}
	fmt.Fprintf(stderr, "compare: which model? go run ./graph_examples/compare NAME [flags], where NAME is one of %s\n",
		strings.Join(names, ", "))
	return 2
}

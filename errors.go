package kfac

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Sentinels that errors.Is finds inside the typed errors below.
var (
	// ErrNotFinite: a NaN or an infinity in the input, a gradient, the weights, the statistics or
	// the result.
	ErrNotFinite = curvature.ErrNotFinite
	// ErrNotPosDef: a damped factor could not be factorised although its damping was raised.
	ErrNotPosDef = curvature.ErrNotPosDef
	// ErrNoGradient: a parameter has no gradient, because Grad was not called for it, RunAll not
	// yet, or the VM keeps none.
	ErrNoGradient = errors.New("no gradient")
	// ErrNoValue: a parameter has no value yet.
	ErrNoValue = errors.New("no value")
	// ErrOtherList: the parameters given are not those of the chunks before, for one update.
	ErrOtherList = errors.New("not the list of the chunks before")
	// ErrForeign: Step was given something that is no parameter of this solver's graph.
	ErrForeign = errors.New("not a parameter of this cost")
	// ErrShape: a value has another shape or dtype than the graph says.
	ErrShape = errors.New("shape or dtype mismatch")
	// ErrLoss: the cost is not the negative log-likelihood of the declared distribution.
	ErrLoss = errors.New("the cost is not the declared distribution's negative log-likelihood")
	// ErrGradient: the gradient that the user's VM produced is not the gradient of the cost.
	ErrGradient = errors.New("the gradient is not that of the cost")
	// ErrUnsupported: the graph holds something that can't be run privately.
	ErrUnsupported = errors.New("unsupported")
	// ErrAveraged: the parameters hold the averaged weights of UseAverage.
	ErrAveraged = errors.New("the parameters hold the averaged weights")
	// ErrSameName: two parameters of one graph have the same name, by which Attach tells them
	// apart.
	ErrSameName = errors.New("two parameters of one name")
	// ErrOtherWeights: in a graph that was attached a parameter has not the weights that it was
	// trained to.
	ErrOtherWeights = errors.New("not the weights that it was trained to")
	// ErrSharedMemory: two parameters have weights in the same memory.
	ErrSharedMemory = errors.New("two parameters share memory")
	// ErrStrict: WithStrict is set and a parameter would not get a Kronecker block.
	ErrStrict = errors.New("no Kronecker block")
)

// ConfigError is a mistake in the arguments of NewSolver or Attach.
type ConfigError struct {
	Setting string // the argument or option, e.g. "WithDamping"
	Got     string
	Want    string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("kfac: %s: got %s; want %s", e.Setting, e.Got, e.Want)
}

// ParamError is a problem with one parameter given to Step. No weight has been changed.
type ParamError struct {
	Param string // its name
	Op    string // what was being done, e.g. "reading the gradient"
	Hint  string // what to try
	Err   error
}

func (e *ParamError) Error() string {
	return withHint(fmt.Sprintf("kfac: parameter %q: %s: %v", e.Param, e.Op, e.Err), e.Hint)
}

func (e *ParamError) Unwrap() error { return e.Err }

// LayerError is a failure in the curvature of one layer. No weight has been changed.
type LayerError struct {
	Layer   string  // the name of the layer's weight
	Op      string  // what was being done, e.g. "Cholesky factorisation of A"
	Dim     int     // size of the factor, or 0
	Damping float64 // what was added to the factor's diagonal last, or 0
	Hint    string
	Err     error
}

func (e *LayerError) Error() string {
	s := fmt.Sprintf("kfac: layer %q: %s", e.Layer, e.Op)
	if e.Dim > 0 {
		s += fmt.Sprintf(" (%d x %d, damping %.3g)", e.Dim, e.Dim, e.Damping)
	}
	return withHint(fmt.Sprintf("%s: %v", s, e.Err), e.Hint)
}

func (e *LayerError) Unwrap() error { return e.Err }

// LossError says how the cost differs from what the declared distribution demands. No weight has
// been changed.
type LossError struct {
	Output   string // the output, e.g. `Categorical(logits)`
	Expected string
	Found    string
	Hint     string
}

func (e *LossError) Error() string {
	return withHint(fmt.Sprintf("kfac: %s: %v: expected %s; found %s", e.Output, ErrLoss, e.Expected, e.Found), e.Hint)
}

func (e *LossError) Unwrap() error { return ErrLoss }

// GradientError says that a parameter's gradient differs from the private program's. No weight has
// been changed.
type GradientError struct {
	Param    string
	Relative float64 // norm of the difference / norm of the right gradient
	Ratio    float64 // least-squares factor between the two; NaN if the right gradient is zero
	Hint     string
}

func (e *GradientError) Error() string {
	return withHint(fmt.Sprintf("kfac: parameter %q: %v: it differs by %.3g of the gradient's norm "+
		"(best factor between the two: %.4g)", e.Param, ErrGradient, e.Relative, e.Ratio), e.Hint)
}

func (e *GradientError) Unwrap() error { return ErrGradient }

// GraphError is a problem with the user's graph. No weight has been changed.
type GraphError struct {
	Node string // the node's name
	What string
	Hint string
	Err  error
}

func (e *GraphError) Error() string {
	return withHint(fmt.Sprintf("kfac: node %q: %s: %v", e.Node, e.What, e.Err), e.Hint)
}

func (e *GraphError) Unwrap() error { return e.Err }

func withHint(s, hint string) string {
	if hint == "" {
		return s
	}
	return s + " (" + strings.TrimSpace(hint) + ")"
}

// PanicError is a panic in an op of the user's graph, or in this package. No weight has been changed,
// and the solver is as it was.
type PanicError struct {
	Call  string // the method, e.g. "Step"
	Value any    // what was given to panic
	Stack []byte // where it was
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("kfac: %s: panic: %v (in an op of the graph, or a fault of this package: please report it; "+
		"weights and state are as they were)\n%s", e.Call, e.Value, e.Stack)
}

// Unwrap is the error that was given to panic, if it is one.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// recovered makes a panic of the caller its error.
func recovered(call string, err *error) {
	switch r := recover().(type) {
	case nil:
	case *parallel.Panic: // of another goroutine
		*err = &PanicError{Call: call, Value: r.Value, Stack: r.Stack}
	default:
		*err = &PanicError{Call: call, Value: r, Stack: debug.Stack()}
	}
}

package kfac

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
)

// Errors wrapped by the typed errors below. Test for them with errors.Is.
var (
	// ErrNotFinite: there is a NaN or an infinity in the input, a gradient, the weights, the
	// statistics or the result.
	ErrNotFinite = curvature.ErrNotFinite
	// ErrNotPosDef: a damped factor could not be factorised, even with raised damping.
	ErrNotPosDef = curvature.ErrNotPosDef
	// ErrNoGradient: a parameter has no gradient. Grad was not called for it, RunAll was not called
	// yet, or the VM does not keep gradients.
	ErrNoGradient = errors.New("no gradient")
	// ErrNoValue: a parameter has no value yet.
	ErrNoValue = errors.New("no value")
	// ErrOtherList: the parameters given are not those of the earlier chunks of the same update.
	ErrOtherList = errors.New("not the list of the chunks before")
	// ErrForeign: a node given to Step is not a parameter of the solver's graph. Attach returns it
	// if the new graph has none of the parameters.
	ErrForeign = errors.New("not a parameter of this cost")
	// ErrShape: a value does not have the shape or dtype of its node.
	ErrShape = errors.New("shape or dtype mismatch")
	// ErrEmpty: a node has a shape with a 0 in it: a parameter without elements, or a batch without
	// cases. Or a rank has a single case, of the weight 0.
	ErrEmpty = errors.New("no elements")
	// ErrLoss: the cost is not the negative log-likelihood of the declared distribution.
	ErrLoss = errors.New("the cost is not the declared distribution's negative log-likelihood")
	// ErrNotInferred: a solver of New can't tell from the graph what the cost is, or what the model
	// predicts.
	ErrNotInferred = errors.New("what the model predicts can't be told from the graph")
	// ErrGradient: the gradient from the user's VM is not the gradient of the cost.
	ErrGradient = errors.New("the gradient is not that of the cost")
	// ErrStale: what the graph holds is not what the solver's VM has run last, or Step has taken in
	// that run before.
	ErrStale = errors.New("not what was run")
	// ErrAveraged: the parameters hold the averaged weights of UseAverage. Restore them first.
	ErrAveraged = errors.New("the parameters hold the averaged weights")
	// ErrSameName: two parameters of one graph have the same name. Attach identifies parameters by
	// name.
	ErrSameName = errors.New("two parameters of one name")
	// ErrOtherWeights: in an attached graph, a parameter's weights are not the weights that
	// training has reached; or those of a rank of WithCommunicator are not those of rank 0.
	ErrOtherWeights = errors.New("not the weights that it was trained to")
	// ErrSharedMemory: the weights of two parameters lie in the same memory.
	ErrSharedMemory = errors.New("two parameters share memory")
	// ErrTruncated: a file of a state ends before its end, as where writing was interrupted.
	ErrTruncated = errors.New("the file is truncated")
	// ErrDamaged: a file of a state is not what was written.
	ErrDamaged = errors.New("the file is damaged")
	// ErrForeignFile: a file is none that Save has written.
	ErrForeignFile = errors.New("not a file of a solver's state")
	// ErrNewerFile: a file of a state was written by a later version of this package.
	ErrNewerFile = errors.New("a file of a later version")
	// ErrOlderFile: a file of a state was written by an earlier version of this package, which this
	// one does not read.
	ErrOlderFile = errors.New("a file of an earlier version")
	// ErrOtherModel: a file holds the state of another model.
	ErrOtherModel = errors.New("the state of another model")
	// ErrOtherSettings: a file holds the state of a solver with other settings.
	ErrOtherSettings = errors.New("the state of a solver with other settings")
	// ErrInner: Save can't write the state of the solver of WithInner or GroupSolver.
	ErrInner = errors.New("the inner solver's state can't be read")
	// ErrInUpdate: Save or Load was called between Accumulate and Step.
	ErrInUpdate = errors.New("in the middle of an update")
	// ErrRankLeft: a rank of a Communicator takes no part any more. Its program has ended, or it
	// can't be reached.
	ErrRankLeft = errors.New("the rank has left")
	// ErrOutOfStep: the ranks of a Communicator have called different operations.
	ErrOutOfStep = errors.New("the ranks are out of step")
	// ErrOtherRank: ranks differ in what has to be the same on all of them.
	ErrOtherRank = errors.New("not the same on all ranks")
	// ErrStrict: WithStrict is set, and a parameter would not get a Kronecker block.
	ErrStrict = errors.New("no Kronecker block")
)

// ConfigError reports an invalid argument of New, NewSolver or Attach, a group that the parameters
// do not have, an invalid call of UseAverage, or a call during another one of the same Solver.
type ConfigError struct {
	Setting string // the argument, option or method, e.g. "WithDamping"
	Got     string // the argument as it is
	Want    string // the valid arguments
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("kfac: %s: got %s; want %s", e.Setting, e.Got, e.Want)
}

// ParamError reports a problem with one parameter. No weight has been changed.
type ParamError struct {
	Param string // name of the parameter
	Op    string // the operation that failed, e.g. "reading the gradient"
	Hint  string // what to try; may be empty
	Err   error
}

func (e *ParamError) Error() string {
	return withHint(fmt.Sprintf("kfac: parameter %q: %s: %v", e.Param, e.Op, e.Err), e.Hint)
}

func (e *ParamError) Unwrap() error { return e.Err }

// LayerError reports a failure in the curvature of one layer. No weight has been changed.
type LayerError struct {
	Layer   string  // name of the layer's weight
	Op      string  // the operation that failed, e.g. "Cholesky factorisation of A"
	Dim     int     // size of the factor, or 0
	Damping float64 // last value added to the factor's diagonal, or 0
	Hint    string  // what to try; may be empty
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

// LossError reports that the cost is not the negative log-likelihood of the declared distribution.
// It wraps ErrLoss. No weight has been changed.
type LossError struct {
	Output   string // the output, e.g. `Categorical(logits)`
	Expected string // what the distribution requires
	Found    string // what the cost does instead
	Hint     string // what to try; may be empty
}

func (e *LossError) Error() string {
	return withHint(fmt.Sprintf("kfac: %s: %v: expected %s; found %s", e.Output, ErrLoss, e.Expected, e.Found), e.Hint)
}

func (e *LossError) Unwrap() error { return ErrLoss }

// InferenceError reports that a solver of [New] can't tell from the graph of the parameters what is
// minimised, or what the model predicts. It wraps ErrNotInferred. No weight has been changed.
type InferenceError struct {
	Cost    string   // name of the cost; empty if it was not found
	Found   string   // what stands in the way
	Outputs []string // nodes that may be the model's outputs, or the cost, with their shapes
	Hint    string   // the line to write
}

func (e *InferenceError) Error() string {
	where := "kfac: "
	if e.Cost != "" {
		where += fmt.Sprintf("cost %q: ", e.Cost)
	}
	s := fmt.Sprintf("%s%v: %s", where, ErrNotInferred, e.Found)
	if len(e.Outputs) > 0 {
		s += "; candidates: " + strings.Join(e.Outputs, ", ")
	}
	return withHint(s, e.Hint)
}

func (e *InferenceError) Unwrap() error { return ErrNotInferred }

// GradientError reports that a parameter's gradient differs from the gradient of the cost as the
// solver computes it. It wraps ErrGradient. No weight has been changed.
type GradientError struct {
	Param    string  // name of the parameter
	Relative float64 // norm of the difference divided by the norm of the right gradient
	Ratio    float64 // least-squares factor between the two; NaN if the right gradient is zero
	Hint     string  // what to try; may be empty
}

func (e *GradientError) Error() string {
	return withHint(fmt.Sprintf("kfac: parameter %q: %v: it differs by %.3g of the gradient's norm "+
		"(best factor between the two: %.4g)", e.Param, ErrGradient, e.Relative, e.Ratio), e.Hint)
}

func (e *GradientError) Unwrap() error { return ErrGradient }

// GraphError reports a problem with the user's graph. No weight has been changed.
type GraphError struct {
	Node string // name of the node
	What string // the operation that failed
	Hint string // what to try; may be empty
	Err  error
}

func (e *GraphError) Error() string {
	return withHint(fmt.Sprintf("kfac: node %q: %s: %v", e.Node, e.What, e.Err), e.Hint)
}

func (e *GraphError) Unwrap() error { return e.Err }

// RankError reports what went wrong on one rank of a Communicator, to all of them. No weight has
// been changed.
type RankError struct {
	Rank int
	Op   string // the operation that failed
	Hint string // what to try; may be empty
	Err  error
}

func (e *RankError) Error() string {
	return withHint(fmt.Sprintf("kfac: rank %d: %s: %v", e.Rank, e.Op, e.Err), e.Hint)
}

func (e *RankError) Unwrap() error { return e.Err }

func withHint(s, hint string) string {
	if hint == "" {
		return s
	}
	return s + " (" + strings.TrimSpace(hint) + ")"
}

// StateError reports that a state could not be saved or loaded. Nothing has been changed: neither
// the solver, nor a weight, nor the file that SaveFile was to replace.
type StateError struct {
	Call string // the method, e.g. "Load"
	What string // what is wrong, in detail; may be empty
	Hint string // what to try; may be empty
	Err  error
}

func (e *StateError) Error() string {
	s := fmt.Sprintf("kfac: %s: %v", e.Call, e.Err)
	if e.What != "" {
		s += ": " + e.What
	}
	return withHint(s, e.Hint)
}

func (e *StateError) Unwrap() error { return e.Err }

// stateError says in an error which call has failed. Errors about parameters go through.
func stateError(call string, err error) error {
	var param *ParamError
	var config *ConfigError
	var state *StateError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &param), errors.As(err, &config):
		return err
	case errors.As(err, &state):
		state.Call = call
		return state
	}
	return &StateError{Call: call, Err: err}
}

// PanicError is a panic in an op of the user's graph, in a function of the user's that the solver
// calls, such as a Schedule, or in this package. No weight has been changed, and the solver is as
// it was.
type PanicError struct {
	Call  string // the method, e.g. "Step"
	Value any    // what was given to panic
	Stack []byte // where it was
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("kfac: %s: panic: %v (in an op of the graph, in a function of yours such as a Schedule, or "+
		"a fault of this package: please report that; weights and state are as they were)\n%s",
		e.Call, e.Value, e.Stack)
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

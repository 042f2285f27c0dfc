package kfac

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/curvature"
	"github.com/gorgonia-kfac/kfac/internal/kernels"
	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/linalg"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// A block is the curvature of one layer, of a chain of layers, or of parameters outside layers,
// together with these parameters. It is kept from graph to graph.
type block[T program.Float] struct {
	curvature.Block[T]
	name   string         // identifies the block to Attach: its kind and the settings that the kind depends on
	groups []group[T]     // one for each layer, or for each parameter outside layers
	v, u   [][]T          // by group: gradient and direction
	rows   []rowBuffer[T] // buffers for the block's hook

	inverse curvature.Inverse[T] // the current one; nil if there is none yet
	home    home                 // of the inverse, among the ranks
}

// A group holds the parameters that share V and U: a layer's weight and bias, or a single
// parameter.
type group[T program.Float] struct {
	params []*parameter[T]
	names  []string // of the parameters, or of what the group has of them
	shape  curvature.Shape
	at     [][]int // by parameter: the elements of it that are the group's; nil for all
	// apart: V is in other coordinates, or the weight is out x in and V interleaves weight and
	// bias. So the gradients and directions of the parameters are separate copies.
	apart  bool
	coords *coordinates[T] // that V and U are in; nil for the parameters' own
	places []place[T]      // by parameter: the gradient and the direction of its elements

	previous []T   // scratch: the previous updates of the parameters, in coords
	picked   [][]T // scratch: by parameter, elements that are picked
}

// newBlock makes the block of the given groups. rows is the number of row buffers.
func newBlock[T program.Float](name string, c curvature.Block[T], rows int, groups ...group[T]) *block[T] {
	b := &block[T]{Block: c, name: name, groups: groups, rows: make([]rowBuffer[T], rows)}
	for i := range groups {
		g := &b.groups[i]
		size := 0
		for k := range g.params {
			size += g.size(k)
		}
		v, u := make([]T, size), make([]T, size)
		b.v, b.u = append(b.v, v), append(b.u, u)
		for k := range g.params {
			n := g.size(k)
			at := place[T]{grad: v[:n:n], direction: u[:n:n]}
			if g.apart {
				at = place[T]{grad: make([]T, n), direction: make([]T, n)}
			} else {
				v, u = v[n:], u[n:]
			}
			g.places = append(g.places, at)
		}
	}
	return b
}

// groupOfOne returns the group of a parameter outside layers, or of some of its elements.
func groupOfOne[T program.Float](p *parameter[T], at []int) group[T] {
	name := p.name
	if at != nil {
		name += ", other elements"
	}
	return group[T]{params: []*parameter[T]{p}, names: []string{name}, at: [][]int{at}}
}

// layerGroup returns the group of a layer with its weight and its bias, which may be nil.
func layerGroup[T program.Float](l *layers.Layer, weight, bias *parameter[T]) group[T] {
	g := group[T]{
		params: []*parameter[T]{weight}, names: []string{l.Name()}, at: [][]int{l.WeightAt}, shape: shapeOf(l),
	}
	if bias != nil {
		g.params, g.names = append(g.params, bias), append(g.names, l.BiasName())
		g.at, g.apart = append(g.at, l.BiasAt), l.OutByIn
	}
	return g
}

// size is the number of the group's elements of a parameter.
func (g *group[T]) size(param int) int {
	if at := g.at[param]; at != nil {
		return len(at)
	}
	return g.params[param].size()
}

// of picks the group's elements out of something of a parameter. The result may be scratch.
func (g *group[T]) of(param int, all []T) []T {
	at := g.at[param]
	if at == nil {
		return all
	}
	if g.picked == nil {
		g.picked = make([][]T, len(g.params))
	}
	g.picked[param] = linalg.Resized(g.picked[param], len(at))
	gather(g.picked[param], all, at)
	return g.picked[param]
}

// in returns the group of a layer with coordinates of its own, or without.
func (g group[T]) in(coords bool) group[T] {
	g.coords, g.apart = nil, len(g.params) > 1 && g.shape.OutByIn
	if coords && g.shape.In > 0 {
		g.coords, g.apart = &coordinates[T]{}, true
	}
	return g
}

// matches reports whether the block has this name, these parameters and factors of these shapes.
func (b *block[T]) matches(name string, groups []group[T]) bool {
	return b.name == name && slices.EqualFunc(b.groups, groups, func(x, y group[T]) bool {
		return x.shape == y.shape && slices.Equal(x.params, y.params) &&
			slices.EqualFunc(x.at, y.at, func(x, y []int) bool { return slices.Equal(x, y) })
	})
}

// apply computes U = (F + damping)^-1 V from the gradients of the parameters. low is V in low-rank
// form, or nil.
func (b *block[T]) apply(inverse curvature.Inverse[T], low *curvature.LowRank[T]) {
	if low != nil {
		inverse.(*curvature.KroneckerInverse[T]).ApplyLowRank(b.u[0], low)
	} else {
		inverse.Apply(b.u, b.v)
	}
}

// direct makes U the directions of the parameters.
func (b *block[T]) direct() {
	if rate := b.own().rate; rate != 1 {
		for _, u := range b.u {
			linalg.Scale(T(rate), u)
		}
	}
	b.weave(false)
}

// sameFactors reports parameters that share a block, but not its factors.
func sameFactors[T program.Float](b *block[T]) error {
	first := b.groups[0].params[0]
	for _, g := range b.groups {
		for _, p := range g.params {
			if !p.own.sameFactors(&first.own) {
				return &ConfigError{"GroupLambda or GroupRate", fmt.Sprintf("others for %q than for %q, "+
					"which have one block", p.name, first.name), "both in one group"}
			}
		}
	}
	return nil
}

// own are the settings of the block, whose factors are those of all of its parameters.
func (b *block[T]) own() *own { return &b.groups[0].params[0].own }

// weave copies gradients into V if together, and U to the directions otherwise. It does so only for
// groups whose parameters have separate copies, or have other elements too.
func (b *block[T]) weave(together bool) {
	for i := range b.groups {
		g := &b.groups[i]
		for k, at := range g.at {
			if at != nil && together {
				gather(g.places[k].grad, g.params[k].grad, at)
			}
		}
		switch {
		case !g.apart:
		case together:
			g.weave(gradientIn, b.v[i], func(p int) []T { return g.places[p].grad })
		default:
			g.weave(directionOut, b.u[i], func(p int) []T { return g.places[p].direction })
		}
		for k, at := range g.at {
			if at != nil && !together {
				scatter(g.params[k].direction, g.places[k].direction, at)
			}
		}
	}
}

// weave fills the matrix m, which is in the group's coordinates, from what the weight and the bias
// have in their own. With directionOut it is the other way round.
func (g *group[T]) weave(to change, m []T, of func(param int) []T) {
	weight, s := of(0), g.shape
	scale, _ := g.coords.factors()
	rows, cols, stride := s.In, s.Out, s.Out // of the weight; stride is from row to row of m
	if s.OutByIn {
		rows, cols, stride = s.Out, s.In, s.Abar()
	}
	parallel.Rows(rows, cols, func(first, end int) {
		for r := first; r < end; r++ {
			x, w := m[r*stride:r*stride+cols], weight[r*cols:(r+1)*cols]
			switch to {
			case gradientIn:
				kernels.Scale(1/scale, x, w)
			case directionOut:
				kernels.Scale(1/scale, w, x)
			case weightsIn:
				kernels.Scale(scale, x, w)
			}
		}
	})
	if s.Bias {
		g.weaveBias(to, m, weight, of(1))
	}
}

// weaveBias does the rest of weave for a layer with a bias, whose column or row of m is the last.
func (g *group[T]) weaveBias(to change, m, weight, bias []T) {
	s := g.shape
	mi, mo, wi, wo := s.Out, 1, s.Out, 1 // strides of m and of the weight, by input and by output
	if s.OutByIn {
		mi, mo, wi, wo = 1, s.Abar(), 1, s.In
	}
	last := m[s.In*mi:]
	scale, unit := g.coords.factors()
	for o := range bias {
		switch x := &last[o*mo]; to {
		case gradientIn:
			*x = unit * bias[o]
		case directionOut:
			bias[o] = unit * *x
		case weightsIn:
			*x = bias[o] / unit
		}
	}
	for i := range s.In {
		shift := g.coords.shiftOf(i)
		if shift == 0 {
			continue
		}
		for o := range s.Out {
			switch x, w := &m[i*mi+o*mo], weight[i*wi+o*wo]; to {
			case gradientIn:
				*x -= shift * bias[o] / scale
			case directionOut:
				bias[o] -= shift * w
			case weightsIn:
				last[o*mo] += shift * w / unit
			}
		}
	}
}

// given reports whether all parameters of the group were given.
func (g *group[T]) given() bool {
	for _, p := range g.params {
		if !p.given {
			return false
		}
	}
	return true
}

// layerError converts an error of package curvature to a *LayerError.
func (b *block[T]) layerError(err error) error {
	var e *curvature.Error
	if !errors.As(err, &e) {
		return err
	}
	op := e.Op
	if e.Next {
		op += " with " + b.groups[e.Layer+1].names[0]
	}
	hint := "a NaN, an infinity or an overflow in its inputs, or in the gradients that reach it: " +
		"look at the data and at the weights"
	if e.Dim > 0 {
		hint = "raise WithDamping, or look for inputs of very different scales"
	}
	return &LayerError{Layer: b.groups[e.Layer].names[0], Op: op, Dim: e.Dim, Damping: e.Damping, Err: e.Err,
		Hint: hint}
}

// signature says what a block is: its kind, parameters, and the form of its factors.
func (b *block[T]) signature() string { return signatureOf(b.name, b.groups) }

func signatureOf[T program.Float](name string, groups []group[T]) string {
	for _, g := range groups {
		for k, p := range g.params {
			name += ", " + p.key.String()
			if at := g.at[k]; at != nil {
				name += " at " + hashOf(at)
			}
		}
		name += fmt.Sprintf(", %+v", g.shape)
	}
	return name
}

// hashOf tells lists of elements apart.
func hashOf(at []int) string {
	h := fnv.New64a()
	for _, i := range at {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// A savedBlock says what a block is, and where its state is.
type savedBlock struct {
	Path      string
	Params    []string // names
	Signature string
	// Coordinates are the groups that have coordinates of their own, which in another graph, where
	// a layer is the last, they would not have.
	Coordinates []int
	Factors     bool // its averages and inverses are there too
}

// A storedBlock is the state of a block that the plan lacks, until a graph brings it.
type storedBlock struct {
	savedBlock
	from      *archive
	elsewhere bool // another rank takes the averages
}

// A planned is the solver's plan for the parameters in one graph.
type planned[T program.Float] struct {
	report Plan
	model  *model[T]
	layers []*layers.Layer // the layers found

	params map[*gorgonia.Node]*parameter[T]
	frozen []*gorgonia.Node           // parameters that stay as they are
	order  []*parameter[T]            // the parameters of the plan
	places map[*parameter[T]]place[T] // by parameter of order
	absent []*parameter[T]            // parameters that the graph lacks; their state is kept for later graphs

	blocks    []*block[T]                   // the blocks of order
	hooks     []hook[T]                     // by block; nil if there is nothing to observe
	blocksOf  map[*parameter[T]][]*block[T] // by parameter of order and absent
	unreduced map[*block[T]]bool            // blocks that observe the inputs themselves, not means over positions

	// oneHot says by weight, for each of its uses in order, whether the inputs are one-hot rows.
	// The inputs of the first step with the use decide it.
	oneHot map[key][]bool
	// divided says how parameters are divided that have layers of parts of them, or changing.
	divided   map[key]string
	stored    []storedBlock         // of a loaded state, whose blocks no graph has brought yet
	jobs      map[*block[T]]*job[T] // of blocks whose state was stored, for the background
	undecided bool                  // a use is new, and its graph's first step is still to come

	path  program.Path // from the observed nodes to the outputs
	reach program.Path // from the parameters to the outputs, for forward mode

	inverseOperations, iterationOperations float64 // operations of all inverses, and of the user's RunAll
	allOperations                          float64 // of the RunAlls of all ranks; 0 where there are none
}

// setPlaces gives the parameters their places in this plan's graph.
func (p *planned[T]) setPlaces() {
	for _, q := range p.absent {
		q.place = place[T]{}
	}
	for _, q := range p.order {
		q.place = p.places[q]
	}
}

// describe returns the plan for the user. unreached are the parameters that the cost does not
// depend on.
func (p *planned[T]) describe(unreached []*gorgonia.Node) Plan {
	plan := p.report
	if h := p.model.hessian; h != nil {
		plan.Notes = append(slices.Clip(plan.Notes), h.notes()...)
	}
	add := func(nodes []*gorgonia.Node, t Treatment, why string) {
		for _, n := range nodes {
			row := ParamPlan{Name: program.NameOf(n), Shape: n.Shape(), Treatment: t, Reason: why}
			plan.Params = append(slices.Clip(plan.Params), row)
		}
	}
	add(p.frozen, Frozen, "by GroupFrozen it stays as it is")
	add(unreached, Unreached, "the cost does not depend on it, so it stays as it is")
	return plan
}

// A planner decides the treatment of parameters and makes their blocks.
type planner[T program.Float] struct {
	cfg   *config
	graph *graph[T]
	// The plan before this one. Its parameters and blocks are used again where they are the same.
	before  *planned[T]
	settled bool // a Step or Accumulate has named the parameters
	early   bool // the graph's inputs need not hold a batch yet

	planned[T]
	observed []*program.Node // nodes that the sampled backward sweep must reach
	rows     map[*gorgonia.Node]ParamPlan
	parts    map[*gorgonia.Node][]ParamPlan // of parameters that are divided
	chains   [][]*layers.Layer
}

// plan decides the treatment of the given parameters. A block keeps its state if its parameters
// stay the same.
func (pl *planner[T]) plan(nodes []*gorgonia.Node) (*planned[T], error) {
	nodes, err := pl.thaw(nodes)
	if err != nil {
		return nil, err
	}
	if pl.model, err = pl.graph.modelFor(nodes); err != nil {
		return nil, err
	}
	pl.params, pl.blocksOf = map[*gorgonia.Node]*parameter[T]{}, map[*parameter[T]][]*block[T]{}
	pl.places, pl.rows = map[*parameter[T]]place[T]{}, map[*gorgonia.Node]ParamPlan{}
	pl.parts = map[*gorgonia.Node][]ParamPlan{}
	pl.unreduced, pl.oneHot, pl.divided = map[*block[T]]bool{}, map[key][]bool{}, map[key]string{}
	var leaves []*program.Node
	for _, n := range nodes {
		p := pl.before.params[n]
		if p == nil {
			p = newParameter[T](n)
		}
		pl.params[n] = p
		pl.order = append(pl.order, p)
		p.own = pl.cfg.groups.of(n)
		if leaf := pl.model.Node(n); leaf != nil && p.own.solver == nil && p.own.treatment == "" {
			leaves = append(leaves, leaf)
		}
	}
	found, rest := layers.Find(pl.model.Program, leaves, layers.Asked{OneHot: pl.isOneHot, Stays: pl.stays})
	for k, is := range pl.before.oneHot { // of weights that this graph lacks
		if _, ok := pl.oneHot[k]; !ok && pl.settled {
			pl.oneHot[k] = is
		}
	}
	for k, how := range pl.before.divided {
		if _, ok := pl.divided[k]; !ok {
			pl.divided[k] = how
		}
	}
	pl.planLayers(found, &rest)
	pl.planRest(rest)
	pl.joinParts()
	pl.planAsked(nodes)
	pl.planUnrelated(nodes)
	pl.reportOn(nodes)
	if err := pl.strict(nodes); err != nil {
		return nil, err
	}
	for _, b := range pl.blocks {
		if err := sameFactors(b); err != nil {
			return nil, err
		}
	}
	pl.placeAll()
	pl.count()
	pl.house(pl.cfg)
	made := pl.planned // a copy, so that the planner and the plan before can be freed
	return &made, nil
}

// thaw leaves out the parameters that stay as they are, and checks the groups.
func (pl *planner[T]) thaw(nodes []*gorgonia.Node) ([]*gorgonia.Node, error) {
	if len(pl.cfg.groups) == 0 {
		return nodes, nil
	}
	all := slices.Clone(nodes)
	for _, n := range pl.graph.guessParameters() {
		if pl.cfg.groups.frozen(n) && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	if err := pl.cfg.groups.distinct(all, !pl.settled && !pl.early); err != nil {
		return nil, err
	}
	var trained []*gorgonia.Node
	for _, n := range all {
		if pl.cfg.groups.frozen(n) {
			pl.frozen = append(pl.frozen, n)
		} else {
			trained = append(trained, n)
		}
	}
	return trained, nil
}

// isOneHot reports whether the inputs of the next use of a weight are one-hot rows.
func (pl *planner[T]) isOneHot(weight, input *program.Node) bool {
	k := keyOf(weight.Src)
	use := len(pl.oneHot[k])
	before := pl.before.oneHot[k]
	switch {
	case !pl.settled || use >= len(before) && !pl.early:
		pl.oneHot[k] = append(pl.oneHot[k], program.IsOneHot(input))
	case use < len(before):
		pl.oneHot[k] = append(pl.oneHot[k], before[use])
	default:
		pl.undecided = true
		return false
	}
	return pl.oneHot[k][use]
}

// changing is how a parameter is divided that was divided in several ways.
const changing = "changing"

// stays reports whether a parameter is divided, or not, as it was in the steps before. If not, its
// layers would have no averages in the next steps, and it is taken as a whole from then on.
func (pl *planner[T]) stays(param *program.Node, parts string) bool {
	k := keyOf(param.Src)
	before, known := pl.before.divided[k]
	if !known && parts == "" {
		return true
	}
	if known && before != parts {
		parts = changing
	}
	pl.divided[k] = parts
	return parts != changing
}

// moved reports whether the user has moved a slice that is a weight or a bias.
func (p *planned[T]) moved() bool { return slices.ContainsFunc(p.layers, (*layers.Layer).Moved) }

// strict returns an error if WithStrict is set and a parameter has no Kronecker block.
func (pl *planner[T]) strict(nodes []*gorgonia.Node) error {
	if !pl.cfg.strict {
		return nil
	}
	for i, r := range pl.report.Params {
		asked := pl.order[i].own.treatment != "" || pl.order[i].own.solver != nil
		treatment := r.Treatment
		for _, part := range pl.parts[nodes[i]] {
			if part.Treatment != Kronecker {
				treatment = part.Treatment
			}
		}
		if treatment != Kronecker && !asked {
			return &ParamError{Param: r.Name, Op: "planning: " + string(treatment) + ", " + r.Reason, Err: ErrStrict,
				Hint: "leave out WithStrict to accept it"}
		}
	}
	return nil
}

// placeAll finds the places of the parameters in the graph, and the parameters that the graph
// lacks.
func (pl *planner[T]) placeAll() {
	var reached []*program.Node
	for _, b := range pl.blocks {
		for _, g := range b.groups {
			for i, p := range g.params {
				if g.at[i] == nil {
					pl.places[p] = g.places[i]
				} else if pl.places[p].grad == nil {
					pl.places[p] = pl.placeOfAll(p)
				}
			}
		}
	}
	for n, p := range pl.params {
		at := pl.places[p]
		at.src, at.leaf = n, pl.model.Node(n)
		if p.own.solver != nil {
			at.grad = make([]T, p.size())
			pl.places[p] = at
			continue
		}
		at.reached = at.leaf != nil && pl.model.CheckDifferentiable(pl.model.Path(at.leaf)) == nil
		pl.places[p] = at
	}
	for _, p := range pl.order {
		if at := pl.places[p]; at.reached {
			reached = append(reached, at.leaf)
		}
	}
	pl.path, pl.reach = pl.model.Path(pl.observed...), pl.model.Path(reached...)
	if !pl.settled {
		return
	}
	for _, p := range slices.Concat(pl.before.order, pl.before.absent) {
		thawed := !slices.ContainsFunc(pl.frozen, func(n *gorgonia.Node) bool { return keyOf(n) == p.key })
		if !slices.Contains(pl.order, p) && thawed {
			pl.absent = append(pl.absent, p)
			pl.blocksOf[p] = pl.before.blocksOf[p]
		}
	}
}

// placeOfAll returns the place of a parameter that several blocks share.
func (pl *planner[T]) placeOfAll(p *parameter[T]) place[T] {
	for _, b := range pl.before.blocksOf[p] {
		for _, g := range b.groups {
			if i := slices.Index(g.params, p); i >= 0 && g.at[i] != nil {
				return pl.before.places[p]
			}
		}
	}
	return place[T]{grad: make([]T, p.size()), direction: make([]T, p.size())}
}

// part adds what is done with some elements of a parameter.
func (pl *planner[T]) part(n *gorgonia.Node, t Treatment, block, reason string) {
	pl.parts[n] = append(pl.parts[n], ParamPlan{Treatment: t, Block: block, Reason: reason})
}

// joinParts makes the rows of the parameters that are divided.
func (pl *planner[T]) joinParts() {
	for n, parts := range pl.parts {
		t := parts[0].Treatment // of layers, if there are some
		var blocks, reasons []string
		for _, p := range parts {
			if p.Block != "" && !slices.Contains(blocks, p.Block) {
				blocks = append(blocks, p.Block)
			}
			if !slices.Contains(reasons, p.Reason) {
				reasons = append(reasons, p.Reason)
			}
		}
		pl.row(n, t, joinFirst(blocks), joinFirst(reasons))
	}
}

// joinFirst joins a list, of which it leaves out the middle if it is long.
func joinFirst(all []string) string {
	const most = 4
	if len(all) > most {
		left := fmt.Sprintf("%d more", len(all)-most+1)
		all = slices.Concat(all[:most-2], []string{left}, all[len(all)-1:])
	}
	return strings.Join(all, "; ")
}

// rowOf is the row of a parameter, or, where at is not nil, says what is done with those elements.
func (pl *planner[T]) rowOf(n *gorgonia.Node, at []int, t Treatment, block, reason string) {
	if at == nil {
		pl.row(n, t, block, reason)
	} else {
		pl.part(n, t, block, reason)
	}
}

func (pl *planner[T]) row(n *gorgonia.Node, t Treatment, block, reason string) {
	pl.rows[n] = ParamPlan{Name: program.NameOf(n), Shape: n.Shape(), Treatment: t, Block: block, Reason: reason}
}

// use makes a block, or one from before, part of the plan.
func (pl *planner[T]) use(b *block[T], h hook[T]) {
	pl.blocks, pl.hooks = append(pl.blocks, b), append(pl.hooks, h)
	for _, g := range b.groups {
		for _, p := range g.params {
			pl.blocksOf[p] = append(pl.blocksOf[p], b)
		}
	}
	if h != nil {
		pl.observed = append(pl.observed, h.observed()...)
	}
}

// same returns the earlier block with this name and these groups, or a new block. After graphs with
// other chains, the earlier block may be known to only one of the layers.
func (pl *planner[T]) same(name string, rows int, make func() curvature.Block[T], groups ...group[T]) *block[T] {
	for _, g := range groups {
		for _, p := range g.params {
			for _, b := range pl.before.blocksOf[p] {
				if b.matches(name, groups) {
					return b
				}
			}
		}
	}
	for _, s := range pl.before.stored {
		if s.Signature == signatureOf(name, groups) {
			for i, g := range groups {
				groups[i] = g.in(slices.Contains(s.Coordinates, i))
			}
		}
	}
	return newBlock(name, make(), rows, groups...)
}

// planLayers makes the blocks of the layers that the sampled gradients can reach. It adds the
// parameters of the other layers to rest.
func (pl *planner[T]) planLayers(found []*layers.Layer, rest *[]layers.Rest) {
	for _, l := range found {
		if err := pl.model.CheckDifferentiable(pl.model.Path(l.Outputs()...)); err != nil {
			*rest = append(*rest, layers.Rest{Param: l.Weight, At: l.WeightAt, Why: err.Error()})
			if l.Bias != nil {
				*rest = append(*rest, layers.Rest{Param: l.Bias, At: l.BiasAt, Why: err.Error()})
			}
			continue
		}
		l.Approximate(pl.model.Program, pl.cfg.approximation())
		pl.layers = append(pl.layers, l)
		reason := l.Describe(pl.model.Cases)
		if pl.recurrent(l) {
			reason += ", its time steps " + string(pl.cfg.timing)
		}
		if eigen := pl.eigen(l); eigen != "" {
			reason += ", " + eigen
		}
		pl.rowOf(l.Weight.Src, l.WeightAt, Kronecker, l.Block(), reason)
		if l.Bias != nil {
			pl.rowOf(l.Bias.Src, l.BiasAt, Kronecker, l.Block(), l.DescribeBias())
		}
	}
	linked := map[*layers.Layer]bool{}
	if pl.cfg.tridiagonal {
		pl.chains = pl.cut(layers.Chains(pl.model.Program, pl.layers))
		for _, chain := range pl.chains {
			pl.chain(chain)
			for _, l := range chain {
				linked[l] = true
			}
		}
	}
	for _, l := range pl.layers {
		if !linked[l] {
			pl.single(l)
		}
	}
}

// cut cuts chains between layers of groups with other factors.
func (pl *planner[T]) cut(chains [][]*layers.Layer) (all [][]*layers.Layer) {
	own := func(l *layers.Layer) *own { return &pl.params[l.Weight.Src].own }
	for _, chain := range chains {
		for from := 0; from < len(chain); {
			to := from + 1
			for to < len(chain) && own(chain[to]).sameFactors(own(chain[from])) {
				to++
			}
			if to > from+1 {
				all = append(all, chain[from:to])
			}
			from = to
		}
	}
	return all
}

// recurrent reports whether the layer's time steps are to be treated as dependent on each other.
func (pl *planner[T]) recurrent(l *layers.Layer) bool {
	return pl.cfg.timing != TimeIndependent && l.Recurrent()
}

// eigen returns what the inverse of a layer does in the eigenbasis of its factors, or "".
func (pl *planner[T]) eigen(l *layers.Layer) string {
	embeds := slices.ContainsFunc(l.Sites, func(s layers.Site) bool { return s.Lookup || s.OneHot })
	switch {
	case embeds || l.Tied != nil || l.Channels > 0 || pl.recurrent(l):
		return ""
	case pl.cfg.ekfac:
		return "EKFAC"
	case pl.cfg.exactDamping:
		return "exact damping"
	}
	return ""
}

// shapeOf returns the properties of a layer that its factors depend on.
func shapeOf(l *layers.Layer) curvature.Shape {
	return curvature.Shape{
		In: l.In, Out: l.Out, Bias: l.Bias != nil, OutByIn: l.OutByIn, Tied: l.Tied != nil,
		DiagonalA: l.DiagonalA, DiagonalG: l.DiagonalG, Channels: l.Channels,
	}
}

func (pl *planner[T]) groupOf(l *layers.Layer) group[T] {
	var bias *parameter[T]
	if l.Bias != nil {
		bias = pl.params[l.Bias.Src]
	}
	g := layerGroup(l, pl.params[l.Weight.Src], bias)
	return g.in(pl.cfg.standardises && (pl.ofData(l) || pl.headOf(l) >= 0))
}

// ofData reports whether a layer's inputs are data that may be standardised.
func (pl *planner[T]) ofData(l *layers.Layer) bool {
	return l.Tied == nil && !l.Convolution() && pl.unlearned(l)
}

// unlearned reports whether a layer's inputs are numbers that no parameter is above.
func (pl *planner[T]) unlearned(l *layers.Layer) bool {
	var leaves []*program.Node
	for n := range pl.params {
		if leaf := pl.model.Node(n); leaf != nil {
			leaves = append(leaves, leaf)
		}
	}
	learned := pl.model.Path(leaves...)
	for _, s := range l.Sites {
		if s.Lookup || s.OneHot || learned.Has(s.Input) {
			return false
		}
	}
	return true
}

// headOf returns the index of the output that is that of a layer, plus its bias, or -1.
func (pl *planner[T]) headOf(l *layers.Layer) int {
	if l.Tied != nil {
		return -1
	}
	n := l.Sites[0].Output
	for {
		for i, o := range pl.model.outputs {
			if o.node == n {
				return i
			}
		}
		if len(n.Users) != 1 {
			return -1
		}
		n = n.Users[0]
		switch op := n.Op.(type) {
		case program.Reshape, program.Transpose:
		case program.Binary:
			if op.Kind != "+" {
				return -1
			}
		default:
			return -1
		}
	}
}

// single makes the block of a single layer, unless its parameters have the same block already.
func (pl *planner[T]) single(l *layers.Layer) {
	g, h := pl.groupOf(l), newLayerHook[T](l)
	s := g.shape
	name, make := "layer", func() curvature.Block[T] { return curvature.NewKronecker[T](s) }
	switch {
	case pl.recurrent(l), len(l.Sites) == 1 && pl.wasRecurrent(g): // recurrent also in a graph of a single time step
		name = "recurrent layer"
		make = func() curvature.Block[T] { return curvature.NewRecurrent[T](s, pl.cfg.timing == TimeStationary) }
	case pl.eigen(l) != "":
		name = pl.eigen(l) + " layer"
		make = func() curvature.Block[T] { return curvature.NewEigen[T](s, pl.cfg.ekfac) }
	case l.Convolution():
		make = func() curvature.Block[T] { return curvature.NewConvolution[T](s) }
	case l.Tied != nil:
		make = func() curvature.Block[T] { return curvature.NewTied[T](s) }
	}
	b := pl.same(name, len(h.layers), make, g)
	pl.use(b, pl.inCoordinates(h, b))
	pl.unreduced[b] = !l.Reduce
}

func (pl *planner[T]) wasRecurrent(g group[T]) bool {
	const name = "recurrent layer"
	groups := []group[T]{g}
	matches := func(b *block[T]) bool { return b.matches(name, groups) }
	return slices.ContainsFunc(pl.before.blocksOf[g.params[0]], matches) ||
		slices.ContainsFunc(pl.before.stored, func(s storedBlock) bool {
			return s.Signature == signatureOf(name, groups)
		})
}

// chain makes the block of a chain of layers, unless exactly this chain has one already. A chain
// that differs needs a new block, because all its moments must have the same weights.
func (pl *planner[T]) chain(chain []*layers.Layer) {
	groups, shapes := make([]group[T], len(chain)), make([]curvature.Shape, len(chain))
	for i, l := range chain {
		groups[i] = pl.groupOf(l)
		shapes[i] = groups[i].shape
	}
	make := func() curvature.Block[T] { return curvature.NewChain[T](shapes) }
	b := pl.same("chain", len(chain), make, groups...)
	pl.use(b, pl.inCoordinates(newLayerHook[T](chain...), b))
}

// inCoordinates gives a hook the coordinates of its block's layers.
func (pl *planner[T]) inCoordinates(h *layerHook[T], b *block[T]) *layerHook[T] {
	for i, l := range h.layers {
		h.coords, h.unlearned = append(h.coords, nil), append(h.unlearned, pl.unlearned(l))
		h.ofData, h.head = append(h.ofData, false), append(h.head, -1)
		if i < len(b.groups) && b.groups[i].coords != nil && l.Tied == nil {
			h.coords[i], h.ofData[i], h.head[i] = b.groups[i].coords, pl.ofData(l), pl.headOf(l)
		}
	}
	return h
}

// planRest makes the blocks of the parameters outside layers: small full blocks for those that act
// element by element, diagonal blocks for the others, and identities for those that the sampled
// gradients do not reach.
func (pl *planner[T]) planRest(rest []layers.Rest) {
	var reached []*program.Node
	why := map[*program.Node]string{}
	place := map[*program.Node]int{}
	for i, n := range pl.model.Nodes {
		place[n] = i
	}
	slices.SortStableFunc(rest, func(a, b layers.Rest) int { return cmp.Compare(place[a.Param], place[b.Param]) })
	for _, r := range rest {
		n := r.Param
		err := pl.model.CheckDifferentiable(pl.model.Path(n))
		switch {
		case err != nil:
			reason := err.Error()
			if pl.cfg.learningRate == 0 {
				reason += "; exact-Fisher products by finite differences"
			}
			pl.identity(n.Src, r.At, reason)
		case r.At != nil:
			pl.diagonal(n, r.At, r.Why)
		default:
			reached, why[n] = append(reached, n), r.Why
		}
	}
	done := map[*program.Node]bool{}
	for _, e := range layers.FindElementwise(pl.model.Program, reached, pl.cfg.fullBlock > 1) {
		pl.elementwise(e)
		for _, n := range e.Params {
			done[n] = true
		}
	}
	for _, n := range reached {
		if !done[n] {
			pl.diagonal(n, nil, why[n])
		}
	}
}

// smallBlock is the largest full block whose inverse costs so little that each step makes one.
const smallBlock = 32

// elementwise makes the block of parameters that act element by element: a full one for all of
// their elements, or, if that is too large, one for each channel.
func (pl *planner[T]) elementwise(e layers.Elementwise) {
	var groups []group[T]
	for _, n := range e.Params {
		groups = append(groups, groupOfOne(pl.params[n.Src], nil))
	}
	size := e.Params[0].Size()
	all := len(groups) * size
	width, channels := all, 1
	if all <= smallBlock || all > pl.cfg.fullBlock {
		c := curvature.NewElementwise[T](len(groups), size, min(pl.cfg.fullBlock, smallBlock))
		width, channels = c.Width(), c.Channels()
		make := func() curvature.Block[T] { return c }
		pl.use(pl.same("elementwise", len(groups), make, groups...), newElementwiseHook[T](e))
	} else {
		groups[0].shape.Out = all // what the inverse costs
		make := func() curvature.Block[T] { return curvature.NewFull[T](slices.Repeat([]int{size}, len(groups))...) }
		pl.use(pl.same("full", len(groups), make, groups...), newElementwiseHook[T](e))
	}
	for _, n := range e.Params {
		if width > 1 || channels == 1 {
			pl.row(n.Src, Full, elementwiseName(e, width, channels), e.Describe())
		} else {
			pl.row(n.Src, Diagonal, "", e.Describe())
		}
	}
}

// elementwiseName returns the names of the parameters and the sizes of their blocks.
func elementwiseName(e layers.Elementwise, width, channels int) string {
	if channels == 1 {
		return fmt.Sprintf("%s: %d x %d", e.Name(), width, width)
	}
	return fmt.Sprintf("%s: %d of %d x %d", e.Name(), channels, width, width)
}

// diagonal makes the block of a parameter, or of some of its elements.
func (pl *planner[T]) diagonal(n *program.Node, at []int, why string) {
	h := newParameterHook[T](n, at)
	g := groupOfOne(pl.params[n.Src], at)
	entries, size := h.entries, g.size(0)
	if at != nil {
		entries = size
	}
	make := func() curvature.Block[T] { return curvature.NewDiagonal[T](entries, size) }
	pl.use(pl.same(fmt.Sprintf("diagonal of %d", entries), 1, make, g), h)
	pl.rowOf(n.Src, at, Diagonal, "", whyOthers(at, Diagonal, why))
}

func (pl *planner[T]) identity(n *gorgonia.Node, at []int, why string) {
	make := func() curvature.Block[T] { return curvature.NewIdentity[T]() }
	pl.use(pl.same("identity", 0, make, groupOfOne(pl.params[n], at)), nil)
	pl.rowOf(n, at, Identity, "", whyOthers(at, Identity, why))
}

// whyOthers says why the elements that layers leave of a parameter have another treatment.
func whyOthers(at []int, t Treatment, why string) string {
	if at == nil {
		return why
	}
	return fmt.Sprintf("%d other elements %s: %s", len(at), t, why)
}

// planAsked plans for the parameters whose group says how.
func (pl *planner[T]) planAsked(nodes []*gorgonia.Node) {
	for _, n := range nodes {
		p, leaf := pl.params[n], pl.model.Node(n)
		switch {
		case p.own.solver != nil:
			pl.row(n, Excluded, "", fmt.Sprintf("by GroupSolver a %T steps it", *p.own.solver))
		case p.own.treatment == "" || leaf == nil:
		case p.own.treatment == Identity || pl.model.CheckDifferentiable(pl.model.Path(leaf)) != nil:
			pl.identity(n, nil, "by GroupTreatment")
		default:
			pl.diagonal(leaf, nil, "by GroupTreatment")
		}
	}
}

// planUnrelated makes the blocks of the parameters that the outputs do not depend on.
func (pl *planner[T]) planUnrelated(nodes []*gorgonia.Node) {
	for _, n := range nodes {
		if _, ok := pl.rows[n]; !ok {
			pl.identity(n, nil, "the declared outputs do not depend on it, only other terms of the cost")
		}
	}
}

// reportOn lists the rows in the order of the parameters, and the losses and notes of the whole
// graph.
func (pl *planner[T]) reportOn(nodes []*gorgonia.Node) {
	for _, n := range nodes {
		pl.report.Params = append(pl.report.Params, pl.rows[n])
	}
	for _, o := range pl.model.outputs {
		pl.report.Losses = append(pl.report.Losses, o.plan())
	}
	note := func(s string) { pl.report.Notes = append(pl.report.Notes, s) }
	if pl.cfg.tridiagonal {
		for _, s := range layers.DescribeChains(pl.chains) {
			note(s)
		}
	}
	if why := pl.model.Whole; why != "" && pl.model.Cases > 1 {
		note("statistics use the whole batch: " + why)
	}
	if n := wrongDropout(pl.graph.whole); n != nil {
		note(fmt.Sprintf("gradients are computed again: Gorgonia's are wrong for %q unless p is 0.5", n.Name()))
	}
}

// count computes the operations of the inverses and those of the user's VM. For the VM it counts
// the products with weights, forward and backward.
func (p *planned[T]) count() {
	for _, l := range p.layers {
		p.inverseOperations += shapeOf(l).InverseOperations()
		for _, s := range l.Sites {
			if !s.Lookup {
				p.iterationOperations += 6 * float64(s.Rows) * float64(l.In) * float64(l.Out)
			}
		}
	}
}

// load counts what the inverse of a block costs.
func (b *block[T]) load(cfg *config) (l load) {
	for i, g := range b.groups {
		l.operations += g.shape.InverseOperations()
		l.inverse += g.shape.InverseNumbers()
		numbers := float64(len(b.u[i]))
		l.direction += numbers
		l.work += 2 * numbers * float64(g.shape.Abar()+g.shape.Out)
	}
	if cfg.eigenproblems() {
		l.operations *= eigenWork
	}
	l.needed = b.neededByAll()
	return l
}

// neededByAll reports whether all ranks need the inverse, since averages depend on it.
func (b *block[T]) neededByAll() bool {
	_, needed := b.Block.(curvature.Rebased[T])
	return needed
}

// house gives the blocks of a plan homes. One that has an inverse stays where it is.
func (p *planned[T]) house(cfg *config) {
	if cfg.ranks == nil || cfg.ranks.Size() == 1 {
		return
	}
	var loads []load
	var moving []*block[T]
	busy := make([]float64, cfg.ranks.Size())
	for _, b := range p.blocks {
		switch {
		case b.Immediate():
		case b.inverse == nil:
			moving, loads = append(moving, b), append(loads, b.load(cfg))
		case b.home.rank > 0:
			busy[b.home.rank-1] += b.load(cfg).at(b.home)
		}
	}
	for i, h := range cfg.placement.homes(loads, busy) {
		moving[i].home = h
	}
}

// carryOver finds the parameters of the earlier plan in another graph, by name and shape.
func carryOver[T program.Float](before *planned[T], g *graph[T]) (
	params map[*gorgonia.Node]*parameter[T], nodes []*gorgonia.Node, err error) {
	if err := distinctNames(nodesOf(before.order)); err != nil {
		return nil, nil, err
	}
	all := slices.Concat(before.order, before.absent)
	known := map[key]bool{}
	for _, p := range all {
		known[p.key] = true
	}
	leaves := map[key]*gorgonia.Node{}
	for _, n := range g.whole.Nodes {
		if !n.IsLeaf() || n.Src.Op() != nil {
			continue
		}
		k := keyOf(n.Src)
		if leaves[k] != nil && known[k] {
			return nil, nil, sameName(k.name)
		}
		leaves[k] = n.Src
	}
	params = map[*gorgonia.Node]*parameter[T]{}
	for _, p := range all {
		if n := leaves[p.key]; n != nil {
			params[n] = p
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return nil, nil, &GraphError{Node: program.NameOf(g.cost), Err: ErrForeign,
			What: "looking for the parameters trained so far among the inputs of its graph",
			Hint: fmt.Sprintf("none of them has the name and shape of a parameter of the old graph (%s); "+
				"give a parameter the same name in every graph", names(before.order))}
	}
	return params, nodes, nil
}

func nodesOf[T program.Float](params []*parameter[T]) []*gorgonia.Node {
	nodes := make([]*gorgonia.Node, len(params))
	for i, p := range params {
		nodes[i] = p.src
	}
	return nodes
}

// names lists the first three parameters.
func names[T program.Float](params []*parameter[T]) (s string) {
	for i, p := range params {
		switch {
		case i == 3:
			return s + ", ..."
		case i > 0:
			s += ", "
		}
		s += fmt.Sprintf("%q of shape %s", p.name, p.shape)
	}
	return s
}

// distinctNames returns an error if two parameters have the same name. Their state could not be
// told apart in another graph.
func distinctNames(nodes []*gorgonia.Node) error {
	seen := map[string]bool{}
	for _, n := range nodes {
		if seen[n.Name()] {
			return sameName(program.NameOf(n))
		}
		seen[n.Name()] = true
	}
	return nil
}

func sameName(name string) error {
	return &ParamError{Param: name, Op: "carrying state from graph to graph", Err: ErrSameName,
		Hint: "parameters are known by their names: give each one its own, with gorgonia.WithName, in every graph"}
}

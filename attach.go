package kfac

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"

	"github.com/gorgonia-kfac/kfac/internal/layers"
	"github.com/gorgonia-kfac/kfac/internal/parallel"
	"github.com/gorgonia-kfac/kfac/internal/program"
)

// planned is what makePlan decides.
type planned[T program.Float] struct {
	plan    Plan
	params  map[*gorgonia.Node]*parameter[T]
	order   []*parameter[T]            // of the plan
	absent  []*parameter[T]            // that the graph lacks; their state waits for a graph that has them
	places  map[*parameter[T]]place[T] // of all these
	blocks  []block[T]
	layers  map[*layerBlock[T]]*layer // that the blocks are of
	uses    map[*elementwiseBlock[T]][][]program.Use
	path    program.Path // from what the blocks observe to the outputs
	reach   program.Path // from the parameters to the outputs, for forward mode
	period  int          // T3
	vectors bool         // an output that is a vector holds one number for each case
}

// adopt makes p current, for the first time or again after something with another plan has failed.
func (c *conductor[T]) adopt(p planned[T]) {
	c.planned = p
	c.sampler.use(c.graph)
	c.quadratic.forget()
	for q, at := range p.places {
		q.place = at
	}
	for b, l := range p.layers {
		b.layer = l
	}
	for b, u := range p.uses {
		b.uses = u
	}
	if c.model.VectorCases != p.vectors {
		setVectorCases(c.model, c.outputs, p.vectors)
	}
	for _, q := range p.absent {
		q.block.rest()
	}
	for _, b := range p.blocks {
		b.bind()
	}
}

// needsInverses reports whether a block has come with the step in progress.
func (c *conductor[T]) needsInverses() bool {
	return slices.ContainsFunc(c.blocks, block[T].needsInverse)
}

// makePlan decides the treatment of the given parameters and makes their blocks. Blocks whose parameters stay the same keep
// their state.
func (c *conductor[T]) makePlan(nodes []*gorgonia.Node) error {
	var leaves []*program.Node
	for _, n := range nodes {
		if leaf := c.model.Node(n); leaf != nil {
			leaves = append(leaves, leaf)
		}
	}
	tellCases(c.model, c.outputs, leaves)
	if c.runs == 0 {
		c.oneHot = map[string]bool{} // to be decided by the inputs of the first step
	}
	found, rest := layers.Find(c.model, leaves, c.isOneHot)

	old := c.params
	params := make(map[*gorgonia.Node]*parameter[T], len(nodes))
	var order []*parameter[T]
	for _, n := range nodes {
		p := old[n]
		if p == nil {
			p = &parameter[T]{key: keyOf(n)}
		}
		p.place = place[T]{src: n, leaf: c.model.Node(n), block: p.block}
		params[n] = p
		order = append(order, p)
	}
	pl := planner[T]{c: c, params: params, rows: map[*gorgonia.Node]ParamPlan{}, bound: map[*layerBlock[T]]*layer{}, uses: map[*elementwiseBlock[T]][][]program.Use{}}
	rest = pl.layers(found, rest)
	pl.others(rest)
	plan := pl.plan(nodes)
	if c.cfg.strict {
		for _, r := range plan.Params {
			if r.Treatment != Kronecker {
				return &ParamError{Param: r.Name, Op: "planning: " + string(r.Treatment) + ", " + r.Reason, Err: ErrStrict,
					Hint: "leave out WithStrict to accept it"}
			}
		}
	}
	var reached []*program.Node
	places := make(map[*parameter[T]]place[T], len(order))
	for _, p := range order {
		p.allocate()
		p.reached = p.leaf != nil && c.model.CheckDifferentiable(c.model.Path(p.leaf)) == nil
		if p.reached {
			reached = append(reached, p.leaf)
		}
		places[p] = p.place
	}
	var absent []*parameter[T]
	if c.settled() {
		absent = slices.DeleteFunc(slices.Concat(c.order, c.absent), func(p *parameter[T]) bool { return slices.Contains(order, p) })
	}
	for _, p := range absent {
		places[p] = place[T]{block: p.block}
	}
	c.adopt(planned[T]{plan: plan, params: params, order: order, absent: absent, places: places, blocks: pl.blocks, layers: pl.bound, uses: pl.uses,
		path: c.model.Path(pl.observed...), reach: c.model.Path(reached...), period: inversePeriod(pl.bound, c.cfg), vectors: c.model.VectorCases})
	return nil
}

// isOneHot decides by the first step's inputs whether a weight's inputs are one-hot rows; that remains.
func (c *conductor[T]) isOneHot(weight string, input *program.Node) bool {
	if c.runs == 0 {
		c.oneHot[weight] = program.IsOneHot(input)
	}
	return c.oneHot[weight]
}

// allocate makes the memory that a parameter does not share with its layer's block.
func (p *parameter[T]) allocate() {
	n := p.src.Shape().TotalSize()
	for _, s := range []*[]T{&p.grad, &p.dir, &p.velocity, &p.next, &p.gradBefore} {
		if *s == nil {
			*s = make([]T, n)
		}
	}
}

// planner makes the blocks of a plan.
type planner[T program.Float] struct {
	c        *conductor[T]
	params   map[*gorgonia.Node]*parameter[T]
	blocks   []block[T]
	bound    map[*layerBlock[T]]*layer
	uses     map[*elementwiseBlock[T]][][]program.Use
	chains   [][]*layer
	observed []*program.Node // what the sampled backward sweep has to reach
	rows     map[*gorgonia.Node]ParamPlan
}

func (pl *planner[T]) row(n *gorgonia.Node, t Treatment, block, reason string) {
	pl.rows[n] = ParamPlan{Name: n.Name(), Shape: n.Shape(), Treatment: t, Block: block, Reason: reason}
}

// layers makes blocks of the layers that the sampled gradients can reach; the parameters of the others go to rest.
func (pl *planner[T]) layers(found []*layer, rest []layers.Rest) []layers.Rest {
	var reached []*layer
	for _, l := range found {
		outputs := l.Outputs()
		if err := pl.c.model.CheckDifferentiable(pl.c.model.Path(outputs...)); err != nil {
			rest = append(rest, layers.Rest{Param: l.Weight, Why: err.Error()})
			if l.Bias != nil {
				rest = append(rest, layers.Rest{Param: l.Bias, Why: err.Error()})
			}
			continue
		}
		pl.observed = append(pl.observed, outputs...)
		reached = append(reached, l)
		l.Approximate(pl.c.model, pl.approximation())
		name := l.Block()
		reason := l.Describe(pl.c.model.Cases)
		if pl.recurrent(l) {
			reason += ", its time steps " + string(pl.c.cfg.timing)
		}
		pl.row(l.Weight.Src, Kronecker, name, reason)
		if l.Bias != nil {
			pl.row(l.Bias.Src, Kronecker, name, l.DescribeBias())
		}
	}
	linked := map[*layer]bool{}
	if pl.c.cfg.tridiagonal {
		for _, chain := range layers.Chains(pl.c.model, reached) {
			pl.blocks = append(pl.blocks, pl.chain(chain))
			pl.chains = append(pl.chains, chain)
			for _, l := range chain {
				linked[l] = true
			}
		}
	}
	for _, l := range reached {
		if !linked[l] {
			pl.blocks = append(pl.blocks, pl.single(l))
		}
	}
	return rest
}

func (pl *planner[T]) approximation() layers.Approximation {
	cfg := &pl.c.cfg
	sharing := map[WeightSharing]layers.Sharing{AutoSharing: layers.Auto, Expand: layers.Expand, Reduce: layers.Reduce}
	return layers.Approximation{MaxDim: cfg.maxDim, Sharing: sharing[cfg.sharing], Uncorrelated: cfg.uncorrelated}
}

// recurrent reports whether the layer's time steps are to be taken as depending on each other.
func (pl *planner[T]) recurrent(l *layer) bool {
	return pl.c.cfg.timing != TimeIndependent && l.Recurrent()
}

// single makes the block of a layer by itself, unless its parameters have had one so far.
func (pl *planner[T]) single(l *layer) block[T] {
	weight, bias := pl.parametersOf(l)
	recurrent := pl.recurrent(l)
	if b, ok := weight.block.(ofLayer[T]); ok && b.base().serves(l, weight, bias) {
		_, was := b.(*recurrentBlock[T])
		if was == recurrent || was && len(l.Sites) == 1 { // also where the graph is of a single time step
			return pl.assign(b, b.base(), l)
		}
	}
	var b ofLayer[T]
	switch {
	case recurrent:
		b = newRecurrentBlock(l, weight, bias, pl.c.cfg.timing)
	case l.Channels > 0:
		b = newUncorrelatedBlock(l, weight, bias)
	case l.Tied != nil:
		b = newTiedBlock(l, weight, bias)
	default:
		b = newKroneckerBlock(l, weight, bias)
	}
	return pl.assign(b, b.base(), l)
}

// assign gives a layer and its parameters to a block.
func (pl *planner[T]) assign(b block[T], of *layerBlock[T], l *layer) block[T] {
	pl.bound[of] = l
	of.weight.block = b
	if of.bias != nil {
		of.bias.block = b
	}
	return b
}

// chain makes the block of a chain of layers, unless there has been one of just these so far: its moments must all have the same weights.
func (pl *planner[T]) chain(chain []*layer) block[T] {
	b := pl.chainBefore(chain)
	if b == nil {
		links := make([]*layerBlock[T], len(chain))
		for i, l := range chain {
			weight, bias := pl.parametersOf(l)
			links[i] = newLayerBlock(l, weight, bias)
		}
		b = newChainBlock(links)
	}
	for i, l := range chain {
		pl.assign(b, b.links[i], l)
	}
	return b
}

// chainBefore is the block that there has been of just these layers, or nil. Where other graphs had other chains, one of the layers may still know it.
func (pl *planner[T]) chainBefore(chain []*layer) *chainBlock[T] {
	for _, l := range chain {
		weight, _ := pl.parametersOf(l)
		b, ok := weight.block.(*chainBlock[T])
		if ok && slices.EqualFunc(b.links, chain, func(b *layerBlock[T], l *layer) bool {
			weight, bias := pl.parametersOf(l)
			return b.serves(l, weight, bias)
		}) {
			return b
		}
	}
	return nil
}

// parametersOf are the weight and the bias of a layer; the bias is nil if there is none.
func (pl *planner[T]) parametersOf(l *layer) (weight, bias *parameter[T]) {
	if l.Bias != nil {
		bias = pl.params[l.Bias.Src]
	}
	return pl.params[l.Weight.Src], bias
}

// others makes the blocks of the parameters outside layers: small ones where they act element by element, or else diagonal ones, and identities where the
// sampled gradients do not reach.
func (pl *planner[T]) others(rest []layers.Rest) {
	var reached []*program.Node
	why := map[*program.Node]string{}
	for _, r := range rest {
		why[r.Param] = r.Why
	}
	for _, n := range pl.c.model.Nodes {
		if _, ok := why[n]; !ok {
			continue
		}
		if err := pl.c.model.CheckDifferentiable(pl.c.model.Path(n)); err != nil {
			pl.blocks = append(pl.blocks, pl.identity(pl.params[n.Src]))
			reason := err.Error()
			if pl.c.cfg.learningRate == 0 {
				reason += "; exact-Fisher products by finite differences"
			}
			pl.row(n.Src, Identity, "", reason)
			continue
		}
		reached = append(reached, n)
		pl.observed = append(pl.observed, n)
	}
	done := map[*program.Node]bool{}
	for _, e := range layers.FindElementwise(pl.c.model, reached, pl.c.cfg.fullBlock > 1) {
		b := pl.elementwiseBlock(e)
		pl.blocks = append(pl.blocks, b)
		for _, n := range e.Params {
			done[n] = true
			if b.width > 1 || b.channels == 1 {
				pl.row(n.Src, Full, b.name(), e.Describe())
			} else {
				pl.row(n.Src, Diagonal, "", e.Describe())
			}
		}
	}
	for _, n := range reached {
		if !done[n] {
			pl.blocks = append(pl.blocks, pl.diagonal(pl.params[n.Src]))
			pl.row(n.Src, Diagonal, "", why[n])
		}
	}
}

// elementwiseBlock makes a block, unless its parameters have had one so far.
func (pl *planner[T]) elementwiseBlock(e layers.Elementwise) *elementwiseBlock[T] {
	var params []*parameter[T]
	for _, n := range e.Params {
		params = append(params, pl.params[n.Src])
	}
	b, ok := params[0].block.(*elementwiseBlock[T])
	if !ok || !slices.Equal(b.params, params) {
		b = newElementwiseBlock(params, pl.c.cfg.fullBlock)
	}
	pl.uses[b] = e.Uses
	for _, p := range params {
		p.block = b
	}
	return b
}

func (pl *planner[T]) diagonal(p *parameter[T]) block[T] {
	if b, ok := p.block.(*diagonalBlock[T]); ok && b.mean.n == diagonalSize(p.leaf) {
		return b
	}
	p.block = newDiagonalBlock(p)
	return p.block
}

func (pl *planner[T]) identity(p *parameter[T]) block[T] {
	p.block = &identityBlock[T]{p}
	return p.block
}

// plan lists the rows in the order of the parameters. What has no row yet is no ancestor of the outputs.
func (pl *planner[T]) plan(nodes []*gorgonia.Node) Plan {
	var plan Plan
	for _, n := range nodes {
		if _, ok := pl.rows[n]; !ok {
			pl.blocks = append(pl.blocks, pl.identity(pl.params[n]))
			pl.row(n, Identity, "", "the declared outputs do not depend on it, only other terms of the cost")
		}
		plan.Params = append(plan.Params, pl.rows[n])
	}
	for _, o := range pl.c.outputs {
		plan.Losses = append(plan.Losses, o.head.name())
	}
	if pl.c.cfg.tridiagonal {
		plan.Notes = append(plan.Notes, layers.DescribeChains(pl.chains)...)
	}
	if why := pl.c.model.Whole; why != "" && pl.c.model.Cases > 1 {
		plan.Notes = append(plan.Notes, "statistics use the whole batch: "+why)
	}
	if n := draws(pl.c.whole); n != nil && pl.c.cfg.gradientCheck {
		plan.Notes = append(plan.Notes, fmt.Sprintf("gradients are not checked: %v (%q) draws random numbers", n.Op, n.Name()))
	}
	return plan
}

// invert recomputes all inverses, several at a time.
func (c *conductor[T]) invert(gamma float64) (raised int, err error) {
	var first, then []func()
	for _, b := range c.blocks {
		c.background.drop(b)
		f, t := b.inversions(gamma)
		first, then = append(first, f...), append(then, t...)
	}
	parallel.Jobs(first)
	parallel.Jobs(then)
	for _, b := range c.blocks {
		n, err := b.inverted()
		if err != nil {
			return 0, err
		}
		raised += n
	}
	return raised, nil
}

// checkedRuns is the number of first RunAlls whose gradients are checked. The second shows what one alone can't: a machine that
// was not Reset, and a LispMachine that goes wrong in its second run of a graph.
const checkedRuns = 2

// checksGradients reports whether the gradients of the RunAll that is being taken in are checked: those of the first, and of the first of another graph
// at every doubling of their number.
func (c *conductor[T]) checksGradients() bool {
	doubled := c.runs&(c.runs+1) == 0
	return c.runs < checkedRuns || !c.used && doubled
}

// check compares the cost with the declared distribution at the first RunAll of each graph, whose scale it finds, and gradients with the
// cost.
func (c *conductor[T]) check() error {
	if !c.used {
		tail, err := newLossTail[T](c.cost, c.outputs, c.cfg.seed)
		if err != nil {
			return err
		}
		scales, err := checkLoss(tail, c.outputs, c.cfg.seed)
		if err != nil {
			return err
		}
		c.tail = tail
		// The same scale up to rounding as in the graph before is the same to the last bit, and so are the steps.
		for i, s := range scales {
			if i < len(c.scales) && math.Abs(s-c.scales[i]) <= rounding[T]()*s {
				scales[i] = c.scales[i]
			}
		}
		for i, o := range c.outputs {
			o.weight = scales[i] / scales[0]
		}
		c.scales, c.scale = scales, scales[0]
	}
	if c.cfg.gradientCheck && c.checksGradients() {
		return c.checkGradients()
	}
	return nil
}

package kfac

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/gorgonia-kfac/kfac/internal/program"
)

// What a training needs to go on somewhere else. Each part shows its values to a ledger, which
// writes or reads them. Reading makes new parameters and blocks, so that nothing has changed if it
// fails.

// contents says what a file is about: which model, and which parts of its state.
type contents struct {
	Dtype   string
	Outputs []string // kinds of distributions
	Params  []key    // of the plan, in its order
	Frozen  []key    // parameters that stay as they are
	Absent  []key    // parameters that the graph lacked
	Others  []key    // what looked like a parameter, and was none
	OneHot  []oneHot
	Divided []divided
	Blocks  []savedBlock
	Weights bool
}

// oneHot says which uses of a weight have one-hot inputs.
type oneHot struct {
	Weight key
	Uses   []bool
}

// divided says how a parameter is divided that has layers of parts of it.
type divided struct {
	Param key
	How   string
}

func (k key) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{k.name, k.shape}) }

func (k *key) UnmarshalJSON(data []byte) error {
	var pair [2]string
	err := json.Unmarshal(data, &pair)
	*k = key{pair[0], pair[1]}
	return err
}

// contents describes the training, but for the parts that options leave out.
func (t *training[T]) contents() contents {
	c := contents{Dtype: fmt.Sprint(t.plan.model.Dtype()), Outputs: t.graph.kinds(), Others: t.others()}
	for _, p := range t.plan.order {
		c.Params = append(c.Params, p.key)
	}
	for _, n := range t.plan.frozen {
		c.Frozen = append(c.Frozen, keyOf(n))
	}
	for _, p := range t.plan.absent {
		c.Absent = append(c.Absent, p.key)
	}
	for k, uses := range t.plan.oneHot {
		c.OneHot = append(c.OneHot, oneHot{k, uses})
	}
	slices.SortFunc(c.OneHot, func(a, b oneHot) int { return compareKeys(a.Weight, b.Weight) })
	for k, how := range t.plan.divided {
		c.Divided = append(c.Divided, divided{k, how})
	}
	slices.SortFunc(c.Divided, func(a, b divided) int { return compareKeys(a.Param, b.Param) })
	return c
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.shape, b.shape))
}

// kinds are those of the distributions of a graph's outputs.
func (g *graph[T]) kinds() (kinds []string) {
	for _, h := range g.heads {
		kinds = append(kinds, h.kind)
	}
	return kinds
}

// others are the nodes of the graph that look like parameters, and are none of the plan's.
func (t *training[T]) others() (others []key) {
	for _, n := range t.graph.guessParameters() {
		if t.plan.params[n] == nil {
			others = append(others, keyOf(n))
		}
	}
	return others
}

func (t *training[T]) done() int { return t.steps }

// idle reports why the state can't be saved or loaded now.
func (t *training[T]) idle() error {
	switch {
	case len(t.chunks) > 0:
		return &StateError{What: fmt.Sprintf("chunks accumulated: %d", len(t.chunks)), Err: ErrInUpdate,
			Hint: "save and load after Step"}
	case t.averaged:
		return &StateError{Err: ErrAveraged, Hint: "call the function that UseAverage returned"}
	}
	return nil
}

// save puts the state into an archive, whose tensors are the solver's own memory.
func (t *training[T]) save(a *archive, o stateOptions) error {
	if err := t.calling.begin("Save"); err != nil {
		return err
	}
	defer t.calling.end()
	if err := t.idle(); err != nil {
		return err
	}
	if err := savable(&t.cfg); err != nil && !o.noInner {
		return err
	}
	c := t.contents()
	c.Weights = !o.noWeights
	if err := distinctKeys(slices.Concat(c.Params, c.Frozen, c.Absent)); err != nil {
		return err
	}
	if err := t.ranks.collect(t.blocks()); err != nil {
		return err
	}
	back, err := t.ranks.lend(t.blocks(), t.background.jobs)
	if err != nil {
		return err
	}
	defer back()
	to := writer[T]{to: a}
	for _, s := range t.start.settings() {
		a.texts["settings/"+s.option] = s.value
	}
	t.progress.state(to)
	units := t.graph.measurement()
	units.state(to)
	for _, p := range slices.Concat(t.plan.order, t.plan.absent) {
		p.state(to)
		if !c.Weights {
			continue
		}
		w, err := p.presentWeights(!t.graph.used && t.settled())
		if err != nil {
			return err
		}
		to.Tensor("weights/"+p.name, w, p.extents...)
	}
	for _, n := range t.plan.frozen {
		if !c.Weights {
			break
		}
		p := newParameter[T](n)
		p.src = n
		if err := p.readWeights(false); err != nil {
			return err
		}
		to.Tensor("weights/"+p.name, p.weights.data, p.extents...)
	}
	for _, b := range t.blocks() {
		is := b.saved(!o.noFactors)
		c.add(&is)
		b.state(to.under(is.Path), t.background.jobs[b], is.Factors)
	}
	for _, s := range t.plan.stored {
		is := s.savedBlock
		c.add(&is)
		s.copyTo(a, is.Path)
	}
	to.Value("contents", &c)
	return nil
}

// add adds a block, whose path it makes one of its own.
func (c *contents) add(b *savedBlock) {
	for slices.ContainsFunc(c.Blocks, func(other savedBlock) bool { return other.Path == b.Path }) {
		b.Path = strings.TrimSuffix(b.Path, "/") + "~/"
	}
	c.Blocks = append(c.Blocks, *b)
}

func distinctKeys(keys []key) error {
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.name] {
			return sameName(k.name)
		}
		seen[k.name] = true
	}
	return nil
}

// blocks are those of the plan, and those that its absent parameters had.
func (t *training[T]) blocks() []*block[T] {
	all := slices.Clone(t.plan.blocks)
	for _, p := range t.plan.absent {
		for _, b := range t.plan.blocksOf[p] {
			if !slices.Contains(all, b) {
				all = append(all, b)
			}
		}
	}
	return all
}

func (p *progress) state(to scalars) {
	to.Count("steps", &p.steps)
	to.Count("runs", &p.runs)
	to.Flag("rebuilt", &p.rebuilt)
	to.Count("odd again", &p.odd.again)
	to.Count("skipped", &p.skipped.all)
	to.Count("skipped in a row", &p.skipped.inRow)
	for i := range p.turned {
		to.Flag("set/"+string(dials[i].Knob), &p.turned[i].is)
		to.Number("set to/"+string(dials[i].Knob), &p.turned[i].value)
	}
	to.Number("lambda", &p.control.lambda)
	to.Number("gamma", &p.control.gamma)
	to.Number("mismatch", &p.control.mismatch)
	to.Number("doubt", &p.control.doubt)
	to.Number("trace", &p.control.trace)
	n := &p.control.noise
	to.Number("noise factor", &n.factor)
	to.Number("noise curvature", &n.curvature)
	to.Number("noise stretch", &n.stretch)
	to.Number("noise approximate", &n.approximate)
	to.Number("noise fresh", &n.fresh)
	to.Number("evidence gain", &n.evidence.gain)
	to.Number("evidence bend", &n.evidence.bend)
	to.Count("evidence steps", &n.evidence.steps)
	to.Number("evidence fit", &n.evidence.fit)
	to.Number("evidence weight", &n.evidence.weight)
}

// state shows what a parameter has beside its weights.
func (p *parameter[T]) state(to ledger[T]) {
	to.Tensor("previous/"+p.name, p.previous, p.extents...)
	if to.Flag("headed/"+p.name, &p.heading.apart); p.heading.apart {
		if p.heading.sum == nil {
			p.heading.sum = make([]T, p.size())
		}
		to.Tensor("heading/"+p.name, p.heading.sum, p.extents...)
	}
	to.Count("averages/"+p.name, &p.averages)
	if p.averages == 0 {
		return
	}
	if p.mean == nil {
		p.mean = make([]T, p.size())
	}
	to.Tensor("average/"+p.name, p.mean, p.extents...)
}

func (m *measurement[T]) state(to ledger[T]) {
	m.scales = visitList(to, "scales", m.scales, func(name string, x *float64) { to.Number(name, x) })
	to.Flag("measured", &m.there)
	to.Count("measured/cases", &m.cases)
	to.Flag("measured/varies", &m.varies)
	m.weighs = visitList(to, "measured/weighs", m.weighs, func(name string, x *bool) { to.Flag(name, x) })
	to.Count("measured/width", &m.blocks.width)
	to.Flag("measured/coupled", &m.blocks.coupled)
	to.Flag("measured/kinked", &m.blocks.kinked)
	to.Flag("measured/saddle", &m.blocks.saddle)
	m.movers = visitList(to, "measured/movers", m.movers, func(name string, x *[]T) { to.List(name, x) })
}

// visitList shows a list whose length is a part of the state.
func visitList[E any](to scalars, name string, list []E, visit func(name string, e *E)) []E {
	n := len(list)
	to.Count(name, &n)
	for i := 0; i < n && !to.failed(); i++ {
		if i == len(list) {
			list = append(list, *new(E))
		}
		visit(fmt.Sprintf("%s/%d", name, i), &list[i])
	}
	return list
}

// A loading is a state that was read, and is not yet that of the training.
type loading[T program.Float] struct {
	progress
	measured measurement[T]
	plan     *planned[T]
	weights  map[*parameter[T]][]T // none if they are to stay
	frozen   []*parameter[T]       // what stood still, by its node, to be given its weights
}

// load makes the state in the archive that of the training. late says that the graph was run
// before, whose gradients are left there. undo gives the graph the weights that it had.
func (t *training[T]) load(a *archive, o stateOptions, late bool) (undo func(), err error) {
	if err := t.calling.begin("Load"); err != nil {
		return nil, err
	}
	defer t.calling.end()
	if err := t.idle(); err != nil {
		return nil, err
	}
	l, err := t.read(a, o)
	if err != nil {
		return nil, err
	}
	targets := make([]flat[T], len(l.plan.order))
	for i, p := range l.plan.order {
		if targets[i], err = p.findWeights(l.plan.places[p].src, nil); err != nil {
			return nil, err
		}
	}
	for _, p := range l.frozen {
		if p.weights, err = p.findWeights(p.src, nil); err != nil {
			return nil, err
		}
	}
	if err := t.ranks.meet(atCommit, nil); err != nil {
		return nil, err
	}
	var undone []func()
	put := func(p *parameter[T], w []T) {
		into, before := p.weights, slices.Clone(p.weights.data)
		p.put(w)
		undone = append(undone, func() { into.put(before) })
	}

	g := t.graph
	t.progress, t.background, t.unreached = l.progress, background[T]{}, nil
	t.adopt(g, l.plan)
	g.used, g.loaded, g.units = false, &l.measured, units{scales: l.measured.scales}
	g.machine.spend()
	t.plan.model.held = held{}
	for i, p := range t.plan.order {
		if w := l.weights[p]; w != nil {
			p.weights = targets[i]
			put(p, w)
		}
		if !late {
			zeroGradient(p.src)
		}
	}
	for _, p := range l.frozen {
		if w := l.weights[p]; w != nil {
			put(p, w)
		}
	}
	for _, p := range t.plan.absent { // with which they come back
		p.weights = flat[T]{data: l.weights[p]}
	}
	t.loadedLate = late
	return func() {
		for _, back := range undone {
			back()
		}
	}, nil
}

// read reads a state for the graph that the training has.
func (t *training[T]) read(a *archive, o stateOptions) (*loading[T], error) {
	from := newReader[T](a)
	var c contents
	from.Value("contents", &c)
	if err := from.err(); err != nil {
		return nil, err
	}
	if err := t.sameModel(&c); err != nil {
		return nil, err
	}
	if err := t.sameSettings(a, o); err != nil {
		return nil, err
	}
	if !c.Weights && !o.noWeights {
		return nil, &StateError{What: "it holds no weights", Err: ErrOtherModel,
			Hint: "give the parameters the weights of that training, and Load WithoutWeights"}
	}
	l := &loading[T]{weights: map[*parameter[T]][]T{}}
	l.progress.state(from)
	l.measured.state(from)
	before, nodes := t.readParams(from, &c)
	if err := from.err(); err != nil {
		return nil, err
	}
	for _, p := range slices.Concat(before.order, before.absent) {
		p.state(from)
	}
	stood := t.readFrozen(before, &c, &nodes)
	for _, p := range slices.Concat(before.order, before.absent, stood) {
		if p.src != nil && t.cfg.groups.frozen(p.src) {
			l.frozen = append(l.frozen, p)
		}
		if !o.noWeights {
			l.weights[p] = make([]T, p.size())
			from.Tensor("weights/"+p.name, l.weights[p], p.extents...)
		}
	}
	if err := from.err(); err != nil {
		return nil, err
	}
	for _, b := range c.Blocks {
		b.Factors = b.Factors && !o.noFactors
		before.stored = append(before.stored, storedBlock{b, a, !t.cfg.ranks.first()})
	}
	pl := planner[T]{cfg: &t.cfg, graph: t.graph, before: before, settled: l.runs > 0, early: true}
	var err error
	if l.plan, err = pl.plan(nodes); err != nil {
		return nil, err
	}
	if len(l.plan.absent) == 0 {
		if err := t.cfg.groups.distinct(slices.Concat(nodesOf(l.plan.order), l.plan.frozen), true); err != nil {
			return nil, err
		}
	}
	if err := l.plan.revive(before.stored, t.cfg.ranks); err != nil {
		return nil, err
	}
	if l.plan.undecided {
		return l, nil
	}
	return l, l.sameBlocks()
}

// readParams makes the parameters of a file, and the nodes of those that the graph has.
func (t *training[T]) readParams(from reader[T], c *contents) (before *planned[T], nodes []*gorgonia.Node) {
	before = &planned[T]{
		params: map[*gorgonia.Node]*parameter[T]{}, oneHot: map[key][]bool{}, divided: map[key]string{},
	}
	for _, d := range c.Divided {
		before.divided[d.Param] = d.How
	}
	for _, h := range c.OneHot {
		before.oneHot[h.Weight] = h.Uses
	}
	leaves := t.graph.leaves()
	for _, k := range slices.Concat(c.Params, c.Absent) {
		if n := leaves[k]; n != nil {
			p := newParameter[T](n)
			p.src, before.params[n] = n, p
			before.order, nodes = append(before.order, p), append(nodes, n)
			continue
		}
		p := &parameter[T]{key: k, extents: from.shape("previous/" + k.name)}
		p.previous = make([]T, tensor.Shape(p.extents).TotalSize())
		before.absent = append(before.absent, p)
	}
	return before, nodes
}

// readFrozen makes the parameters that stood still, without state.
func (t *training[T]) readFrozen(before *planned[T], c *contents, nodes *[]*gorgonia.Node) (all []*parameter[T]) {
	leaves := t.graph.leaves()
	for _, k := range c.Frozen {
		if n := leaves[k]; n != nil {
			p := newParameter[T](n)
			p.src, before.params[n] = n, p
			all, *nodes = append(all, p), append(*nodes, n)
		}
	}
	return all
}

// leaves are the inputs of a graph, by key.
func (g *graph[T]) leaves() map[key]*gorgonia.Node {
	leaves := map[key]*gorgonia.Node{}
	for _, n := range g.whole.Nodes {
		if n.IsLeaf() && n.Src.Op() == nil {
			leaves[keyOf(n.Src)] = n.Src
		}
	}
	return leaves
}

// sameModel reports a file of another model than that of the graph.
func (t *training[T]) sameModel(c *contents) error {
	other := func(format string, args ...any) error {
		return &StateError{What: fmt.Sprintf(format, args...), Err: ErrOtherModel,
			Hint: "load it into a solver of the model that it was saved from; parameters are known by name and shape"}
	}
	if dtype := fmt.Sprint(t.plan.model.Dtype()); dtype != c.Dtype {
		return other("its dtype is %s, and that of this model %s", c.Dtype, dtype)
	}
	if kinds := t.graph.kinds(); !slices.Equal(kinds, c.Outputs) {
		return other("its outputs are %v, and those of this model %v", c.Outputs, kinds)
	}
	leaves, shapes := t.graph.leaves(), map[string]string{}
	for k := range leaves {
		shapes[k.name] = k.shape
	}
	for _, k := range slices.Concat(c.Params, c.Frozen) {
		if leaves[k] == nil && shapes[k.name] != "" {
			return other("parameter %v has shape %s in this model", k, shapes[k.name])
		}
		if leaves[k] == nil {
			return other("this model has no parameter %v", k)
		}
	}
	known := slices.Concat(c.Params, c.Absent, c.Frozen, c.Others)
	for _, n := range t.graph.guessParameters() {
		if n.Deriv() != nil && !slices.Contains(known, keyOf(n)) {
			return other("it has no parameter %v, which this model has", keyOf(n))
		}
	}
	return nil
}

// sameSettings reports a file of a solver with other settings.
func (t *training[T]) sameSettings(a *archive, o stateOptions) error {
	differences, form := t.start.otherSettings(func(option string) string { return a.texts["settings/"+option] })
	switch {
	case differences == "":
		return nil
	case form && !(o.otherSettings && o.noFactors):
		return &StateError{What: differences, Err: ErrOtherSettings, Hint: "make the solver with those of the file; " +
			"its factors have another form, so that with others only Load WithoutFactors and WithOtherSettings is left"}
	case !o.otherSettings:
		return &StateError{What: differences, Err: ErrOtherSettings,
			Hint: "make the solver with those of the file, or Load WithOtherSettings to go on with these"}
	}
	return nil
}

// sameBlocks reports factors in the file whose parameters the graph has, but in a layer of another
// form.
func (l *loading[T]) sameBlocks() error {
	lacks := func(name string) bool {
		return slices.ContainsFunc(l.plan.absent, func(p *parameter[T]) bool { return p.name == name })
	}
	for _, s := range l.plan.stored {
		if s.Factors && !slices.ContainsFunc(s.Params, lacks) {
			return &StateError{What: fmt.Sprintf("the layer of %q has another form in this model: it was %s",
				s.Params[0], s.Signature), Err: ErrOtherModel, Hint: "Load WithoutFactors leaves the curvature out"}
		}
	}
	return nil
}

// savable reports a solver of another kind whose state can't be saved.
func savable(c *config) error {
	all := []gorgonia.Solver{c.inner}
	for i := range c.groups {
		if s := c.groups[i].solver; s != nil {
			all = append(all, *s)
		}
	}
	for _, s := range all {
		if _, plain := s.(*gorgonia.VanillaSolver); s != nil && !plain {
			return &StateError{What: fmt.Sprintf("it is a %T", s), Err: ErrInner,
				Hint: "Save WithoutInner leaves it out"}
		}
	}
	return nil
}

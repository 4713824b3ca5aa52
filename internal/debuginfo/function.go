// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"debug/dwarf"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// A Function is one that has code of its own.
type Function struct {
	Name       string // DW_AT_name: in C without its clone's suffix
	LowPC      uint64
	Ranges     [][2]uint64 // all its code: GCC puts unlikely parts elsewhere
	File       string
	Line       int
	IsGo       bool
	IsWrapper  bool
	Parameters []Parameter
	Results    []Parameter // of Go; those of C have no name and one type
	// Inlined says that it may have been inlined elsewhere too: InlinedAt finds where.
	Inlined bool

	unit   *unit
	entry  *dwarf.Entry
	origin dwarf.Offset // of the abstract function, else of the function
}

// A Parameter is an argument as declared.
type Parameter struct {
	Name string
	// Constant says that the compiler replaced it by a constant.
	Constant bool

	typ    dwarf.Offset
	hasTyp bool
	entry  *dwarf.Entry // where the concrete function says its place; nil: nowhere
	fn     *Function
}

// FunctionAt describes the function whose first instruction is at an address; the error is dwarf.ErrUnknownPC if the debug
// information knows none there.
func (d *Data) FunctionAt(low uint64) (*Function, error) {
	u, r, err := d.unitAt(low)
	if err != nil {
		return nil, err
	}
	if u.functions == nil && !u.asked {
		// The first question about a unit ends where its answer stands; who asks again will ask for more.
		u.asked = true
		e, err := d.walkFunctions(r, func(at uint64) bool { return at == low })
		if err != nil {
			return nil, err
		}
		return d.function(u, e)
	}
	if u.functions == nil {
		if err := d.index(u, r); err != nil {
			return nil, err
		}
	}
	off, ok := u.functions[low]
	if !ok {
		return nil, dwarf.ErrUnknownPC
	}
	r.Seek(off)
	e, err := r.Next()
	if err != nil {
		return nil, err
	}
	return d.function(u, e)
}

func (d *Data) index(u *unit, r *dwarf.Reader) error {
	u.functions = make(map[uint64]dwarf.Offset)
	var at uint64
	for range maxEntries {
		e, err := d.walkFunctions(r, func(low uint64) bool { at = low; return true })
		if errors.Is(err, dwarf.ErrUnknownPC) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := u.functions[at]; !ok {
			u.functions[at] = e.Offset
		}
		if err := d.skip(r, e); err != nil {
			return err
		}
	}
	return nil
}

// walkFunctions reads on in a unit to the next function that begins where is says.
func (d *Data) walkFunctions(r *dwarf.Reader, is func(low uint64) bool) (*dwarf.Entry, error) {
	for range maxEntries {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == dwarf.TagCompileUnit || e.Tag == dwarf.TagPartialUnit {
			return nil, dwarf.ErrUnknownPC
		}
		if e.Tag == dwarf.TagNamespace {
			continue // its children are functions too
		}
		if e.Tag == dwarf.TagSubprogram {
			if low, ok := d.lowPC(e); ok && is(low) {
				return e, nil
			}
		}
		if err := d.skip(r, e); err != nil {
			return nil, err
		}
	}
	return nil, dwarf.ErrUnknownPC
}

// lowPC is where a function begins: DW_AT_low_pc, or DW_AT_entry_pc, or the first of its ranges (where GCC puts the
// part that is called).
func (d *Data) lowPC(e *dwarf.Entry) (uint64, bool) {
	if low, ok := e.Val(dwarf.AttrLowpc).(uint64); ok {
		return low, true
	}
	if e.Val(dwarf.AttrRanges) == nil {
		return 0, false
	}
	if low, ok := e.Val(dwarf.AttrEntrypc).(uint64); ok {
		return low, true
	}
	ranges, err := d.dwarf.Ranges(e)
	if err != nil || len(ranges) == 0 {
		return 0, false
	}
	return ranges[0][0], true
}

func (d *Data) function(u *unit, e *dwarf.Entry) (*Function, error) {
	f := &Function{unit: u, entry: e, origin: e.Offset, IsGo: u.language == languageGo}
	f.LowPC, _ = d.lowPC(e)
	var err error
	if f.Ranges, err = d.dwarf.Ranges(e); err != nil {
		return nil, err
	}
	f.IsWrapper, _ = e.Val(dwarf.AttrTrampoline).(bool)

	chain, err := d.chain(e)
	if err != nil {
		return nil, err
	}
	f.Name, _ = first(chain, dwarf.AttrName).(string)
	line, _ := first(chain, dwarf.AttrDeclLine).(int64)
	f.Line = int(line)
	if file, ok := first(chain, dwarf.AttrDeclFile).(int64); ok {
		f.File = d.fileName(u, file)
	}
	own, err := d.parameters(e, f)
	if err != nil {
		return nil, err
	}
	declared := own
	if abstract := chain[len(chain)-1]; abstract.Offset != e.Offset {
		f.origin = chain[1].Offset
		f.Inlined = first(chain, dwarf.AttrInline) != nil
		if declared, err = d.declared(chain, own, f); err != nil {
			return nil, err
		}
	}
	for _, p := range declared {
		// Go marks its results: DW_AT_variable_parameter.
		if p.entry != nil && f.IsGo {
			if isResult, _ := first(p.chain, dwarf.AttrVarParam).(bool); isResult {
				f.Results = append(f.Results, p.Parameter)
				continue
			}
		}
		f.Parameters = append(f.Parameters, p.Parameter)
	}
	if f.IsGo {
		f.Parameters = inOrder(f.Parameters)
	} else {
		if off, ok := first(chain, dwarf.AttrType).(dwarf.Offset); ok {
			f.Results = []Parameter{{typ: off, hasTyp: true, fn: f}}
		}
	}
	return f, nil
}

// inOrder puts the parameters without a name, which Go's compiler calls ~p0, ~p1 by their position and lists last, where they
// are in the source.
func inOrder(list []Parameter) []Parameter {
	ordered := slices.DeleteFunc(slices.Clone(list), func(p Parameter) bool { return strings.HasPrefix(p.Name, "~p") })
	for _, p := range list {
		rest, ok := strings.CutPrefix(p.Name, "~p")
		if !ok {
			continue
		}
		i, err := strconv.Atoi(rest)
		if err != nil || i < 0 {
			i = len(ordered)
		}
		ordered = slices.Insert(ordered, min(i, len(ordered)), p)
	}
	return ordered
}

// parameterEntry is a parameter with the abstract one that it stands for.
type parameterEntry struct {
	Parameter
	chain []*dwarf.Entry
}

// parameters reads the formal parameters that are direct children of a function.
func (d *Data) parameters(of *dwarf.Entry, f *Function) ([]parameterEntry, error) {
	if !of.Children {
		return nil, nil
	}
	r := d.dwarf.Reader()
	r.Seek(of.Offset)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	var list []parameterEntry
	for len(list) < maxParameters {
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == 0 {
			return list, nil
		}
		if e.Tag == dwarf.TagFormalParameter {
			chain, err := d.chain(e)
			if err != nil {
				return nil, err
			}
			p := parameterEntry{Parameter: Parameter{entry: e, fn: f}, chain: chain}
			p.Name, _ = first(chain, dwarf.AttrName).(string)
			p.typ, p.hasTyp = first(chain, dwarf.AttrType).(dwarf.Offset)
			p.Constant = first(chain, dwarf.AttrConstValue) != nil
			list = append(list, p)
		}
		if err := d.skip(r, e); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("a function has too many parameters")
}

// declared lists the parameters of the abstract function in the order of the source, each with the entry of the concrete
// function that stands for it: a compiler leaves out those that it optimised away.
func (d *Data) declared(chain []*dwarf.Entry, own []parameterEntry, f *Function) ([]parameterEntry, error) {
	abstract, err := d.parameters(chain[1], f)
	if err != nil || len(abstract) == 0 {
		return own, err
	}
	used := make(map[dwarf.Offset]bool)
	var list []parameterEntry
	for _, a := range abstract {
		p := a
		p.entry = nil
		for _, o := range own {
			if len(o.chain) > 1 && o.chain[1].Offset == a.chain[0].Offset {
				p = o
				used[o.chain[0].Offset] = true
				break
			}
		}
		if p.entry == nil {
			p.entry = a.chain[0] // says the name and, in Go, whether it is a result; it has no place
		}
		list = append(list, p)
	}
	for _, o := range own {
		if !used[o.chain[0].Offset] {
			list = append(list, o)
		}
	}
	return list, nil
}

// chain is an entry followed by its abstract origin or specification, and theirs.
func (d *Data) chain(e *dwarf.Entry) ([]*dwarf.Entry, error) {
	chain := []*dwarf.Entry{e}
	for len(chain) < maxChain {
		last := chain[len(chain)-1]
		off, ok := last.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			off, ok = last.Val(dwarf.AttrSpecification).(dwarf.Offset)
		}
		if !ok {
			return chain, nil
		}
		r := d.dwarf.Reader()
		r.Seek(off)
		e, err := r.Next()
		if err != nil {
			return nil, err
		}
		if e == nil || e.Tag == 0 {
			return chain, nil
		}
		chain = append(chain, e)
	}
	return nil, errors.New("a function is described by a chain without end")
}

// first is the value of an attribute in the first entry of a chain that has it.
func first(chain []*dwarf.Entry, a dwarf.Attr) any {
	for _, e := range chain {
		if v := e.Val(a); v != nil {
			return v
		}
	}
	return nil
}

// Type is the parameter's type.
func (d *Data) Type(p Parameter) (*Type, error) {
	if !p.hasTyp {
		return nil, errNoType
	}
	return d.typeAt(p.typ, p.fn.unit.language)
}

// Locate says where a parameter is when the instruction at pc is about to run: its one place, or its pieces in order. fixed says
// that the compiler names this one place for the whole function, in whose first instructions nothing may be there yet.
// No place at all is one Location of kind LocationNone; an error says why a place that exists cannot be used.
func (d *Data) Locate(p Parameter, pc uint64) (places []Location, fixed bool, err error) {
	if p.entry == nil {
		return []Location{{Kind: LocationNone}}, false, nil
	}
	expr, isList, ok, err := d.expressionAt(p.fn.unit, p.entry, dwarf.AttrLocation, pc)
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return []Location{{Kind: LocationNone}}, false, nil
	}
	places, err = pieces(expr, &context{frameBase: d.frameBase(p.fn, pc), atEntry: pc == p.fn.LowPC})
	return places, !isList, err
}

// frameBase is what DW_OP_fbreg counts from.
func (d *Data) frameBase(f *Function, pc uint64) *Location {
	expr, _, ok, err := d.expressionAt(f.unit, f.entry, dwarf.AttrFrameBase, pc)
	if err != nil || !ok {
		return nil
	}
	l, err := evaluate(expr, &context{})
	if err != nil || l.Kind == LocationNone {
		return nil
	}
	// Whether it is a register or a sum, what it says is the address itself.
	l.Kind = LocationComputed
	return &l
}

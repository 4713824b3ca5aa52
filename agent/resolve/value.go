// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxCost bounds the ops that the values of a request without paths take, so that such a request always fits a plan.
const maxCost = 56

// maxSearch bounds the embedded and anonymous structs that a field's name is searched in.
const maxSearch = 64

// values finds what a request asks for at one site.
type values struct {
	program  *program
	function *function
	code     *code
	site     uint64
	spills   *prologue // nil until first asked for
}

// of answers the paths of a request: each as asked for or, without any, the parameters to depth 1; then those that only a
// condition names.
func (v *values) of(spec *probe.Spec) (list []target.Value, notes []string, err error) {
	conditions, err := probe.ParseWhere(spec.Where)
	if err != nil {
		return nil, nil, problem.New(problem.InvalidArgument, "%v", err)
	}
	if v.function.debug == nil {
		return v.unknown(spec, conditions)
	}
	if len(spec.Arguments) == 0 {
		list, notes = v.all()
	}
	for _, path := range spec.Arguments[:min(len(spec.Arguments), probe.MaxArguments)] {
		value, err := v.at(path)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, value)
	}
	for _, c := range conditions {
		if slices.ContainsFunc(list, func(x target.Value) bool { return x.Path == c.Path }) {
			continue
		}
		value, err := v.at(c.Path)
		if err != nil {
			return nil, nil, err
		}
		value.Condition = true
		list = append(list, value)
	}
	return list, notes, nil
}

// unknown answers for a function that no debug information describes: what was asked for by name is missing.
func (v *values) unknown(spec *probe.Spec, conditions []probe.Condition) (list []target.Value, notes []string, err error) {
	const detail = "no debug information describes this function: its calls can be seen, its arguments cannot"
	for _, path := range spec.Arguments[:min(len(spec.Arguments), probe.MaxArguments)] {
		names, err := split(path)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, target.Value{Path: path, Names: names, Kind: target.KindOther, Missing: event.NoDebugInfo, Detail: detail})
	}
	if len(conditions) > 0 {
		return nil, nil, problem.New(problem.FailedPrecondition, "the condition on %s cannot be checked: %s", conditions[0].Path, detail)
	}
	return list, []string{detail}, nil
}

func split(path string) ([]string, error) {
	names, err := probe.ParsePath(path)
	if err != nil {
		return nil, problem.New(problem.InvalidArgument, "%v", err)
	}
	return names, nil
}

// at finds the value of a path. The error is about the path; that a value cannot be read is said in it.
func (v *values) at(path string) (target.Value, error) {
	names, err := split(path)
	if err != nil {
		return target.Value{}, err
	}
	p, err := v.parameter(names[0])
	if err != nil {
		return target.Value{}, err
	}
	value := target.Value{Path: path, Names: names, Kind: target.KindOther}
	t, err := v.program.debug.Type(p)
	if err != nil {
		miss(&value, unsupported(err.Error()))
		return value, nil
	}
	pl, gone := v.locate(p, t)
	return v.walk(value, names, t, pl, gone)
}

// walk goes from a parameter or result to the value that a path names in it.
func (v *values) walk(value target.Value, names []string, t *debuginfo.Type, pl place, gone *missing) (_ target.Value, err error) {
	value.Names, value.Types = names[:1:1], []string{t.Name}
	length := false
	for i, name := range names[1:] {
		so := strings.Join(names[:i+1], ".")
		if i == len(names)-2 && name == "len" && (t.Kind == debuginfo.KindGoSlice || t.Kind == debuginfo.KindGoString) {
			length = true
			value.Names, value.Types = append(value.Names, name), append(value.Types, "int")
			break
		}
		var way []hop
		if pl, way, gone, err = v.step(pl, t, gone, name, so); err != nil {
			return target.Value{}, err
		}
		if way == nil {
			value.Names = append(value.Names, names[i+1:]...)
			value.Types = append(value.Types, make([]string, len(names)-i-1)...)
			miss(&value, gone)
			return value, nil
		}
		v.goThrough(&value, way)
		t = way[len(way)-1].typ
		if way[len(way)-1].Bits {
			gone = unsupported("bit field")
		}
	}
	v.fill(&value, pl, t, gone, length)
	return value, nil
}

// goThrough notes what a step went through: rules look at each name and type on the way, whether the path names it or not.
func (v *values) goThrough(value *target.Value, way []hop) {
	for i, h := range way {
		v.share(value, value.Names, &h)
		if h.Name == "" {
			continue // C leaves it anonymous
		}
		if i < len(way)-1 {
			value.Embedded = append(value.Embedded, len(value.Names))
		}
		value.Names, value.Types = append(value.Names, h.Name), append(value.Types, h.typ.Name)
	}
}

func (v *values) parameter(name string) (debuginfo.Parameter, error) {
	var known []string
	for _, p := range v.function.debug.Parameters {
		if p.Name == name {
			return p, nil
		}
		if isName(p.Name) {
			known = append(known, p.Name)
		}
	}
	for _, r := range v.function.debug.Results {
		if r.Name == name {
			return r, problem.New(problem.InvalidArgument, "%s is a result of %s: ask for it with --ret", name, v.function.name)
		}
	}
	e := problem.New(problem.NotFound, "%s has no parameter %q", v.function.name, name)
	e.Candidates = known
	if len(known) > 0 {
		e.Message += "; it has " + strings.Join(known, ", ")
	}
	return debuginfo.Parameter{}, e
}

// isName says whether a parameter has a name that a path can use: not _ nor one that a compiler made up.
func isName(s string) bool {
	names, err := probe.ParsePath(s)
	return err == nil && len(names) == 1 && s != "_"
}

// step goes from a value to its field, through pointers, and says by which way. No way says that it ends here, and gone why.
func (v *values) step(pl place, t *debuginfo.Type, gone *missing, name, so string) (place, []hop, *missing, error) {
	for hops := 0; t.Kind == debuginfo.KindPointer; hops++ {
		to, err := v.program.debug.Elem(t)
		if err != nil || hops == maxLoads {
			return pl, nil, unsupported(fmt.Sprintf("%s is a pointer to what cannot be read", so)), nil
		}
		if t = to; gone == nil {
			pl, gone = pl.follow()
		}
	}
	switch t.Kind {
	case debuginfo.KindStruct:
	case debuginfo.KindGoOther, debuginfo.KindGoSlice, debuginfo.KindArray:
		return pl, nil, unsupported(fmt.Sprintf("%s is of type %s: what is inside of it cannot be read yet", so, t.Name)), nil
	default:
		return pl, nil, nil, problem.New(problem.NotFound, "%s is of type %s, which has no field %q", so, t.Name, name)
	}
	way, err := v.field(t, name)
	if err != nil {
		return pl, nil, nil, err
	}
	if way == nil {
		return pl, nil, nil, v.noField(t, name, so)
	}
	for _, hop := range way {
		if hop.pointer && gone == nil {
			pl, gone = pl.follow()
		}
		pl = pl.field(hop.Offset)
	}
	return pl, way, gone, nil
}

func (v *values) noField(t *debuginfo.Type, name, so string) error {
	e := problem.New(problem.NotFound, "%s is of type %s, which has no field %q", so, t.Name, name)
	fields, err := v.program.debug.Fields(t)
	if err != nil {
		return e
	}
	for _, f := range fields[:min(len(fields), maxCandidates)] {
		if f.Name != "" {
			e.Candidates = append(e.Candidates, so+"."+f.Name)
		}
	}
	return e
}

// A hop is one field on the way to another one: through what Go embeds and C leaves anonymous.
type hop struct {
	debuginfo.Field
	typ     *debuginfo.Type
	in      *debuginfo.Type // the struct
	pointer bool            // the struct is behind a pointer
}

// field finds a field by name, the one nearest to the surface if several have it; nil if none has.
func (v *values) field(t *debuginfo.Type, name string) ([]hop, error) {
	type way struct {
		in   *debuginfo.Type
		hops []hop
	}
	next := []way{{in: t}}
	for seen := 0; len(next) > 0 && seen < maxSearch; seen++ {
		w := next[0]
		next = next[1:]
		pointer := false
		if w.in.Kind == debuginfo.KindPointer {
			to, err := v.program.debug.Elem(w.in)
			if err != nil {
				continue
			}
			w.in, pointer = to, true
		}
		if w.in.Kind != debuginfo.KindStruct {
			continue
		}
		fields, err := v.program.debug.Fields(w.in)
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			if f.Name != name && f.Name != "" && !f.Embedded {
				continue
			}
			ft, err := v.program.debug.FieldType(w.in, f)
			if err != nil {
				return nil, err
			}
			hops := append(slices.Clone(w.hops), hop{f, ft, w.in, pointer})
			if f.Name == name {
				return hops, nil
			}
			next = append(next, way{ft, hops})
		}
	}
	return nil, nil
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// kernelValues finds what a request asks for at a function's entry.
type kernelValues struct {
	*kernel
	function *kbtf.Function
	places   []argument
}

// of answers the paths of a request: each as asked for or, without any, the parameters; then those that only a condition names.
func (v *kernelValues) of(spec *probe.Spec) ([]target.Value, error) {
	conditions, err := probe.ParseWhere(spec.Where)
	if err != nil {
		return nil, problem.New(problem.InvalidArgument, "%v", err)
	}
	var list []target.Value
	if len(spec.Arguments) == 0 {
		list = v.all()
	}
	for _, path := range spec.Arguments[:min(len(spec.Arguments), probe.MaxArguments)] {
		value, err := v.asked(path)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	for _, c := range conditions {
		if slices.ContainsFunc(list, func(x target.Value) bool { return x.Path == c.Path }) {
			continue
		}
		value, err := v.asked(c.Path)
		if err != nil {
			return nil, err
		}
		value.Condition = true
		list = append(list, value)
	}
	return list, nil
}

// all is every parameter. What the node does not let probes read is missing.
func (v *kernelValues) all() []target.Value {
	var list []target.Value
	for i, p := range v.function.Parameters {
		if !isName(p.Name) {
			continue
		}
		value, err := v.at(p.Name)
		if err != nil {
			continue // a name is all that can be wrong
		}
		if value.ReadsMemory() && !v.in.Allowed.ReadMemory {
			miss(&value, &missing{event.NotAllowed, "it is in memory, and this node lets probes in the kernel read none"})
		}
		if list = append(list, value); i == target.MaxValues/2 {
			break
		}
	}
	return list
}

// asked is the value of a path that somebody named, who is told if the node forbids it.
func (v *kernelValues) asked(path string) (target.Value, error) {
	value, err := v.at(path)
	return v.permit(value, err)
}

func (v *kernelValues) permit(value target.Value, err error) (target.Value, error) {
	if err == nil && value.ReadsMemory() && !v.in.Allowed.ReadMemory {
		err = problem.New(problem.PermissionDenied, "denied by this node's ceiling: %s is in memory, and probes in the kernel may read none "+
			"(kernel.readMemory in its ceiling file): ask for numbers that are arguments or results themselves", value.Path)
	}
	return value, err
}

// at finds the value of a path. The error is about the path; that a value cannot be read is said in it.
func (v *kernelValues) at(path string) (target.Value, error) {
	names, err := split(path)
	if err != nil {
		return target.Value{}, err
	}
	i := slices.IndexFunc(v.function.Parameters, func(p kbtf.Parameter) bool { return p.Name == names[0] })
	if i < 0 {
		return target.Value{}, v.noParameter(names[0])
	}
	p := &v.function.Parameters[i]
	return v.walk(path, names, kernelWay{place: v.places[i].place, gone: v.places[i].missing, typ: p.Type, space: p.Space})
}

// walk follows a path from where its first name is.
func (v *kernelValues) walk(path string, names []string, w kernelWay) (target.Value, error) {
	value := target.Value{Path: path, Names: names[:1:1], Types: []string{w.typ.Name}, Kind: target.KindOther}
	for at, name := range names[1:] {
		if err := w.step(name, strings.Join(names[:at+1], ".")); err != nil {
			return target.Value{}, err
		}
		if isName(name) { // not an index
			w.share(&value)
			value.Names, value.Types = append(value.Names, name), append(value.Types, w.typ.Name)
		}
	}
	w.fill(&value)
	return value, nil
}

func (v *kernelValues) noParameter(name string) error {
	e := problem.New(problem.NotFound, "%s has no parameter %q", v.function.Name, name)
	for _, p := range v.function.Parameters {
		if isName(p.Name) {
			e.Candidates = append(e.Candidates, p.Name)
		}
	}
	if len(e.Candidates) > 0 {
		e.Message += "; it has " + strings.Join(e.Candidates, ", ")
	}
	return e
}

// A kernelWay is how far a path was followed.
type kernelWay struct {
	place place
	gone  *missing // why nothing from here on can be read
	typ   kbtf.Type
	space kbtf.Space // that a pointer here points to
	user  bool       // place is in a process's memory
	bits  bool       // a bit field
	// beside are the other members of the struct that have bytes of the field at place: those of a union.
	beside []kbtf.Field
}

// follow goes where the pointer in place points.
func (w *kernelWay) follow() {
	w.user = w.user || w.space == kbtf.User
	if w.gone == nil {
		w.place, w.gone = w.place.follow()
	}
	w.enter(w.typ.Elem())
}

// lost says why the pointer in place must not be followed; nil if it may be.
func (w *kernelWay) lost(so string) *missing {
	switch {
	case w.typ.PerCPU:
		return unsupported(so + " is of each processor, which a probe does not follow")
	case w.space == kbtf.Unknown:
		return unsupported(so + " may point to memory of the kernel or of the process: this kernel's BTF does not say it, since its compiler knows no type tags")
	case !w.user && w.space == kbtf.User && w.inMemory():
		return unsupported(so + " points from the kernel's memory to a process's, which a probe does not follow")
	}
	return nil
}

func (w *kernelWay) inMemory() bool {
	return slices.ContainsFunc(w.place.pieces, func(q piece) bool { return q.memory != nil })
}

// step goes on to a field, through pointers, or to an element of an array.
func (w *kernelWay) step(name, so string) error {
	for hops := 0; w.typ.Kind == kbtf.Pointer && hops < maxLoads; hops++ {
		if gone := w.lost(so); gone != nil && w.gone == nil {
			w.gone = gone
		}
		w.follow()
	}
	switch w.typ.Kind {
	case kbtf.Array:
		i, err := strconv.ParseInt(name, 10, 32)
		if err != nil || i < 0 || i >= w.typ.Count {
			return problem.New(problem.NotFound, "%s is of type %s, which has no element %q", so, w.typ.Name, name)
		}
		elem := w.typ.Elem()
		w.place = w.place.field(i * elem.Size)
		w.enter(elem)
		return nil
	case kbtf.Struct:
	default:
		return problem.New(problem.NotFound, "%s is of type %s, which has no field %q", so, w.typ.Name, name)
	}
	f, err := w.typ.Field(name)
	if err != nil {
		e := problem.New(problem.NotFound, "%s is of type %s, which has no field %q", so, w.typ.Name, name)
		for _, f := range w.typ.Fields() {
			if len(e.Candidates) < maxCandidates {
				e.Candidates = append(e.Candidates, so+"."+f.Name)
			}
		}
		return e
	}
	w.beside = slices.DeleteFunc(w.typ.Fields(), func(other kbtf.Field) bool {
		size := other.Type.Size
		if other.Bits {
			size = 1
		}
		return other.Name == f.Name || !overlaps(other.Offset, size, f.Offset, f.Type.Size)
	})
	w.place, w.bits = w.place.field(f.Offset), f.Bits
	w.enter(f.Type)
	return nil
}

// share notes the other names that the bytes of the field at place have.
func (w *kernelWay) share(value *target.Value) {
	for _, f := range w.beside {
		if len(value.Aliases) == target.MaxAliases {
			w.gone = unsupported(fmt.Sprintf("its bytes have more than %d other names", target.MaxAliases))
			return
		}
		value.Aliases = append(value.Aliases, target.Alias{Names: append(slices.Clone(value.Names), f.Name), TypeName: f.Type.Name})
	}
}

// enter notes the type that is at place now.
func (w *kernelWay) enter(t kbtf.Type) {
	w.typ, w.space = t, kbtf.Kernel
	if t.User || w.user {
		w.space = kbtf.User
	}
}

// fill says of what kind the value is and where, or why it cannot be read.
func (w *kernelWay) fill(value *target.Value) {
	value.TypeName, value.Size, value.User = w.typ.Name, int(w.typ.Size), w.user
	value.Kind, value.BigEndian = kernelKind(w.typ), w.typ.BigEndian()
	gone := w.gone
	if w.bits && gone == nil {
		gone = unsupported("a bit field: no byte of its own to read")
	}
	switch value.Kind {
	case target.KindStruct:
		gone = nil // the plan says to name a field
	case target.KindOther:
		gone = unsupported("a " + w.typ.Name + " cannot be read whole")
	case target.KindCString:
		value.Size = 0
		if gone == nil {
			gone = w.text(value)
		}
	default:
		if gone == nil {
			value.Data, gone = w.place.scalar(w.typ.Size)
		}
	}
	if gone != nil {
		miss(value, gone)
	}
}

// text locates a C string: behind a pointer, or in an array of a struct.
func (w *kernelWay) text(value *target.Value) (gone *missing) {
	if w.typ.Kind == kbtf.Array {
		value.Capacity = int(w.typ.Count)
		value.Data, value.Offset, gone = w.place.address()
		return gone
	}
	if gone := w.lost(value.Path); gone != nil {
		return gone
	}
	value.User = w.user || w.space == kbtf.User
	value.Data, gone = w.place.scalar(8)
	return gone
}

// kernelKind is how a type's values are read and shown.
func kernelKind(t kbtf.Type) target.Kind {
	whole := t.Size == 1 || t.Size == 2 || t.Size == 4 || t.Size == 8
	switch {
	case t.Kind == kbtf.Struct:
		return target.KindStruct
	case t.Text():
		return target.KindCString
	case t.Kind == kbtf.Pointer:
		return target.KindPointer
	case t.Kind == kbtf.Int && whole:
		return target.KindInt
	case (t.Kind == kbtf.Uint || t.Kind == kbtf.Char) && whole:
		return target.KindUint
	case t.Kind == kbtf.Bool && whole:
		return target.KindBool
	}
	return target.KindOther
}

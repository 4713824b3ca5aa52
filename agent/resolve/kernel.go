// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/objfile"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A KernelInput is the running kernel as the monitor saw it, and what the node lets people see of it.
type KernelInput struct {
	BTF      io.ReaderAt     // the kernel's own types
	Identity target.Identity // filled but for Language and Arch
	Allowed  policy.Kernel
}

// everyone is what explain says of a target that is no process.
const everyone = "a function of the kernel is called for every process of this node; the process of an event is the one that had the " +
	"processor, which for what interrupts do, such as receiving and sending again, is any"

// ResolveKernel finds a function of the kernel and its arguments. Errors are as Resolve's; PERMISSION_DENIED is for what the node does not
// let people read.
func ResolveKernel(in KernelInput, spec *probe.Spec) (*target.Target, error) {
	var t *target.Target
	err := guardKernel(func() error {
		k, err := openKernel(in)
		if err != nil {
			return err
		}
		t, err = k.resolve(spec)
		return err
	})
	return t, err
}

// KernelFunctions lists the functions of the kernel that the node's list allows and that match a pattern, as Functions does.
func KernelFunctions(in KernelInput, pattern string, limit int) (*Listing, error) {
	var l *Listing
	err := guardKernel(func() error {
		k, err := openKernel(in)
		if err != nil {
			return err
		}
		l, err = k.list(pattern, limit)
		return err
	})
	return l, err
}

func guardKernel(run func() error) error {
	err := objfile.Barrier("read", run)
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(problem.FailedPrecondition, "cannot read what the kernel says of its functions: %v", err)
}

// A kernel is the running kernel, opened for questions.
type kernel struct {
	in    KernelInput
	types *kbtf.Types
}

func openKernel(in KernelInput) (*kernel, error) {
	types, err := kbtf.Open(in.BTF)
	if err != nil {
		return nil, err
	}
	in.Identity.Language, in.Identity.Arch = "c", runtime.GOARCH
	return &kernel{in: in, types: types}, nil
}

func (k *kernel) resolve(spec *probe.Spec) (*target.Target, error) {
	f, err := k.find(spec.Function)
	if err != nil {
		return nil, err
	}
	t := &target.Target{
		Identity: k.in.Identity,
		Function: target.Function{Name: f.Name, Signature: kernelSignature(f)},
		Sites:    []target.Site{{Symbol: f.Name, Where: "entry"}},
		Notes:    []string{everyone},
	}
	v := kernelValues{kernel: k, function: f, places: arguments(f, k.in.Identity.Arch)}
	if t.Values, err = v.of(spec); err != nil {
		return nil, err
	}
	return t, nil
}

func (k *kernel) find(name string) (*kbtf.Function, error) {
	f, err := k.types.Function(name)
	if err == nil || !errors.Is(err, kbtf.ErrNotFound) {
		return f, err
	}
	p := problem.New(problem.NotFound, "this kernel (%s) says nothing of a function %.128q: it may have another name in this version, or the "+
		"compiler put it into its callers; `keyhole functions kernel` lists what can be probed", k.in.Identity.Kernel, name)
	if near, err := k.list(name, maxCandidates); err == nil {
		for _, f := range near.Functions {
			p.Candidates = append(p.Candidates, f.Name)
		}
	}
	return nil, p
}

func (k *kernel) list(pattern string, limit int) (*Listing, error) {
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	l := &Listing{Executable: k.in.Identity.Path}
	matches := matcher(pattern)
	names, err := k.allowed()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !matches(name) {
			continue
		}
		if l.Matched++; l.Matched > limit {
			continue
		}
		info := Info{Name: name}
		if f, err := k.types.Function(name); err != nil {
			info.Refused = err.Error()
		} else {
			info.Signature = kernelSignature(f)
			for _, p := range f.Parameters {
				info.Parameters = append(info.Parameters, Parameter{p.Name, p.Type.Name})
			}
		}
		l.Functions = append(l.Functions, info)
	}
	return l, nil
}

// allowed are the functions that the node's list allows and the kernel has, sorted.
func (k *kernel) allowed() ([]string, error) {
	if slices.ContainsFunc(k.in.Allowed.Functions, func(p string) bool { return strings.Contains(p, "*") }) {
		return k.types.Functions(k.in.Allowed.Allows)
	}
	// Asking for some by name is a hundred times as fast as looking at all.
	var names []string
	for _, name := range k.in.Allowed.Functions {
		if _, err := k.types.Function(name); !errors.Is(err, kbtf.ErrNotFound) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// kernelSignature writes a function as its source does.
func kernelSignature(f *kbtf.Function) string {
	var list []string
	for _, p := range f.Parameters {
		list = append(list, cDeclaration(p.Type.Name, p.Name))
	}
	if f.Variadic {
		list = append(list, "...")
	}
	if len(list) == 0 {
		list = []string{"void"}
	}
	return cDeclaration(f.Result.Name, f.Name) + "(" + strings.Join(list, ", ") + ")"
}

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
	if err == nil && value.ReadsMemory() && !v.in.Allowed.ReadMemory {
		err = problem.New(problem.PermissionDenied, "denied by this node's ceiling: %s is in memory, and probes in the kernel may read none "+
			"(kernel.readMemory in its ceiling file): ask for numbers that are arguments themselves", path)
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
	w := kernelWay{place: v.places[i].place, gone: v.places[i].missing, typ: p.Type, space: p.Space}
	value := target.Value{Path: path, Names: names, Kind: target.KindOther}
	for at, name := range names[1:] {
		if err := w.step(name, strings.Join(names[:at+1], ".")); err != nil {
			return target.Value{}, err
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
	w.place, w.bits = w.place.field(f.Offset), f.Bits
	w.enter(f.Type)
	return nil
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
	value.Kind = kernelKind(w.typ)
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

// An argument is where a parameter is at a function's entry.
type argument struct {
	place   place
	missing *missing
}

// A kernelABI is how functions of the kernel are called, which is as C functions are called without floating-point numbers.
type kernelABI struct {
	registers      []int // of arguments, in DWARF numbers
	largeByAddress bool  // structs of more than 16 bytes are passed by an address in a register, not on the stack
	packedOnStack  bool  // and so are structs of any size whose fields are not aligned
	largeResult    bool  // the address of a result of more than 16 bytes takes the first register
	evenPairs      bool  // numbers of 16 bytes begin at an even register
	fill           bool  // what is passed on the stack leaves the registers to what follows
}

// System V ABI AMD64 3.2.3; AAPCS64 6.8.2.
var kernelABIs = map[string]kernelABI{
	"amd64": {registers: integers[:], packedOnStack: true, largeResult: true, fill: true},
	"arm64": {registers: []int{0, 1, 2, 3, 4, 5, 6, 7}, largeByAddress: true, evenPairs: true},
}

// arguments says where each parameter of a function is at its entry.
func arguments(f *kbtf.Function, arch string) []argument {
	abi, known := kernelABIs[arch]
	list := make([]argument, len(f.Parameters))
	next := 0
	if abi.largeResult && f.Result.Kind == kbtf.Struct && f.Result.Size > 16 {
		next++
	}
	for i, p := range f.Parameters {
		size, byAddress := p.Type.Size, false
		if p.Type.Kind == kbtf.Struct && size > 16 && abi.largeByAddress {
			size, byAddress = 8, true
		}
		n := int(size+7) / 8
		if abi.evenPairs && n == 2 && p.Type.Kind != kbtf.Struct {
			next += next % 2
		}
		switch {
		case !known:
			list[i].missing = unsupported("how functions are called on " + arch + " is not known")
		case n > 2, next+n > len(abi.registers), abi.packedOnStack && p.Type.Kind == kbtf.Struct && !aligned(p.Type):
			list[i].missing = unsupported("it is passed on the stack")
			if !abi.fill {
				next = len(abi.registers)
			}
		case byAddress:
			list[i].place = inMemory(memory{register: abi.registers[next]})
			next++
		default:
			for j := range n {
				list[i].place.pieces = append(list[i].place.pieces, piece{from: int64(8 * j), size: 8, register: abi.registers[next+j]})
			}
			next += n
		}
	}
	return list
}

// aligned says whether each number in a struct lies at a multiple of its size.
func aligned(t kbtf.Type) bool {
	for _, f := range t.Fields() {
		switch f.Type.Kind {
		case kbtf.Struct, kbtf.Array:
			if !aligned(f.Type) {
				return false
			}
		default:
			if !f.Bits && f.Type.Size > 0 && f.Offset%f.Type.Size != 0 {
				return false
			}
		}
	}
	return true
}

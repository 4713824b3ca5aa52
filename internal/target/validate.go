// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a Target. They are generous for what debug information really holds, and keep a forged one small.
const (
	MaxSites   = 64
	MaxValues  = 64
	MaxOffsets = 16 // pointers followed for one value

	maxNames       = 64
	maxInlined     = 256
	maxNotes       = 64
	maxPID         = 1 << 22 // PID_MAX_LIMIT on 64-bit Linux
	maxGoidOffset  = 4096    // far more than a runtime.g has
	maxInstruction = 15      // bytes, on x86-64
	maxSymbol      = 255     // KSYM_NAME_LEN is 512 with the NUL, 128 before Linux 6.1
	maxShort       = 256
	maxLong        = 4096
)

// registers are those of an architecture that an op can read, a bit for each by its DWARF number: bpf/kernel.h knows no others.
var registers = map[string]uint32{"amd64": 1<<17 - 1, "arm64": 1<<16 - 1 | 1<<28 | 1<<31}

// HasRegister says whether an op can read a register of an architecture, by its DWARF number.
func HasRegister(arch string, number int) bool {
	return number >= 0 && number < 32 && registers[arch]>>number&1 == 1
}

// Validate says what is wrong with a Target that somebody else made. A Target that it accepts has every text bounded and
// printable, every number in the range that an op can carry, every site inside the function, and names that agree with the
// paths. Whether its locations are true it cannot know.
func (t *Target) Validate() error {
	if err := t.Identity.validate(); err != nil {
		return fmt.Errorf("target's identity: %w", err)
	}
	validate := t.validateSites
	if t.Identity.Kernel != "" {
		validate = t.validateSymbol
	} else if err := t.Function.validateRange(); err != nil {
		return fmt.Errorf("target's function: %w", err)
	}
	if err := t.Function.validate(); err != nil {
		return fmt.Errorf("target's function: %w", err)
	}
	if err := validate(); err != nil {
		return err
	}
	if len(t.Values) > MaxValues {
		return fmt.Errorf("target has %d values; at most %d", len(t.Values), MaxValues)
	}
	for i := range t.Values {
		if err := t.Values[i].validate(t.Identity.Arch); err != nil {
			return fmt.Errorf("target's value %d (%.64q): %w", i, t.Values[i].Path, err)
		}
		if t.Values[i].User && t.Identity.Kernel == "" {
			return fmt.Errorf("target's value %d (%.64q): only the kernel has memory that is not a process's", i, t.Values[i].Path)
		}
	}
	if err := t.validateReturns(); err != nil {
		return fmt.Errorf("target's returns: %w", err)
	}
	if err := t.validateStack(); err != nil {
		return fmt.Errorf("target's stack: %w", err)
	}
	if g := t.GoroutineID; g != nil {
		if t.Identity.Kernel != "" {
			return errors.New("target's goroutine number: the kernel has none")
		}
		if err := g.validate(t.Identity.Arch); err != nil {
			return fmt.Errorf("target's goroutine number: %w", err)
		}
		if g.Kind != KindUint && g.Kind != KindInt || g.Size != 8 {
			return errors.New("target's goroutine number: not an integer of 8 bytes")
		}
	}
	if len(t.Notes) > maxNotes {
		return fmt.Errorf("target has %d notes; at most %d", len(t.Notes), maxNotes)
	}
	for _, n := range t.Notes {
		if err := texts(text{"note", n, maxLong}); err != nil {
			return fmt.Errorf("target's %w", err)
		}
	}
	if t.OtherProcesses < 0 || t.OtherProcesses > maxPID {
		return errors.New("target counts an impossible number of other processes")
	}
	return nil
}

func (id *Identity) validate() error {
	if id.Kernel != "" {
		return id.validateKernel()
	}
	if id.PID <= 0 || id.PID > maxPID {
		return fmt.Errorf("process number %d", id.PID)
	}
	if registers[id.Arch] == 0 {
		return fmt.Errorf("architecture %.16q: want amd64 or arm64", id.Arch)
	}
	if id.StartTicks == 0 || id.Inode == 0 || id.Size <= 0 {
		return errors.New("lacks the process's start time, or the executable's inode or size")
	}
	return texts(
		text{"command", id.Comm, maxShort}, text{"path", id.Path, maxLong}, text{"workload", id.Workload, maxLong}, text{"build ID", id.BuildID, maxShort},
		text{"language", id.Language, maxShort},
	)
}

func (id *Identity) validateKernel() error {
	if id.PID != 0 || id.StartTicks != 0 || id.Device != 0 || id.Inode != 0 || id.Size != 0 || id.MtimeNs != 0 {
		return errors.New("is the kernel's and a process's")
	}
	if registers[id.Arch] == 0 {
		return fmt.Errorf("architecture %.16q: want amd64 or arm64", id.Arch)
	}
	return texts(
		text{"kernel", id.Kernel, maxShort}, text{"command", id.Comm, maxShort}, text{"path", id.Path, maxLong},
		text{"build ID", id.BuildID, maxShort}, text{"language", id.Language, maxShort},
	)
}

func (f *Function) validateRange() error {
	if f.Size == 0 || f.Address+f.Size < f.Address {
		return fmt.Errorf("impossible range %#x + %#x", f.Address, f.Size)
	}
	return nil
}

func (f *Function) validate() error {
	if f.Name == "" {
		return errors.New("has no name")
	}
	if f.Line < 0 || len(f.InlinedAt) > maxInlined || f.InlinedSum < 0 {
		return errors.New("impossible line, or too many inlined calls")
	}
	for _, p := range f.InlinedAt {
		if err := texts(text{"inlining function", p.Function, maxLong}, text{"file", p.File, maxLong}); err != nil {
			return err
		}
	}
	return texts(text{"name", f.Name, maxLong}, text{"signature", f.Signature, 4 * maxLong}, text{"file", f.File, maxLong})
}

func (t *Target) validateSites() error {
	if len(t.Sites) == 0 || len(t.Sites) > MaxSites {
		return fmt.Errorf("target has %d sites; want 1 to %d", len(t.Sites), MaxSites)
	}
	addresses, offsets := make(map[uint64]bool), make(map[uint64]bool)
	for i, s := range t.Sites {
		if s.Address < t.Function.Address || s.Address-t.Function.Address >= t.Function.Size {
			return fmt.Errorf("target's site %d: %#x is outside of the function", i, s.Address)
		}
		if s.Symbol != "" {
			return fmt.Errorf("target's site %d: %.64q: only the kernel is probed by name", i, s.Symbol)
		}
		if (addresses[s.Address] || offsets[s.FileOffset]) && (!s.Return || !t.Returns.isByKernel()) {
			return fmt.Errorf("target's site %d: %#x is there twice", i, s.Address)
		}
		addresses[s.Address], offsets[s.FileOffset] = true, true
		if s.FileOffset == 0 || s.FileOffset >= uint64(t.Identity.Size) {
			return fmt.Errorf("target's site %d: offset %#x is outside of the file", i, s.FileOffset)
		}
		if s.RuntimeAddress == 0 || len(s.Bytes) == 0 || len(s.Bytes) > maxInstruction {
			return fmt.Errorf("target's site %d: no address in the process, or no instruction", i)
		}
		if err := texts(text{"place", s.Where, maxShort}); err != nil {
			return fmt.Errorf("target's site %d: %w", i, err)
		}
	}
	return nil
}

func (t *Target) validateReturns() error {
	sites := 0
	for _, s := range t.Sites {
		if s.Return {
			sites++
		}
	}
	r := t.Returns
	switch {
	case sites == len(t.Sites):
		return errors.New("no site is an entry")
	case r == nil && sites > 0:
		return errors.New("nothing is paired, and there are sites for it")
	case r == nil:
		return nil
	case r.By != ByGoroutine && r.By != ByThread:
		return fmt.Errorf("pairing by %.32q", r.By)
	case t.Identity.Kernel != "" && (r.By != ByThread || r.GoidOffset != 0):
		return errors.New("calls of the kernel's are paired by thread")
	case sites == 0:
		return errors.New("no site is a return instruction, and nothing else is one")
	case r.ByKernel:
		if err := KernelReturn(&t.Identity, t.Sites, r.By); err != nil {
			return err
		}
		if t.Stack != nil {
			return errors.New("by the kernel's return probe, which hides the callers of a stack")
		}
		if t.GoroutineID != nil || r.GoidOffset != 0 {
			return errors.New("by the kernel's return probe, in a program with goroutines")
		}
	case r.GoidOffset < 0 || r.GoidOffset > maxGoidOffset || len(r.Values) > MaxValues:
		return errors.New("an impossible place of the goroutine's number, or too many results")
	}
	for i := range r.Values {
		if err := r.Values[i].validate(t.Identity.Arch); err != nil {
			return fmt.Errorf("result %d (%.64q): %w", i, r.Values[i].Path, err)
		}
	}
	if r.Failed == nil {
		return nil
	}
	if k := r.Failed.Kind; k != KindError && k != KindInt && k != KindUint {
		return fmt.Errorf("a %.32q does not say whether a call failed", k)
	}
	return r.Failed.validate(t.Identity.Arch)
}

func (r *Returns) isByKernel() bool { return r != nil && r.ByKernel }

// KernelReturn says why the kernel's return probe is not to be put on sites, whoever asks for it.
func KernelReturn(id *Identity, sites []Site, by Pairing) error {
	switch {
	case id.Kernel != "":
		return errors.New("a return probe of a process, on a function of the kernel")
	case id.IsGo():
		return errors.New("the kernel's return probe, in a Go program: it would die when one of its stacks moves")
	case by != ByThread:
		return errors.New("the kernel's return probe sees threads")
	case len(sites) != 2 || sites[0].Return || !sites[1].Return:
		return errors.New("the kernel's return probe has one entry and one return")
	}
	entry, end := &sites[0], &sites[1]
	if entry.Address != end.Address || entry.FileOffset != end.FileOffset || entry.RuntimeAddress != end.RuntimeAddress || !bytes.Equal(entry.Bytes, end.Bytes) {
		return errors.New("the kernel's return probe is not at the function's entry")
	}
	return nil
}

// validateSymbol: a function of the kernel is probed at its entry and at its return, by its name and nothing else.
func (t *Target) validateSymbol() error {
	if n := len(t.Sites); n != 1 && (n != 2 || t.Sites[0].Return || !t.Sites[1].Return) {
		return fmt.Errorf("target has %d sites; the kernel's functions have an entry and a return", n)
	}
	if f := &t.Function; f.Address != 0 || f.Size != 0 || len(f.InlinedAt) > 0 {
		return errors.New("target's function: the kernel's have no address here")
	}
	for _, s := range t.Sites {
		if s.Symbol != t.Function.Name || !isSymbol(s.Symbol) {
			return fmt.Errorf("target's site: the symbol %.64q is not the function %.64q", s.Symbol, t.Function.Name)
		}
		if s.Address != 0 || s.FileOffset != 0 || s.RuntimeAddress != 0 || len(s.Bytes) != 0 {
			return errors.New("target's site: has a symbol and an address")
		}
		if err := texts(text{"place", s.Where, maxShort}); err != nil {
			return fmt.Errorf("target's site: %w", err)
		}
	}
	return nil
}

// isSymbol says whether a name is one that the source of a function can have. One with a dot in it was made by the compiler, and
// its parameters are not those of the source.
func isSymbol(name string) bool {
	for i, r := range name {
		switch {
		case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', i > 0 && r >= '0' && r <= '9':
		default:
			return false
		}
	}
	return name != "" && len(name) <= maxSymbol
}

func (v *Value) validate(arch string) error {
	if err := v.validateNames(); err != nil {
		return err
	}
	err := texts(text{"type", v.TypeName, maxLong}, text{"reason", v.Missing, maxShort}, text{"detail", v.Detail, maxLong})
	if err != nil {
		return err
	}
	if v.Offset != int64(int32(v.Offset)) {
		return fmt.Errorf("offset %d: beyond 32 bits", v.Offset)
	}
	if v.BigEndian && v.Kind != KindUint {
		return fmt.Errorf("a %s has no order of bytes", v.Kind)
	}
	if v.Capacity < 0 || v.Capacity > math.MaxInt32 {
		return fmt.Errorf("capacity %d", v.Capacity)
	}
	sizes := map[Kind][]int{
		KindInt: {1, 2, 4, 8}, KindUint: {1, 2, 4, 8}, KindBool: {1, 2, 4, 8}, KindFloat: {4, 8}, KindPointer: {8}, KindLength: {8},
		KindError: {8},
	}
	switch v.Kind {
	case KindString, KindBytes:
		if v.Missing == "" {
			err = errors.Join(v.Data.validate(arch), v.Length.validate(arch))
		}
	case KindCString:
		if v.Missing == "" {
			err = v.Data.validate(arch)
		}
	case KindInt, KindUint, KindBool, KindFloat, KindPointer, KindLength, KindError:
		if v.Missing != "" {
			break
		}
		if !slices.Contains(sizes[v.Kind], v.Size) || v.Offset != 0 {
			return fmt.Errorf("%d bytes at offset %d: no %s has that", v.Size, v.Offset, v.Kind)
		}
		if err = v.Data.validate(arch); err == nil && len(v.Data.Offsets) == 0 && v.Data.Shift+v.Size > 8 {
			return fmt.Errorf("%d bytes from byte %d of a register", v.Size, v.Data.Shift)
		}
	case KindStruct, KindOther:
	default:
		return fmt.Errorf("unknown kind %.32q", v.Kind)
	}
	return err
}

// validateNames refuses names that rules would look at in vain: each name of the path must be among Names, in order.
func (v *Value) validateNames() error {
	if v.Path == "" || len(v.Names) == 0 || len(v.Names) > maxNames {
		return errors.New("no path, no names, or too many")
	}
	if err := texts(text{"path", v.Path, maxLong}); err != nil {
		return err
	}
	for _, n := range v.Names {
		if err := texts(text{"name", n, maxShort}); err != nil {
			return err
		}
	}
	if n := len(v.Types); n != 0 && n != len(v.Names) {
		return fmt.Errorf("%d types for %d names", n, len(v.Names))
	}
	for _, t := range v.Types {
		if err := texts(text{"type", t, maxLong}); err != nil {
			return err
		}
	}
	for i, e := range v.Embedded {
		if e <= 0 || e >= len(v.Names)-1 || i > 0 && e <= v.Embedded[i-1] {
			return fmt.Errorf("name %d of %d is no embedded one", e, len(v.Names))
		}
	}
	if len(v.Aliases) > MaxAliases {
		return fmt.Errorf("%d other names; at most %d", len(v.Aliases), MaxAliases)
	}
	for _, a := range v.Aliases {
		if len(a.Names) == 0 || len(a.Names) > maxNames {
			return errors.New("another name that is none")
		}
		for _, n := range a.Names {
			if err := texts(text{"name", n, maxShort}); err != nil {
				return err
			}
		}
		if err := texts(text{"type", a.TypeName, maxLong}); err != nil {
			return err
		}
	}
	rest := v.Names
	for part := range strings.SplitSeq(v.Path, ".") {
		if strings.Trim(part, "0123456789") == "" {
			continue // an index has no name
		}
		i := slices.Index(rest, part)
		if i < 0 {
			return fmt.Errorf("the path names %q, the names do not", part)
		}
		rest = rest[i+1:]
	}
	return nil
}

func (l *Location) validate(arch string) error {
	if !HasRegister(arch, l.Register) {
		return fmt.Errorf("register %d: %s has none that can be read", l.Register, arch)
	}
	if l.Shift < 0 || l.Shift > 7 {
		return fmt.Errorf("shift by %d bytes", l.Shift)
	}
	if len(l.Offsets) > MaxOffsets {
		return fmt.Errorf("%d pointers to follow; at most %d", len(l.Offsets), MaxOffsets)
	}
	for _, o := range l.Offsets {
		if o != int64(int32(o)) {
			return fmt.Errorf("offset %d: beyond 32 bits", o)
		}
	}
	return nil
}

type text struct {
	what, text string
	limit      int
}

// texts refuses what is too long or could rewrite a terminal.
func texts(list ...text) error {
	for _, t := range list {
		if len(t.text) > t.limit {
			return fmt.Errorf("%s: %d bytes; at most %d", t.what, len(t.text), t.limit)
		}
		if !utf8.ValidString(t.text) || strings.ContainsFunc(t.text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("%s: has an unprintable character", t.what)
		}
	}
	return nil
}

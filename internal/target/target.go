// SPDX-License-Identifier: Apache-2.0

// Package target is what a request was resolved to: one live process or the running kernel, one function, the places where a breakpoint is
// proved safe, and where each requested value is at that very place. A Target is data about bytes that a hostile
// program may have written: whoever receives one validates it.
package target

import "strings"

// A Target is the answer of agent/resolve to a probe.Spec.
type Target struct {
	Identity Identity `json:"identity"`
	Function Function `json:"function"`
	Sites    []Site   `json:"sites"`
	// Values holds one entry for each captured path, in the order asked for (a path may stand for several values that lie
	// below it), then one for each path that only a condition names (Condition set).
	Values []Value `json:"values"`
	// Returns says how calls are paired with their returns; nil: nothing looks at returns.
	Returns *Returns `json:"returns,omitempty"`
	// Stack says what the addresses of a stack are in; nil: that was not asked for.
	Stack *Stack `json:"stack,omitempty"`
	// GoroutineID says where the goroutine's number is; nil for programs that are not Go.
	GoroutineID *Value `json:"goroutineId,omitempty"`
	// Notes are for people: what was left out, and why.
	Notes []string `json:"notes,omitempty"`
	// OtherProcesses counts the processes that the selector matched beside this one.
	OtherProcesses int `json:"otherProcesses,omitempty"`
}

// An Identity is what must not change between analysis and attach. Of the kernel, which does not change while anybody looks,
// it has only Kernel, Comm, Path, BuildID, Language and Arch.
type Identity struct {
	// Kernel is the running kernel's release, such as 6.12.48, if the target is the kernel; empty for a process.
	Kernel     string `json:"kernel,omitempty"`
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"startTicks"` // /proc/PID/stat field 22: clock ticks (1/100 s) since boot
	Comm       string `json:"comm"`
	Path       string `json:"path"`               // the executable as /proc/PID/exe names it; for people only
	Workload   string `json:"workload,omitempty"` // what runs it: unit/NAME.service, container/ID or cgroup/PATH; empty where it is not known
	BuildID    string `json:"buildId"`            // GNU build ID in hex, else Go's
	Device     uint64 `json:"device"`
	Inode      uint64 `json:"inode"`
	Size       int64  `json:"size"`
	MtimeNs    int64  `json:"mtimeNs"`
	Language   string `json:"language"` // "go" or "c", with the producer's version: "go1.26.8"
	Arch       string `json:"arch"`     // GOARCH
}

// IsGo says whether the program is one of Go's, whichever language the function is of.
func (id *Identity) IsGo() bool { return strings.HasPrefix(id.Language, "go") }

// A Function is where the probe sits.
type Function struct {
	Name       string  `json:"name"`                // as the linker knows it: main.(*Cart).Checkout
	Signature  string  `json:"signature,omitempty"` // in the source language, for people
	File       string  `json:"file,omitempty"`
	Line       int     `json:"line,omitempty"`
	Address    uint64  `json:"address"` // in the executable's own address space
	Size       uint64  `json:"size"`
	InlinedAt  []Place `json:"inlinedAt,omitempty"` // calls that this probe does not see
	InlinedSum int     `json:"inlinedSum,omitempty"`
}

// A Place is a line of source.
type Place struct {
	Function string `json:"function,omitempty"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// A Site is one address that was proved to be an instruction start where a breakpoint is safe.
type Site struct {
	Address        uint64 `json:"address"`        // in the executable's own address space
	FileOffset     uint64 `json:"fileOffset"`     // where uprobe_multi attaches
	RuntimeAddress uint64 `json:"runtimeAddress"` // in the process
	Bytes          []byte `json:"bytes"`          // the instruction there, the same in file, memory and analysis
	// Symbol is the function of the kernel at whose entry or return the probe is; then the kernel finds the address, and the fields above are zero.
	Symbol string `json:"symbol,omitempty"`
	Where  string `json:"where"`            // "after the stack check", "entry"
	Return bool   `json:"return,omitempty"` // a return instruction, or, at the entry, the return that the kernel is to see
}

// Returns is how a call's end is paired with its begin, and what is there then.
type Returns struct {
	By Pairing `json:"by"`
	// ByKernel says of a process's function that its end is seen by the kernel's return probe, at whose site, the entry's, the kernel changes the
	// return address on the stack; else it is seen at return instructions. A Go program would die of it when a stack moves.
	ByKernel bool `json:"byKernel,omitempty"`
	// GoidOffset is where the goroutine's number is in its runtime.g; 0: not known.
	GoidOffset int64 `json:"goidOffset,omitempty"`
	// Values holds an entry for each result asked for, in order, with its place at the return.
	Values []Value `json:"values,omitempty"`
	// Failed is the result that says whether a call failed; nil: that was not asked for.
	Failed *Value `json:"failed,omitempty"`
}

// Pairing is what a call and its return have in common that no other call at the same time has.
type Pairing string

// The pairings.
const (
	ByGoroutine Pairing = "goroutine" // and the frame's distance from the stack's base, since Go moves stacks
	ByThread    Pairing = "thread"    // and the frame's address
)

// Kind says how a value's bytes are read and shown.
type Kind string

// The kinds of value. A Value of kind KindString or KindBytes has a pointer (Data) and a length (Length); KindCString has a
// pointer; the others that can be read are scalars in Data.
const (
	KindInt     Kind = "int"
	KindUint    Kind = "uint"
	KindBool    Kind = "bool"
	KindFloat   Kind = "float"
	KindPointer Kind = "pointer"
	KindString  Kind = "string"
	KindCString Kind = "cstring"
	KindBytes   Kind = "bytes"
	KindLength  Kind = "length" // the number of elements of a slice
	KindError   Kind = "error"  // of Go's type error: whether it is nil
	KindStruct  Kind = "struct" // cannot be read whole: name a field
	KindOther   Kind = "other"
)

// A Value is one path of the request with its type and its place at the site.
type Value struct {
	Path  string   `json:"path"`  // as asked for, or found: "c.user.email"
	Names []string `json:"names"` // the field names on the way, each of which rules look at: c, user, email
	// Types are the type's name of each of these, empty where it is not known; there are none if nothing is.
	Types []string `json:"types,omitempty"`
	// Embedded are the indexes of names that a path may leave out, because the language promotes what lies in them.
	Embedded []int `json:"embedded,omitempty"`
	// Aliases are what other members of a union call the same bytes.
	Aliases   []Alias `json:"aliases,omitempty"`
	TypeName  string  `json:"typeName"`
	Kind      Kind    `json:"kind"`
	Size      int     `json:"size"` // of a scalar, in bytes: 1, 2, 4 or 8
	Condition bool    `json:"condition,omitempty"`
	// BigEndian says of an unsigned number that its first byte in memory is the highest.
	BigEndian bool `json:"bigEndian,omitempty"`

	// Data is the scalar itself or the pointer to a string's bytes, Length the number of those bytes.
	// Offset is added to Data before a string is read: char arrays lie inside their struct.
	Data   Location `json:"data"`
	Length Location `json:"length"`
	Offset int64    `json:"offset,omitempty"`
	// Capacity bounds a C char array; 0: none.
	Capacity int `json:"capacity,omitempty"`

	// User says that all that is read on the way is memory of the process that made the call: a parameter of a kernel function that
	// points there. Never set in a process's own values, which are all there.
	User bool `json:"user,omitempty"`

	// Missing says why the value cannot be read at all; empty if it can. Detail explains it to people.
	Missing string `json:"missing,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// MaxAliases is how many other names the bytes of a value may have. One with more is not read.
const MaxAliases = 64

// An Alias is another name of a value's bytes, which rules look at as they look at the value's own.
type Alias struct {
	Names    []string `json:"names"`
	TypeName string   `json:"typeName"`
}

// ReadsMemory says whether more than a register is read for the value.
func (v *Value) ReadsMemory() bool {
	switch {
	case v.Missing != "", v.Kind == KindStruct, v.Kind == KindOther:
		return false
	case v.Kind == KindString, v.Kind == KindBytes, v.Kind == KindCString:
		return true
	}
	return len(v.Data.Offsets) > 0
}

// A Location is a register and the pointers to follow from it: value = register >> 8*Shift, then for each offset
// value = *(value + offset). The last load has the value's own size, the others 8 bytes.
type Location struct {
	Register int     `json:"register"` // DWARF number
	Shift    int     `json:"shift,omitempty"`
	Offsets  []int64 `json:"offsets,omitempty"`
}

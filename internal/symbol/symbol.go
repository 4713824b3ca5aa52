// SPDX-License-Identifier: Apache-2.0

// Package symbol says which function and which line of source the addresses of a stack are, calls that were inlined there
// included. It reads an executable that a hostile program may have written; what it answers is bounded.
package symbol

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/ianlancetaylor/demangle"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/objfile"
)

// maxName bounds the name of a function, and that of a file.
const maxName = 512

// A Table answers for one executable. Its methods are not safe for concurrent use.
type Table struct {
	file    *objfile.File
	symbols objfile.Symbols
	program *goTable        // nil: no program of Go, or one of a version that is not known
	debug   *debuginfo.Data // nil: there is none, or nobody asked yet
	loaded  bool
	frames  *debuginfo.Frames
}

// Open reads what is there whatever is asked. Debug information is read when something is asked that needs it.
func Open(r io.ReaderAt, size int64) (*Table, error) {
	f, err := objfile.Open(r, size)
	if err != nil {
		return nil, err
	}
	t := &Table{file: f}
	if err := objfile.Barrier("read symbols", t.read); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) read() (err error) {
	if t.program, err = openGo(t.file); err != nil {
		return err
	}
	t.symbols, err = t.file.Functions()
	return err
}

// A Place is an address of a stack: where in the file it is, and whether it is a return address, the instruction behind the call that
// is meant, or the instruction itself.
type Place struct {
	Offset uint64 `json:"offset"`
	Return bool   `json:"return,omitempty"`
}

// A Location is what is known of a Place.
type Location struct {
	// Frames are the function there and those around it, the innermost first; all but the last are inlined. None: nothing is known.
	Frames []event.Frame `json:"frames,omitempty"`
	// Wrapper says that the code there is what the compiler of Go makes between a call and a method, which stack traces leave out.
	Wrapper bool `json:"wrapper,omitempty"`
	// NoFramePointer says that the code there uses the frame pointer for something else, so that what a walk found behind this
	// frame is not proved to be its callers.
	NoFramePointer bool `json:"noFramePointer,omitempty"`
}

// Lookup says what is known of a place. What is malformed is left out.
func (t *Table) Lookup(p Place) Location {
	pc, ok := t.file.Address(p.Offset)
	if !ok {
		return Location{}
	}
	var l Location
	err := objfile.Barrier("look up an address", func() error {
		l = t.lookup(pc, p.Return)
		return nil
	})
	if err != nil {
		return Location{}
	}
	for i := range l.Frames {
		l.Frames[i].Function, l.Frames[i].File = clean(l.Frames[i].Function), clean(l.Frames[i].File)
	}
	return l
}

// written is the name of a function of C++ or Rust as it is in the source, without parameters; of C as it is.
func written(name string) string {
	const longest = 12 // the power of 2 that a demangled name may be long
	if len(name) > maxName {
		return name
	}
	return demangle.Filter(name, demangle.NoParams, demangle.MaxLength(longest))
}

func (t *Table) lookup(pc uint64, isReturn bool) Location {
	at := pc
	if isReturn {
		at-- // in the call, whatever its length: behind it another line may begin, or another function
	}
	if t.program != nil {
		if frames := t.program.lookup(at); frames != nil {
			frames = withoutWrappers(frames)
			return Location{Frames: frames, Wrapper: len(frames) == 0}
		}
	}
	l := Location{NoFramePointer: isReturn && !t.keepsFramePointer(at)}
	l.Frames, _ = t.debugged(at) // what is malformed has no frames, but perhaps a symbol
	if len(l.Frames) > 0 {
		return l
	}
	i := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].Address > at })
	for i--; i >= 0 && i < len(t.symbols); i-- {
		s := t.symbols[i]
		switch {
		case s.Size == 0 && t.file.CodeEnd(s.Address) == t.file.CodeEnd(at), at-s.Address < s.Size:
			l.Frames = []event.Frame{{Function: written(s.Name)}}
			return l
		case i == 0 || t.symbols[i-1].Address != s.Address:
			return l
		}
	}
	return l
}

// debugged asks the debug information.
func (t *Table) debugged(pc uint64) ([]event.Frame, error) {
	if !t.loaded {
		t.loaded = true
		debug, err := debuginfo.Load(t.file)
		if err != nil && !errors.Is(err, debuginfo.ErrNone) {
			return nil, err
		}
		t.debug = debug
	}
	if t.debug == nil {
		return nil, nil
	}
	places, err := t.debug.CallsAt(pc)
	if err != nil {
		return nil, fmt.Errorf("look up %#x: %w", pc, err)
	}
	var frames []event.Frame
	for i, p := range places {
		frames = append(frames, event.Frame{Function: written(p.Function), File: p.File, Line: p.Line, Inlined: i < len(places)-1})
	}
	return withoutWrappers(frames), nil
}

// keepsFramePointer says whether the code at an address has its frame where frame pointers lead. A file without frame information
// is believed.
func (t *Table) keepsFramePointer(pc uint64) bool {
	if t.frames == nil {
		t.frames = debuginfo.ReadFrames(t.file)
	}
	keeps, known := t.frames.KeepsFrame(pc, t.file.Machine())
	return keeps || !known
}

// withoutWrappers leaves out what the compiler of Go made, as Go's own stack traces do.
func withoutWrappers(frames []event.Frame) []event.Frame {
	kept := frames[:0:0]
	for _, f := range frames {
		if f.File != autogenerated {
			kept = append(kept, f)
		}
	}
	if n := len(kept); n > 0 {
		kept[n-1].Inlined = false // into a wrapper, if at all
	}
	return kept
}

// clean makes text of bytes that should be.
func clean(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

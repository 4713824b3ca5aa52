// SPDX-License-Identifier: Apache-2.0

package event

import "fmt"

// A Frame is one call on a stack.
type Frame struct {
	Function string `json:"function,omitempty"` // empty: not known
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Inlined  bool   `json:"inlined,omitempty"` // its code is part of the next frame's function
	// Module and Offset are where the code is: the file that the process has mapped, without its folder, and the offset in it. In
	// the address space of the process nothing is said, as that would tell where a next program finds code. Empty: of the
	// function's executable.
	Module string `json:"module,omitempty"`
	Offset uint64 `json:"offset,omitempty"`
	// Return says that it is the address behind a call, not that of the instruction itself.
	Return bool `json:"return,omitempty"`
}

// String is the frame as one line: "main.Total /src/cart.go:41", with " (inlined)" behind it if so; "libc.so.6+0x29ca8" where the
// function is not known.
func (f Frame) String() string {
	switch {
	case f.Function == "" && f.Module == "":
		return "unknown"
	case f.Function == "":
		return fmt.Sprintf("%s+%#x", f.Module, f.Offset)
	}
	text := f.Function
	if f.File != "" {
		text += fmt.Sprintf(" %s:%d", f.File, f.Line)
	}
	if f.Inlined {
		text += " (inlined)"
	}
	return text
}

// Reasons why the rest of a stack is not known: an open list.
const (
	CutDepth        = "more calls than are read"
	CutNoFrames     = "a caller keeps no frame pointer"
	CutOtherProgram = "not known whether that library keeps frame pointers"
)

// StackLines is the stack as lines, with the reason why the rest is not known as the last one, in parentheses.
func (e *Event) StackLines() []string {
	if len(e.Stack) == 0 {
		return nil
	}
	lines := make([]string, 0, len(e.Stack)+1)
	for _, f := range e.Stack {
		lines = append(lines, f.String())
	}
	if e.StackCut != "" {
		lines = append(lines, "("+e.StackCut+")")
	}
	return lines
}

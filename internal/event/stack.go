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

// UnknownModule stands for a part of memory in which no code was mapped when the process was looked at.
const UnknownModule = "unknown"

// String is the frame as one line: "main.Total /src/cart.go:41", with " (inlined)" behind it if so; "libc.so.6+0x29ca8" where the
// function is not known.
func (f Frame) String() string {
	switch {
	case f.Function == "" && f.Offset == 0:
		return UnknownModule
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
	CutDepth    = "there are more callers than are read"
	CutNoFrames = "its caller is not known: it is not proved to keep a frame pointer"
	CutLibrary  = "its caller is not known: nothing is known of that library's frames"
	CutLong     = "the names are longer than is shown"
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

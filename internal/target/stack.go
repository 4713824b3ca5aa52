// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
)

// MaxModules bounds the parts of a process's memory that its stacks are looked up in.
const MaxModules = 256

// Stack is the code that the process had mapped when it was looked at.
type Stack struct {
	Modules []Module `json:"modules"`
}

// A Module is a part of a file that the process has mapped as code.
type Module struct {
	Name   string `json:"name"`   // of the file, without its folders; "[vdso]"
	Start  uint64 `json:"start"`  // in the process
	End    uint64 `json:"end"`    // likewise
	Offset uint64 `json:"offset"` // of Start in the file
	// Own says that it is the executable.
	Own bool `json:"own,omitempty"`
}

func (t *Target) validateStack() error {
	s := t.Stack
	switch {
	case s == nil:
		return nil
	case t.Identity.Kernel != "":
		return errors.New("of the kernel")
	}
	if len(s.Modules) > MaxModules {
		return fmt.Errorf("%d modules; at most %d", len(s.Modules), MaxModules)
	}
	for _, m := range s.Modules {
		if err := texts(text{"module", m.Name, maxShort}); err != nil {
			return err
		}
		if m.Start >= m.End || m.Offset+(m.End-m.Start) < m.Offset {
			return errors.New("a module without bytes, or with more than there can be")
		}
	}
	return nil
}

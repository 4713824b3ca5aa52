// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// AddressBytes is the length of an address in a record.
const AddressBytes = 8

// A Stack asks for the addresses that a function and its callers return to. They are read when the event is: of a call with its
// return then, by when its callers are still those of its entry.
type Stack struct {
	Callers int             `json:"callers"` // at most so many
	Modules []target.Module `json:"modules"` // that the addresses are in
}

// stack takes over what the target says of its code.
func (c *compiler) stack() error {
	if (c.target.Stack != nil) != c.spec.Stack {
		return problem.New(problem.Internal, "target: it says where its stacks are, or does not, otherwise than asked")
	}
	if c.target.Stack == nil {
		return nil
	}
	c.plan.Stack = &Stack{Callers: MaxCallers, Modules: c.target.Stack.Modules}
	return c.fits("--stack", "of at most "+fmt.Sprint(MaxCallers)+" callers")
}

func (p *Plan) verifyStack() error {
	s := p.Stack
	switch {
	case s == nil:
		return nil
	case s.Callers < 1 || s.Callers > MaxCallers || len(s.Modules) > target.MaxModules:
		return fmt.Errorf("a stack of %d callers in %d modules: out of bounds", s.Callers, len(s.Modules))
	case p.Aggregate != "":
		return errors.New("a stack of what is not emitted")
	case p.Identity.Kernel != "":
		return errors.New("a stack of the kernel's")
	}
	return nil
}

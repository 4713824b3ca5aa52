// SPDX-License-Identifier: Apache-2.0

// Package doctor is what a node found out about itself: what its kernel is and lets one do, and what came of trying. They are
// plain values that are found out there and shown elsewhere, and the sentences about them that people read.
package doctor

import (
	"fmt"
	"time"
)

// A SelfTest is what came of attaching the real program to processes of the node's own, before it takes a session. The zero
// value is a test that was not made, which does not pass.
type SelfTest struct {
	// Trap is what a hit takes from its target beside the program's own work: the breakpoint, the way into the kernel and back, and the
	// step over an instruction that the kernel does not emulate. It is the median of some rounds.
	Trap time.Duration `json:"trapNs"`
	// Hits is how many the figure was measured with.
	Hits int `json:"hits"`
	// Took is how long the whole test took.
	Took   time.Duration `json:"tookNs"`
	Checks []Check       `json:"checks"`
}

// A Check is one question of the self-test.
type Check struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Text says to people what was seen; empty if there is nothing to say.
	Text string `json:"text,omitempty"`
}

// An Outcome is the answer to one question.
type Outcome string

// The outcomes.
const (
	Pass   Outcome = "pass"
	Unsafe Outcome = "unsafe" // this kernel harms a target there: such sites are refused, the others are not
	Fail   Outcome = "fail"   // the node takes no session
)

// Names of the checks: an open list.
const (
	CheckLoad          = "load"           // the kernel takes the program and the child its probe
	CheckCapture       = "capture"        // a call is one event with the values that it was made with
	CheckRedact        = "redact"         // what is to be withheld is not among the bytes that left the kernel
	CheckThreads       = "threads"        // so is a call in another thread of the process
	CheckScope         = "scope"          // another process of the same file is not touched
	CheckDeadline      = "deadline"       // nothing is captured behind the deadline
	CheckDetach        = "detach"         // the text is as it was before
	CheckCost          = "cost"           // the cost of a hit could be measured
	CheckNOP5          = "nop5"           // a NOP of 5 bytes, in a function that keeps values below its stack pointer
	CheckNOP10         = "nop10"          // the same with 10 bytes
	CheckReturn        = "return"         // a return probe in an ordinary process
	CheckReturnSeccomp = "return-seccomp" // the same in one whose system calls are filtered
)

// required are the checks that a node must pass.
var required = []string{CheckLoad, CheckCapture, CheckRedact, CheckThreads, CheckScope, CheckDeadline, CheckDetach, CheckCost}

// Outcome is the outcome of a check, and what was seen; empty if the test did not make it.
func (t *SelfTest) Outcome(name string) (Outcome, string) {
	for _, c := range t.Checks {
		if c.Name == name {
			return c.Outcome, c.Text
		}
	}
	return "", ""
}

// Err says in one sentence why a node with this result takes no session; nil: it does.
func (t *SelfTest) Err() error {
	for _, c := range t.Checks {
		if c.Outcome == Fail {
			if c.Name == CheckLoad {
				return fmt.Errorf("%s", c.Text)
			}
			return fmt.Errorf("the self-test failed (%s): %s", c.Name, c.Text)
		}
	}
	for _, name := range required {
		if o, _ := t.Outcome(name); o != Pass {
			return fmt.Errorf("the self-test did not get to its check %q", name)
		}
	}
	if t.Trap <= 0 {
		return fmt.Errorf("the self-test did not measure the cost of a hit")
	}
	return nil
}

// Add notes an outcome.
func (t *SelfTest) Add(name string, o Outcome, format string, args ...any) {
	t.Checks = append(t.Checks, Check{Name: name, Outcome: o, Text: fmt.Sprintf(format, args...)})
}

// SafeNOP says whether a breakpoint on a NOP of so many bytes harms nobody on this node. Only what was tested is.
func (t *SelfTest) SafeNOP(bytes int) bool {
	var name string
	switch bytes {
	case 5:
		name = CheckNOP5
	case 10:
		name = CheckNOP10
	default:
		return true // the kernel rewrites none of another length
	}
	o, _ := t.Outcome(name)
	return o == Pass
}

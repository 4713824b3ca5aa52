// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// The exit statuses. They are a contract.
const (
	statusFine        = 0  // deadline, stopped by its owner, Ctrl-C, max hits, the target ended after the attach
	statusFault       = 1  // ours: a holder lost, audit or store not writable
	statusRequest     = 2  // the request is wrong by itself
	statusDenied      = 3  // policy, ceiling, certificate; or somebody else stopped it
	statusNotFound    = 4  // no such process, function, argument, node
	statusTripped     = 5  // over its budget
	statusUnreachable = 6  // no control plane, or lost on the way
	statusCannot      = 7  // the node or the site cannot
	statusAssertion   = 10 // something is otherwise than was wanted
)

// statuses are the exit statuses of the kinds of problem. What is not here is a fault.
var statuses = map[string]int{
	problem.InvalidArgument:    statusRequest,
	problem.PermissionDenied:   statusDenied,
	problem.Unauthenticated:    statusDenied,
	problem.NotFound:           statusNotFound,
	problem.Unavailable:        statusCannot, // a node; of the control plane see statusOf
	problem.FailedPrecondition: statusCannot,
	problem.ResourceExhausted:  statusCannot,
	problem.DeadlineExceeded:   statusCannot,
	problem.Unimplemented:      statusCannot,
}

// statusOf is the exit status that an error stands for.
func statusOf(err error) int {
	if err == nil {
		return statusFine
	}
	if _, away := errors.AsType[*client.Unreachable](err); away {
		return statusUnreachable
	}
	if _, over := errors.AsType[*tripped](err); over {
		return statusTripped
	}
	if _, otherwise := errors.AsType[*assertion](err); otherwise {
		return statusAssertion
	}
	if status, known := statuses[problem.Of(err).Code]; known {
		return status
	}
	return statusFault
}

// tripped is the end of a session that was over its budget.
type tripped struct{ problem *problem.Error }

func (t *tripped) Error() string { return t.problem.Error() }
func (t *tripped) Unwrap() error { return t.problem }

// assertion is that something is otherwise than was wanted.
type assertion struct{ problem *problem.Error }

func (a *assertion) Error() string { return a.problem.Error() }
func (a *assertion) Unwrap() error { return a.problem }

// complaint is an error as it is written to standard error: what is wrong and the next step, then what there is to choose
// from unless the text has it.
func complaint(err error) []table.Line {
	p := problem.Of(err)
	var lines []table.Line
	for i, text := range strings.Split(strings.TrimSpace(p.Message), "\n") {
		if i == 0 {
			text = "keyhole: " + p.Code + ": " + text
		}
		lines = append(lines, table.Line{table.Text(text)})
	}
	for _, c := range p.Candidates {
		if !strings.Contains(p.Message, c) {
			lines = append(lines, table.Line{table.Text("  " + c)})
		}
	}
	return lines
}

// invalid is a problem with what was typed.
func invalid(format string, args ...any) error {
	return problem.New(problem.InvalidArgument, format, args...)
}

// verdict is what the end of a session is for whoever started it: nil if it ended as it should.
func verdict(s *keyholev1.Session, endedBy string) error {
	id := s.GetId()
	switch endedBy {
	case event.EndDeadline, event.EndStopped, event.EndMaxHits, event.EndTargetGone, event.EndTargetReplaced:
		if s.GetAttached() != nil || s.GetError() == "" {
			return nil
		}
	case event.EndTripped:
		return &tripped{problem.New(problem.ResourceExhausted, "session %s was over its budget%s", id, behind(s))}
	case event.EndRevoked:
		return problem.New(problem.PermissionDenied, "session %s was stopped by somebody else; keyhole audit show %s says by whom", id, id)
	case event.EndForks:
		return problem.New(problem.FailedPrecondition, "session %s was ended, since its process forks: children inherit the breakpoints and pay for each "+
			"without an event; probe a child, by its number, or a function that is called before the fork", id)
	case event.EndHolderLost:
		return problem.New(problem.Internal, "session %s lost its holder, the process that reads its events; the kernel detached it%s", id, behind(s))
	case event.EndAgentLost:
		return problem.New(problem.Internal, "the agent of node %[2]s is gone, and with it session %[1]s, which is detached%[3]s", id, s.GetNode(), behind(s))
	case event.EndAuditLost:
		return problem.New(problem.Internal, "session %s was ended, since the audit record of its attach could not be written%s", id, behind(s))
	}
	code, text := s.GetErrorCode(), s.GetError()
	if code == "" {
		code = problem.Internal
	}
	if text == "" {
		text = fmt.Sprintf("session %s ended by %s", id, endedBy)
	}
	return problem.New(code, "%s", text)
}

func behind(s *keyholev1.Session) string {
	if s.GetError() == "" {
		return ""
	}
	return ": " + s.GetError()
}

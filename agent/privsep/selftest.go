// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/selftest"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// checkTime is how long the self-test may take: a second where the machine has nothing else to do.
const checkTime = time.Minute

// runChecker makes the self-test, with processes of its own, and tells what it and the machine are like.
func runChecker() error {
	unix.CloseOnExec(firstDescriptor)
	parent := newConn(firstDescriptor, "parent")
	perfEvents := slices.Equal(os.Args[2:], checkerArgs(true))
	bare, err := newSpawner(0)
	if err != nil {
		return err
	}
	self := selftest.Run(func() (*os.File, error) { return startSubject(bare) }, perfEvents)
	return parent.send(doctor.Report{Facts: selftest.Gather(perfEvents), SelfTest: *self})
}

// checkerArgs tell a checker what the node takes.
func checkerArgs(perfEvents bool) []string {
	if perfEvents {
		return []string{"perf-events"}
	}
	return nil
}

// startSubject starts a process that is there to be probed. It ends with its socket.
func startSubject(by *spawner) (*os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(theirs)
	c, err := by.start(start{name: holderName, role: roleSubject, files: []int{theirs}, env: holderEnvironment})
	if err != nil {
		unix.Close(ours)
		return nil, err
	}
	go func() { _, _ = c.wait() }() // how it ended shows in its answers
	return os.NewFile(uintptr(ours), "subject"), nil
}

func runSubject() error {
	unix.CloseOnExec(firstDescriptor)
	return selftest.Subject(os.NewFile(firstDescriptor, "tester"))
}

// startCheck starts the self-test, before the monitor's own system calls are filtered: what a filter does to a target is among
// what is tested.
func (m *monitor) startCheck() error {
	var checker *child
	gone := make(chan struct{})
	_, socket, err := m.spawn(childSpec{
		by:         m.bpf,
		start:      start{name: holderName, role: roleChecker, args: checkerArgs(m.perfEvents), env: holderEnvironment},
		registered: func(_ uint64, c *child) { checker = c },
		exited:     func(uint64, string) { close(gone) },
	})
	if err != nil {
		return err
	}
	go func() {
		defer close(m.checked)
		m.report = hearReport(newConn(socket, "checker"))
		_ = checker.signal(unix.SIGKILL)
		<-gone
	}()
	return nil
}

// hearReport takes what a checker says. One that says nothing is a test that failed.
func hearReport(c *conn) *doctor.Report {
	defer c.close()
	r := new(doctor.Report)
	if err := c.receiveWithin(checkTime, r); err != nil {
		r = new(doctor.Report)
		r.SelfTest.Add(doctor.CheckLoad, doctor.Fail, "the self-test ended without a result: %v", err)
	}
	return r
}

// able waits for the self-test, and says why this node takes no session.
func (m *monitor) able() (*doctor.Report, error) {
	<-m.checked
	if err := m.report.SelfTest.Err(); err != nil {
		return nil, problem.New(problem.FailedPrecondition, "this node cannot be probed: %v", err)
	}
	return m.report, nil
}

// Check waits for the node's self-test, which the monitor began when it started, and returns its result.
func (c *Client) Check(ctx context.Context) (*doctor.Report, error) {
	a, err := c.call(ctx, request{Check: true})
	if err != nil {
		return nil, fmt.Errorf("check node: %w", err)
	}
	if a.reply.Checked == nil {
		return nil, errors.New("check node: the monitor's reply holds no result")
	}
	return a.reply.Checked, nil
}

// Examine makes the self-test without a monitor or an agent, for people who want to know what a node can do. It
// needs root. With perfEvents the kernel needs no uprobe_multi links.
func Examine(ctx context.Context, perfEvents bool) (*doctor.Report, error) {
	s, err := newSpawner(all)
	if err != nil {
		return nil, fmt.Errorf("examine node: %w", err)
	}
	defer close(s.starts) // the thread that the checker would die with
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("examine node: %w", err)
	}
	defer unix.Close(theirs)
	checker, err := s.start(start{name: holderName, role: roleChecker, args: checkerArgs(perfEvents), files: []int{theirs}, env: holderEnvironment})
	if err != nil {
		unix.Close(ours)
		return nil, fmt.Errorf("examine node: %w", err)
	}
	conn := newConn(ours, "checker")
	defer context.AfterFunc(ctx, conn.close)()
	r := hearReport(conn)
	if _, err := checker.wait(); err != nil {
		return nil, fmt.Errorf("examine node: %w", err)
	}
	return r, ctx.Err()
}

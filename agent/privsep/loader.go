// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// handshake is how long a holder waits for the agent's and the monitor's next word.
const handshake = 10 * time.Second

// A handover is what a loader leaves to the reader that it becomes.
type handover struct {
	SessionID string     `json:"sessionId"`
	Node      string     `json:"node"`
	Plan      *plan.Plan `json:"plan"`
	Attached  Attached   `json:"attached"`
	Budgets   budgets    `json:"budgets"`
	// CountsMissed says that the link knows how many calls the kernel could not run the program at.
	CountsMissed bool `json:"countsMissed,omitempty"`
	// Descriptors.
	Agent, Monitor        int
	Ring, Counts, Control int
	Links                 []int
	Counted               int // 0: there is none
}

// A holderLoader is a holder before it has given its capabilities up.
type holderLoader struct {
	agent, monitor *conn
	exe            *os.File
	assignment     assignment
}

// runLoader loads and attaches what the monitor assigned, then becomes the reader. What is the request's fault is told to
// the agent.
func runLoader() error {
	l := holderLoader{
		agent:   newConn(firstDescriptor, "agent"),
		monitor: newConn(firstDescriptor+1, "monitor"),
		exe:     os.NewFile(firstDescriptor+3, "executable"),
	}
	l.agent.values, l.monitor.values = maxRequestValues, maxRequestValues
	for fd := firstDescriptor; fd <= firstDescriptor+3; fd++ {
		unix.CloseOnExec(fd)
	}
	if err := hide(); err != nil { // the key of the digests passes through here
		return err
	}
	if err := takeOver(firstDescriptor+2, &l.assignment); err != nil {
		return err
	}
	err := l.run()
	if sendErr := l.agent.send(report{Problem: problem.Of(err)}); sendErr != nil {
		return errors.Join(err, sendErr)
	}
	return nil // the agent knows
}

// run does not return if it succeeds.
func (l *holderLoader) run() error {
	var c command
	if err := l.agent.receiveWithin(handshake, &c); err != nil {
		return fmt.Errorf("hear from agent: %w", err)
	}
	if c.Hold == nil {
		return errors.New("hear from agent: its first word names no target")
	}
	p, err := l.compile(c.Hold, c.PlanDigest)
	if err != nil {
		return err
	}
	if err := l.ask(notice{Attaching: c.Hold}); err != nil {
		return err
	}
	program, err := loader.Load(p, loader.Options{
		LatestDeadlineNs: l.assignment.DeadlineNs,
		DeadlineNs:       l.assignment.DeadlineNs,
		RingBytes:        l.assignment.RingBytes,
		CountFirst:       true,
		PerfEvents:       l.assignment.PerfEvents,
		LeaveOut:         os.Getppid(), // the monitor, and with it all that it started
	})
	if err != nil {
		return err
	}
	defer program.Close()
	attachment, err := program.Attach(l.exe)
	if err != nil {
		return err
	}
	defer attachment.Close()
	var again []int
	if p.Limits.Duty != 0 {
		file, err := program.EntryFile()
		if err != nil {
			return err
		}
		defer file.Close()
		again = append(again, int(file.Fd()))
	}
	if err := l.ask(notice{Attached: true}, again...); err != nil {
		return err
	}
	return l.becomeReader(p, program, attachment)
}

// compile makes the plan by itself, from what the monitor has verified and the target, and refuses if it is not the plan on record.
func (l *holderLoader) compile(t *target.Target, digest string) (*plan.Plan, error) {
	if err := sameIdentity(t.Identity, l.assignment.Identity); err != nil {
		return nil, err
	}
	for _, site := range t.Sites {
		if t.Identity.Kernel != "" {
			break // there is no file to compare with
		}
		if err := l.compareFile(site); err != nil {
			return nil, err
		}
	}
	p, err := plan.Compile(&l.assignment.Spec, t, l.assignment.Rules)
	if err != nil {
		return nil, err
	}
	if err := p.Verify(); err != nil {
		return nil, err
	}
	if own := p.Digest(); own != digest {
		return nil, problem.New(problem.FailedPrecondition, "the plan on record is %s, the holder's own %s: nothing is attached", digest, own)
	}
	return p, nil
}

// compareFile compares the open file with the analysis. The monitor does so with the memory.
func (l *holderLoader) compareFile(site target.Site) error {
	if len(site.Bytes) == 0 || len(site.Bytes) > maxSiteBytes {
		return problem.New(problem.InvalidArgument, "site %#x: an instruction of %d bytes", site.Address, len(site.Bytes))
	}
	found := make([]byte, len(site.Bytes))
	if _, err := l.exe.ReadAt(found, int64(site.FileOffset)); err != nil {
		return problem.New(problem.FailedPrecondition, "site %#x: read the executable at %#x: %v", site.Address, site.FileOffset, err)
	}
	if !bytes.Equal(found, site.Bytes) {
		return problem.New(problem.FailedPrecondition, "site %#x: the executable is not what was analysed: something has written to it", site.Address)
	}
	return nil
}

// ask gives the monitor a notice and waits until it says to go on.
func (l *holderLoader) ask(n notice, files ...int) error {
	if err := l.monitor.send(n, files...); err != nil {
		return err
	}
	var o order
	if err := l.monitor.receiveWithin(handshake, &o); err != nil {
		return fmt.Errorf("hear from monitor: %w", err)
	}
	switch {
	case o.Problem != nil:
		return o.Problem
	case !o.Proceed:
		return fmt.Errorf("hear from monitor: stopped before the attach: %s", o.Stop)
	}
	return nil
}

// becomeReader executes this process anew without any privilege. What is not handed over is closed by the exec: the
// program, its tables with the key, and the scratch among it.
func (l *holderLoader) becomeReader(p *plan.Plan, program *loader.Program, attachment *loader.Attachment) error {
	files, err := attachment.Files()
	if err != nil {
		return err
	}
	defer files.Close()
	h := handover{
		SessionID: l.assignment.SessionID,
		Node:      l.assignment.Node,
		Plan:      p,
		Attached: Attached{
			Sites:                p.Sites,
			ProgramDigest:        program.Digest(),
			VerifiedInstructions: int(program.Instructions),
			Load:                 program.LoadTime,
			Attach:               attachment.AttachTime,
			DeadlineNs:           l.assignment.DeadlineNs,
		},
		Budgets:      l.assignment.Budgets,
		CountsMissed: attachment.CountsMissed,

		Agent:   int(l.agent.file.Fd()),
		Monitor: int(l.monitor.file.Fd()),
		Ring:    int(files.Ring.Fd()),
		Counts:  int(files.Counts.Fd()),
		Control: int(files.Control.Fd()),
	}
	kept := []int{h.Agent, h.Monitor, h.Ring, h.Counts, h.Control}
	for _, link := range files.Links {
		h.Links = append(h.Links, int(link.Fd()))
	}
	kept = append(kept, h.Links...)
	if files.Counted != nil {
		h.Counted = int(files.Counted.Fd())
		kept = append(kept, h.Counted)
	}
	handed, err := handOver("keyhole-reader", h)
	if err != nil {
		return err
	}
	defer unix.Close(handed)
	return become{name: holderName, role: roleReader, files: append([]int{handed}, kept...), env: holderEnvironment, parent: os.Getppid()}.now()
}

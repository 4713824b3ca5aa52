// SPDX-License-Identifier: Apache-2.0

// Package selftest attaches the real program to processes of the node's own before anybody else's: whether it captures,
// redacts, stops at its deadline and leaves nothing behind, what this kernel does to the processes that it probes, and what a
// hit costs here. What a version number promises and what a kernel does differ.
package selftest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/frame"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const (
	// costRounds is how many rounds of calls the cost of a hit is the median of.
	costRounds = 15
	// nopCalls is how often each NOP is called: a kernel rewrites it at the first or second hit.
	nopCalls = 500
	// returnCalls is how often a function with a return probe is called.
	returnCalls = 20
	// patience is how long a subject may take for one order, and the program may live.
	patience = 10 * time.Second
)

// errNotSupported is the kernel's ENOTSUPP, which it should keep to itself, of an instruction that it takes no probe on.
const errNotSupported = unix.Errno(524)

// number and secret are what the calls are made with.
const number = 20_260_501

var secret = []byte("keyhole self-test: this must stay\x00")

// A Starter starts one subject: this very executable, which calls Subject with the other end of the socket. The subject ends
// when the socket is closed.
type Starter func() (socket *os.File, err error)

// Run makes the test. It needs the capabilities BPF and PERFMON. With perfEvents the kernel needs no uprobe_multi links. What is wrong is said in the result.
func Run(start Starter, perfEvents bool) *doctor.SelfTest {
	began := time.Now()
	t := &test{result: new(doctor.SelfTest), start: start, perfEvents: perfEvents}
	defer t.close()
	t.run()
	t.result.Took = time.Since(began)
	return t.result
}

type test struct {
	result     *doctor.SelfTest
	start      Starter
	perfEvents bool

	granted, other *subject
	exe            *os.File
	program        *loader.Program
}

// A subject is the tester's end of one.
type subject struct {
	socket   *os.File
	identity target.Identity
	sites    []target.Site
	text     []byte // before anything was attached
}

func (t *test) close() {
	for _, s := range []*subject{t.granted, t.other} {
		if s != nil {
			s.socket.Close()
		}
	}
	if t.program != nil {
		t.program.Close()
	}
	if t.exe != nil {
		t.exe.Close()
	}
}

func (t *test) fail(check string, err error) { t.result.Add(check, doctor.Fail, "%v", err) }

func (t *test) run() {
	p, reader, err := t.attach()
	if err != nil {
		if lacks := loader.Supported(t.perfEvents); lacks != nil {
			err = lacks // in a sentence
		}
		t.fail(doctor.CheckLoad, err)
		return
	}
	defer reader.Close()
	t.result.Add(doctor.CheckLoad, doctor.Pass, "")
	t.capture(p, reader)
	t.scope()
	t.deadline(reader)
	t.cost(reader)
	if t.result.Err() != nil {
		return // what follows leans on it
	}
	var all sync.WaitGroup
	var outcomes [3][]doctor.Check
	for i, check := range []func() []doctor.Check{
		t.nops,
		func() []doctor.Check { return t.returns(t.granted, doctor.CheckReturn, false) },
		func() []doctor.Check { return t.returns(t.other, doctor.CheckReturnSeccomp, true) },
	} {
		all.Go(func() { outcomes[i] = check() })
	}
	all.Wait()
	for _, o := range outcomes {
		t.result.Checks = append(t.result.Checks, o...)
	}
}

// attach starts the subjects, and probes one of them.
func (t *test) attach() (_ *plan.Plan, _ *loader.Reader, err error) {
	if t.granted, err = t.subject(); err != nil {
		return nil, nil, err
	}
	if t.other, err = t.subject(); err != nil {
		return nil, nil, err
	}
	if t.exe, err = os.Open("/proc/self/exe"); err != nil {
		return nil, nil, err
	}
	p, err := t.granted.plan()
	if err != nil {
		return nil, nil, err
	}
	deadline := loader.BootNow() + uint64(patience)
	if t.program, err = loader.Load(p, loader.Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: os.Getpagesize(), PerfEvents: t.perfEvents}); err != nil {
		return nil, nil, err
	}
	attachment, err := t.program.Attach(t.exe)
	if err != nil {
		return nil, nil, err
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		return nil, nil, err
	}
	reader, err := loader.OpenReader(files)
	return p, reader, err
}

func (t *test) subject() (*subject, error) {
	socket, err := t.start()
	if err != nil {
		return nil, err
	}
	s := &subject{socket: socket}
	a, err := s.do(order{Introduce: true})
	if err == nil && (a.Identity == nil || len(a.Sites) == 0) {
		err = errors.New("it does not say who it is")
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("start a process to probe: %w", err)
	}
	s.identity, s.sites, s.text = *a.Identity, a.Sites, a.Text
	return s, nil
}

// do has the subject do something and waits for its answer.
func (s *subject) do(o order) (*answer, error) {
	if err := s.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := frame.Write(s.socket, o); err != nil {
		return nil, err
	}
	a := new(answer)
	if err := frame.Read(s.socket, a); err != nil {
		return nil, err
	}
	return a, nil
}

// intact says whether the subject's functions are as they were before anything was attached.
func (s *subject) intact() (bool, error) {
	a, err := s.do(order{Call: &call{Text: []byte{0}, Times: 1}})
	if err != nil {
		return false, err
	}
	return bytes.Equal(a.Text, s.text), nil
}

// plan captures a number as it is and a digest of a text.
func (s *subject) plan() (*plan.Plan, error) {
	spec := probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: s.identity.PID}, Function: "site",
		Redact: []probe.Redaction{{Path: "text", Action: "digest"}}, Reason: "self-test",
	}.WithDefaults()
	probed := &target.Target{
		Identity: s.identity,
		Function: target.Function{Name: "site", Address: s.sites[0].Address, Size: textBytes},
		Sites:    s.sites[:1],
		Values: []target.Value{
			{Path: "number", Names: []string{"number"}, TypeName: "unsigned long", Kind: target.KindUint, Size: 8, Data: target.Location{Register: registers[0]}},
			{Path: "text", Names: []string{"text"}, TypeName: "char *", Kind: target.KindCString, Data: target.Location{Register: registers[1]}},
		},
	}
	return plan.Compile(&spec, probed, redact.Shipped())
}

// capture makes one call and looks at what left the kernel.
func (t *test) capture(p *plan.Plan, r *loader.Reader) {
	if _, err := t.granted.do(order{Call: &call{Number: number, Text: secret, Times: 1}}); err != nil {
		t.fail(doctor.CheckCapture, fmt.Errorf("a process did not outlive the probe: %w", err))
		return
	}
	record, err := r.Read(time.Now().Add(patience))
	if err != nil {
		t.fail(doctor.CheckCapture, err)
		return
	}
	e, err := decode.New(p, decode.Meta{Wall: func(uint64) time.Time { return time.Time{} }}).Decode(record)
	if err != nil {
		t.fail(doctor.CheckCapture, err)
		return
	}
	if len(e.Arguments) != 2 || e.Arguments[0].Value != fmt.Sprint(number) {
		t.fail(doctor.CheckCapture, fmt.Errorf("a call with %d gave %+v", number, e.Arguments))
		return
	}
	t.result.Add(doctor.CheckCapture, doctor.Pass, "")
	text := e.Arguments[1]
	if text.Kind != event.KindDigest || text.Missing != "" || bytes.Contains(record, secret[:8]) {
		t.fail(doctor.CheckRedact, errors.New("a text that was to be digested left the kernel as something else"))
		return
	}
	t.result.Add(doctor.CheckRedact, doctor.Pass, "")
	if _, err := t.granted.do(order{Call: &call{Number: number, Text: secret, Times: 1, Thread: true}}); err != nil {
		t.fail(doctor.CheckThreads, fmt.Errorf("a process did not outlive the probe: %w", err))
		return
	}
	if _, err := r.Read(time.Now().Add(patience / 10)); err != nil {
		// Commit 46ba0e49b642 (Linux 6.10): the filter of uprobe_multi took a process's number for a thread's.
		t.fail(doctor.CheckThreads, fmt.Errorf("a call in another thread than a process's first was not seen: the kernel should be Linux 6.10, or 6.6.33, or later: %w", err))
		return
	}
	t.result.Add(doctor.CheckThreads, doctor.Pass, "")
}

// scope looks at the process that nobody granted.
func (t *test) scope() {
	switch intact, err := t.other.intact(); {
	case err != nil:
		t.fail(doctor.CheckScope, err)
	case !intact:
		t.fail(doctor.CheckScope, errors.New("the kernel has set the breakpoint in another process of the same file too"))
	default:
		t.result.Add(doctor.CheckScope, doctor.Pass, "")
	}
}

func (t *test) deadline(r *loader.Reader) {
	err := r.SetDeadline(0)
	if err == nil {
		_, err = t.granted.do(order{Call: &call{Number: number, Text: secret, Times: 3}})
	}
	if err != nil {
		t.fail(doctor.CheckDeadline, err)
		return
	}
	switch counts, err := r.Counts(); {
	case err != nil:
		t.fail(doctor.CheckDeadline, err)
		return
	case counts.Hits != 2:
		t.fail(doctor.CheckDeadline, fmt.Errorf("%d hits, of which all but two were made behind the deadline", counts.Hits))
		return
	}
	t.result.Add(doctor.CheckDeadline, doctor.Pass, "")
}

// cost times calls with a program that ends at its first lines, detaches, and times them again.
func (t *test) cost(r *loader.Reader) {
	probed, err := t.granted.do(order{Rounds: costRounds})
	if err != nil {
		t.fail(doctor.CheckCost, err)
		return
	}
	if bytes.Equal(probed.Text, t.granted.text) {
		t.fail(doctor.CheckCost, errors.New("the breakpoint was gone before its time"))
		return
	}
	if err := r.Detach(); err != nil {
		t.fail(doctor.CheckDetach, err)
		return
	}
	bare, err := t.granted.do(order{Rounds: costRounds})
	switch {
	case err != nil:
		t.fail(doctor.CheckDetach, err)
		return
	case !bytes.Equal(bare.Text, t.granted.text):
		t.fail(doctor.CheckDetach, errors.New("the text of a process was not as before when the probe was gone"))
		return
	}
	t.result.Add(doctor.CheckDetach, doctor.Pass, "")
	t.result.Trap, t.result.Hits = time.Duration(probed.CallNs-bare.CallNs), costRounds*roundHits
	if t.result.Trap <= 0 {
		t.fail(doctor.CheckCost, errors.New("a call took no longer with the probe than without"))
		return
	}
	t.result.Add(doctor.CheckCost, doctor.Pass, "")
}

// nops has functions called that begin with a NOP and whose caller keeps values where they may.
func (t *test) nops() []doctor.Check {
	var result doctor.SelfTest
	for i, n := range nops() {
		corrupt, err := t.nop(i)
		switch {
		case err != nil:
			result.Add(n.check, doctor.Unsafe, "%v", err)
		case corrupt > 0:
			result.Add(n.check, doctor.Unsafe, "in %d of %d calls the kernel overwrote what a function kept below its stack pointer", corrupt, nopCalls)
		default:
			result.Add(n.check, doctor.Pass, "")
		}
	}
	return result.Checks
}

// nop probes one of them, in a process of its own: what is done to it may end it.
func (t *test) nop(i int) (corrupt uint64, err error) {
	s, err := t.subject()
	if err != nil {
		return 0, err
	}
	defer s.socket.Close()
	attachment, err := t.program.AttachTo(t.exe, s.identity.PID, []uint64{s.sites[i+1].FileOffset}, false)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, errNotSupported) {
		return 0, errors.New("the kernel takes no probe on one")
	}
	if err != nil {
		return 0, err
	}
	a, err := s.do(order{NOP: i + 1, Calls: nopCalls})
	if err := errors.Join(err, attachment.Close()); err != nil {
		return 0, fmt.Errorf("the process did not outlive the probe: %w", err)
	}
	intact, err := s.intact()
	if err == nil && !intact {
		err = errors.New("the text was not as before when the probe was gone")
	}
	return a.Corrupt, err
}

// returns has a function called at whose return the program is.
func (t *test) returns(s *subject, check string, filtered bool) []doctor.Check {
	var result doctor.SelfTest
	if filtered {
		if _, err := s.do(order{Filter: true}); err != nil {
			result.Add(check, doctor.Unsafe, "the system calls of a process could not be filtered: %v", err)
			return result.Checks
		}
	}
	attachment, err := t.program.AttachTo(t.exe, s.identity.PID, []uint64{s.sites[0].FileOffset}, true)
	if err != nil {
		result.Add(check, doctor.Unsafe, "%v", err)
		return result.Checks
	}
	_, callErr := s.do(order{Call: &call{Text: []byte{0}, Times: returnCalls}})
	err = attachment.Close()
	intact, goneErr := false, callErr
	if goneErr == nil {
		intact, goneErr = s.intact()
	}
	switch {
	case goneErr != nil:
		result.Add(check, doctor.Unsafe, "a process did not outlive its probe: %v", goneErr)
	case err != nil || !intact:
		result.Add(check, doctor.Unsafe, "the text was not as before when the probe was gone (%v)", err)
	default:
		result.Add(check, doctor.Pass, "")
	}
	return result.Checks
}

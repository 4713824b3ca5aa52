// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const (
	// patrolInterval is how soon the monitor notices that a target has ended or executed something else.
	patrolInterval = 250 * time.Millisecond
	// attachTime is how long a holder may take until it has attached: the verifier on a slow machine.
	attachTime = 30 * time.Second
	// lingering is how long a holder that has detached may live: its agent may be slow.
	lingering = time.Minute
	// restoreTime is how long the kernel is given to take breakpoints out after a holder's end.
	restoreTime = time.Second
)

// A hold is one session's holder, as the monitor knows it.
type hold struct {
	child    *child
	conn     *conn // to the holder
	subject  *subject
	spec     probe.Spec // that was granted
	deadline *bootTimer
	overseen chan struct{} // closed when nobody hears the holder any more

	program *os.File       // to attach once more; nil unless the session pauses
	target  *target.Target // likewise

	// Of oversee alone.
	isPaused bool
	resumed  time.Time // when it was attached once more

	sites []target.Site // where breakpoints are ours, from before they are set until they were seen gone; guarded by subject.text

	// Of watchForks alone.
	id     uint64
	family map[int]kin // the target's descendants
	forked Forked

	mu       sync.Mutex
	attached bool
	cause    string // why the monitor ended it
	load     load   // the last that the holder told
}

// end notes why the monitor ends the holder and says whether nobody had before.
func (h *hold) end(cause string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause != "" {
		return false
	}
	h.cause = cause
	return true
}

func (h *hold) isAttached() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.attached
}

// kill ends the holder at once.
func (h *hold) kill(cause string) {
	h.end(cause)
	_ = h.child.signal(unix.SIGKILL)
}

// An assignment is what a loader works by. It comes from the monitor alone.
type assignment struct {
	SessionID  string          `json:"sessionId"`
	Node       string          `json:"node"`
	Spec       probe.Spec      `json:"spec"`
	Rules      *redact.Ruleset `json:"rules"`
	Identity   target.Identity `json:"identity"`
	DeadlineNs uint64          `json:"deadlineNs"` // CLOCK_BOOTTIME; the latest there can be
	RingBytes  int             `json:"ringBytes"`
	Budgets    budgets         `json:"budgets"`
	PerfEvents bool            `json:"perfEvents"` // where the kernel has nothing better
}

// budgets are what a session may cost, and what a hit of it costs beside the program's own time.
type budgets struct {
	Session probe.Budget  `json:"session"`
	Most    probe.Budget  `json:"most"` // that a requester may ask for here
	Trap    time.Duration `json:"trapNs"`
}

func tooManyHolders() error {
	return problem.New(problem.ResourceExhausted, "%d sessions are attached on this node, which is the most: stop one", maxHolders)
}

// hold judges a grant and starts a holder for it. It returns the holder's socket for the agent.
func (m *monitor) hold(r holdRequest) (*held, int, error) {
	s, err := m.inspection(r.Inspection)
	if err != nil {
		return nil, -1, err
	}
	able, err := m.able()
	if err != nil {
		s.release()
		return nil, -1, err
	}
	if !m.holding.take() {
		s.release()
		return nil, -1, tooManyHolders()
	}
	out, socket, err := m.startHolder(r, s, able.SelfTest.Trap)
	if err != nil {
		s.release()
		m.holding.free()
		return nil, -1, err
	}
	return out, socket, nil
}

// startHolder takes the subject over if it succeeds, and the slot.
func (m *monitor) startHolder(r holdRequest, s *subject, trap time.Duration) (*held, int, error) {
	if err := s.check(); err != nil {
		return nil, -1, err
	}
	granted, err := m.judge.judge(r.Envelope, s.identity)
	if err != nil {
		return nil, -1, err
	}
	a := assignment{
		SessionID:  granted.grant.SessionID,
		Node:       granted.grant.Node,
		Spec:       granted.grant.Spec,
		Rules:      granted.rules,
		Identity:   s.identity,
		RingBytes:  m.ringBytes,
		PerfEvents: m.perfEvents,
		Budgets: budgets{
			Session: min(granted.grant.Spec.Limits.Budget, m.judge.ceiling.MaxBudget),
			Most:    m.judge.ceiling.MaxBudget,
			Trap:    trap,
		},
		// The lease ends by this clock, whatever the attach takes of it.
		DeadlineNs: loader.BootNow() + uint64(granted.grant.TTL),
	}
	handed, err := handOver("keyhole-assignment", a)
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(handed)
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, -1, err
	}
	defer unix.Close(theirs)
	h := &hold{conn: newConn(ours, "holder"), subject: s, spec: granted.grant.Spec, overseen: make(chan struct{})}
	h.conn.values = maxRequestValues
	if h.spec.Limits.Duty != 0 {
		h.conn.acceptFiles()
	}
	var out held
	var socket int
	var watchErr error
	err = control(s.exe, func(exe int) (err error) {
		out.ID, socket, err = m.spawn(childSpec{
			by:    m.bpf,
			start: start{name: holderName, role: roleLoader, files: []int{theirs, handed, exe}, env: holderEnvironment},
			registered: func(id uint64, c *child) {
				h.child, h.id, out.PID = c, id, c.pid
				m.holds[id] = h
				watchErr = h.watch(a.DeadlineNs)
			},
			exited: func(id uint64, status string) { m.holdEnded(id, h, status) },
		})
		return err
	})
	if err != nil {
		h.conn.close()
		return nil, -1, err
	}
	if watchErr != nil {
		h.kill(event.EndNotAttached) // nobody would end it in time
	}
	go m.oversee(h)
	return &out, socket, nil
}

// watch kills the holder when it is late, whether it is to blame or not.
func (h *hold) watch(deadlineNs uint64) (err error) {
	h.deadline, err = atBootTime(deadlineNs+uint64(grace), func() { h.kill(event.EndDeadline) })
	if err != nil {
		return err
	}
	time.AfterFunc(attachTime, func() {
		if !h.isAttached() {
			h.kill(event.EndNotAttached)
		}
	})
	return nil
}

// oversee hears a holder's notices: before the attach, after it, on its load, and when it has detached. What comes
// otherwise ends it.
func (m *monitor) oversee(h *hold) {
	defer close(h.overseen)
	defer h.conn.close()
	defer func() { closeFiles([]*os.File{h.program}) }() // which may be nil
	err := m.overseeAttach(h)
	if err == nil {
		err = m.overseeDetach(h)
	}
	if !errors.Is(err, io.EOF) { // the holder's own end
		_ = h.child.signal(unix.SIGKILL)
	}
}

func (m *monitor) overseeAttach(h *hold) error {
	var n notice
	if _, err := h.conn.receive(&n); err != nil {
		return err
	}
	if n.Attaching == nil {
		return errors.New("a holder's first notice names no sites")
	}
	if err := h.answer(m.mayAttach(h, n.Attaching)); err != nil {
		return err
	}
	h.target = n.Attaching
	n = notice{}
	files, err := h.conn.receive(&n)
	if err != nil {
		return err
	}
	if err := h.keepProgram(files); err != nil {
		return err
	}
	if !n.Attached {
		return errors.New("a holder's second notice is not that it has attached")
	}
	return h.answer(m.hasAttached(h))
}

// overseeDetach hears what the probe costs and when it pauses, until it is detached.
func (m *monitor) overseeDetach(h *hold) error {
	var n notice
	for asks := true; ; asks = false {
		n = notice{}
		if _, err := h.conn.receive(&n); err != nil {
			return err
		}
		var err error
		switch {
		case n.Load != nil:
			err = m.takeLoad(h, *n.Load, asks)
		case n.Paused:
			err = m.paused(h)
		case n.Resume:
			err = m.resume(h)
		default:
			return m.overseeEnd(h, n)
		}
		if err != nil {
			return err
		}
	}
}

// overseeEnd hears that a probe is detached. Seeing that it is, the monitor gives the agent time to take what was captured.
func (m *monitor) overseeEnd(h *hold, n notice) error {
	if !n.Detached {
		return errors.New("a holder's notice that says nothing")
	}
	h.mu.Lock()
	h.load = load{}
	h.mu.Unlock()
	if m.textIsRestored(h) {
		h.deadline.stop()
		time.AfterFunc(lingering, func() { _ = h.child.signal(unix.SIGKILL) })
	}
	_, err := h.conn.receive(&n)
	if err == nil {
		return errors.New("a holder's notice after its last")
	}
	return err
}

// answer tells a holder to go on, or why not; it then ends by itself, having told the agent.
func (h *hold) answer(refused error) error {
	if refused != nil {
		return h.conn.send(order{Problem: problem.Of(refused)})
	}
	return h.conn.send(order{Proceed: true})
}

// mayAttach checks what the loader is about to do, and from then on takes breakpoints there for ours.
func (m *monitor) mayAttach(h *hold, t *target.Target) error {
	if err := sameIdentity(t.Identity, h.subject.identity); err != nil {
		return err
	}
	if err := h.subject.proofs.require(&h.spec, t); err != nil {
		return err
	}
	if err := m.judge.ceiling.AllowTarget(t); err != nil {
		return err
	}
	if err := h.subject.check(); err != nil {
		return err
	}
	if err := m.admitReturns(h.subject, t); err != nil {
		return err
	}
	h.subject.text.Lock()
	defer h.subject.text.Unlock()
	if err := m.admit(h.subject, t.Sites); err != nil {
		return err
	}
	if !h.subject.isKernel() {
		h.sites = t.Sites
	}
	return nil
}

// hasAttached checks after the fact that the process is still the one, and that the kernel has set each breakpoint where
// the analysis said that the file's bytes are. It sets none in memory that is shared, or in huge pages.
func (m *monitor) hasAttached(h *hold) error {
	if err := h.subject.check(); err != nil {
		return err
	}
	h.subject.text.Lock()
	defer h.subject.text.Unlock()
	for _, site := range h.sites {
		how, err := h.subject.look(site)
		if err != nil {
			return err
		}
		if how != siteProbed {
			return problem.New(problem.FailedPrecondition, "site %#x: the kernel accepted the probe but set no breakpoint there", site.Address)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached = true
	return nil
}

// patrol ends the holders whose target has ended or become another program.
func (m *monitor) patrol() {
	m.mu.Lock()
	holds := slices.Collect(maps.Values(m.holds))
	m.mu.Unlock()
	for _, h := range holds {
		var cause string
		switch {
		case !h.isAttached():
			continue // the loader's notices are answered by what the target is then
		case h.subject.isKernel():
			continue
		case hasExitedFile(h.subject.process):
			cause = event.EndTargetGone
		case !h.subject.sameMemory():
			cause = event.EndTargetReplaced
		default:
			continue
		}
		if h.end(cause) && h.conn.send(order{Stop: cause}) != nil {
			_ = h.child.signal(unix.SIGKILL)
		}
	}
}

// holdEnded sees the text restored and tells the agent.
func (m *monitor) holdEnded(id uint64, h *hold, status string) {
	if h.deadline != nil {
		h.deadline.stop()
	}
	<-h.overseen // a holder that dies while it is attached once more: until then its subject is looked at, and links may be open
	restored := m.awaitText(h)
	m.mu.Lock()
	delete(m.holds, id)
	m.mu.Unlock()
	h.subject.release()
	m.holding.free()
	h.mu.Lock()
	e := ended{Child: id, Cause: h.cause, Status: status, TextRestored: restored && h.attached}
	h.mu.Unlock()
	m.tell(e)
}

// awaitText waits until no breakpoint of an ended holder is left, and says whether that came.
func (m *monitor) awaitText(h *hold) bool {
	for giveUp := time.Now().Add(restoreTime); ; time.Sleep(2 * time.Millisecond) {
		if m.textIsRestored(h) {
			return true
		}
		if time.Now().After(giveUp) {
			return false
		}
	}
}

// textIsRestored says whether no breakpoint is left at a holder's sites but those of others.
func (m *monitor) textIsRestored(h *hold) bool {
	h.subject.text.Lock()
	defer h.subject.text.Unlock()
	sites := h.sites
	if h.isPaused && !h.subject.isKernel() {
		sites = h.target.Sites // whether it was true
	}
	for _, site := range sites {
		how, err := h.subject.look(site)
		switch {
		case err != nil || how == siteOther:
			return false
		case how == siteProbed && !m.isOurs(h.subject, site, h):
			return false
		}
	}
	return true
}

// sameIdentity says why a target is not the process that was opened.
func sameIdentity(t, opened target.Identity) error {
	t.BuildID, t.Language, t.Arch = "", "", "" // what the file says of itself
	if t != opened {
		return problem.New(problem.FailedPrecondition, "the target (process %d) is not the process that was inspected (%d)", t.PID, opened.PID)
	}
	return nil
}

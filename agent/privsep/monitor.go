// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// What one agent may have at a time. It has no use for more, and each costs a process.
const (
	maxHolders     = 64
	maxInspections = 16
	maxRequests    = 32 // being answered
)

// A monitor is the parent of all others, and the only process with capabilities for longer than a moment.
type monitor struct {
	judge     *judge
	self      fileID // this executable: who runs it is no target
	ringBytes int
	// perfEvents: the node takes kernels without uprobe_multi links.
	perfEvents bool

	bare *spawner // children without capabilities
	bpf  *spawner // holders, which load

	agent *child
	conn  *conn

	checked chan struct{}  // closed when report is set
	report  *doctor.Report // of the self-test

	overload int // quarters of a second in a row in which the sessions together were over the node's budget

	mu          sync.Mutex
	ended       bool // no more children
	lastID      uint64
	children    map[uint64]*child // all but the agent
	inspections map[uint64]*subject
	holds       map[uint64]*hold

	inspecting, holding, symbolising slots

	reaping sync.WaitGroup
}

// runMonitor is the monitor's whole life. It ends when the agent has ended, and then everything else has.
func runMonitor() error {
	fd, err := descriptorArgument()
	if err != nil {
		return err
	}
	var o Options
	if err := takeOver(fd, &o); err != nil {
		return err
	}
	if err := errors.Join(hide(), requireKernelClock()); err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	m, err := newMonitor(o)
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	if err := m.startAgent(o); err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	if err := m.startCheck(); err != nil {
		m.killAll()
		return fmt.Errorf("start monitor: %w", err)
	}
	// The agent needs sockets, so it is there before they are forbidden.
	if err := monitorPolicy(o.PerfEvents).install(); err != nil {
		m.killAll()
		return fmt.Errorf("start monitor: %w", err)
	}
	image, err := findImage()
	if err != nil {
		m.killAll()
		return fmt.Errorf("start monitor: %w", err)
	}
	image.releaseSoon()
	return m.serve()
}

func newMonitor(o Options) (*monitor, error) {
	judge, err := newJudge(o)
	if err != nil {
		return nil, err
	}
	m := &monitor{
		judge:       judge,
		ringBytes:   o.RingBytes,
		perfEvents:  o.PerfEvents,
		checked:     make(chan struct{}),
		children:    make(map[uint64]*child),
		inspections: make(map[uint64]*subject),
		holds:       make(map[uint64]*hold),
		inspecting:  make(slots, maxInspections),
		holding:     make(slots, maxHolders),
		symbolising: make(slots, maxSymbolising),
	}
	if m.self, err = fileIDOf(selfExecutable); err != nil {
		return nil, err
	}
	if m.bare, err = newSpawner(0); err != nil {
		return nil, err
	}
	if m.bpf, err = newSpawner(loaderCapabilities | more(o.PerfEvents)); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *monitor) startAgent(o Options) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	m.conn = newConn(ours, "agent")
	m.conn.values = maxRequestValues
	m.agent, err = m.bare.start(start{name: agentName, role: roleAgent, args: o.AgentArgs, files: []int{theirs}, env: os.Environ()})
	if err != nil {
		return err
	}
	return m.conn.send(hello{StateDir: o.StateDir, ReadOnly: o.ReadOnly, OldKernel: o.PerfEvents})
}

// serve answers the agent until it is gone, then kills what is left.
func (m *monitor) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	defer context.AfterFunc(ctx, m.terminate)()
	patrol := time.NewTicker(patrolInterval)
	defer patrol.Stop()
	go func() {
		for range patrol.C {
			m.patrol()
			m.govern()
		}
	}()
	go m.watchForks()
	status := make(chan string, 1)
	go func() {
		s, err := m.agent.wait()
		if err != nil {
			s = err.Error()
		}
		m.killAll()
		status <- s
	}()
	err := m.listen()
	m.killAll() // also the agent: what speaks no sense, or has closed its end, is gone or will be
	s := <-status
	m.reaping.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("listen to agent: %w", err)
	case s != "exit status 0":
		return fmt.Errorf("agent: %s", s)
	}
	return nil
}

// terminate passes a request to end on to the agent, which detaches and ends, or is killed.
func (m *monitor) terminate() {
	_ = m.agent.signal(unix.SIGTERM)
	time.AfterFunc(termination, func() { _ = m.agent.signal(unix.SIGKILL) })
}

// listen reads the agent's requests. A malformed one ends the agent: it is not what we started.
func (m *monitor) listen() error {
	answering := make(slots, maxRequests)
	for {
		var r request
		if _, err := m.conn.receive(&r); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		answering <- struct{}{}
		go func() {
			defer answering.free()
			m.answer(r)
		}()
	}
}

// answer carries out one request and replies. It gives the child's socket away with the reply.
func (m *monitor) answer(r request) {
	var out reply
	socket := -1
	var err error
	switch {
	case r.Inspect != nil:
		out.Inspection, socket, err = m.inspect(*r.Inspect)
	case r.Compare != nil:
		err = m.compare(*r.Compare)
	case r.Hold != nil:
		out.Held, socket, err = m.hold(*r.Hold)
	case r.Symbols != 0:
		socket, err = m.symbols(r.Symbols)
	case r.Check:
		<-m.checked
		out.Checked = m.report
	default:
		err = problem.New(problem.InvalidArgument, "a request that asks for nothing")
	}
	out.ID, out.Problem = r.ID, problem.Of(err)
	var fds []int
	if socket >= 0 {
		defer unix.Close(socket)
		fds = []int{socket}
	}
	if err := m.conn.send(out, fds...); err != nil {
		_ = m.agent.signal(unix.SIGKILL) // it does not listen any more
	}
}

// A slots bounds how many there may be of something.
type slots chan struct{}

// take says whether there was a slot left. Who took one frees it.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) free() { <-s }

// A childSpec is what the monitor starts for the agent.
type childSpec struct {
	start
	by *spawner
	// registered is called with the lock held before exited can be, exited when the child has been waited for.
	registered func(id uint64, c *child)
	exited     func(id uint64, status string)
}

// spawn starts a child with one end of a new socket pair as its first descriptor, and returns the other end.
func (m *monitor) spawn(s childSpec) (id uint64, socket int, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(theirs)
	s.files = append([]int{theirs}, s.files...)
	c, err := s.by.start(s.start)
	if err != nil {
		unix.Close(ours)
		return 0, -1, err
	}
	m.mu.Lock()
	m.lastID++
	id = m.lastID
	m.children[id] = c
	s.registered(id, c)
	ended := m.ended
	m.reaping.Add(1)
	m.mu.Unlock()
	if ended {
		_ = c.signal(unix.SIGKILL) // the agent went while this one came
	}
	go func() {
		defer m.reaping.Done()
		status, err := c.wait()
		if err != nil {
			status = err.Error()
		}
		m.mu.Lock()
		delete(m.children, id)
		m.mu.Unlock()
		s.exited(id, status)
	}()
	return id, ours, nil
}

// killAll ends all children, now and from now on.
func (m *monitor) killAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, c := range m.children {
		_ = c.signal(unix.SIGKILL)
	}
	_ = m.agent.signal(unix.SIGKILL)
}

// tell says something to the agent that it has not asked.
func (m *monitor) tell(e ended) {
	_ = m.conn.send(reply{Ended: &e}) // an agent that is gone needs no news
}

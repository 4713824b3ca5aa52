// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// parentEnvironment makes this test binary a process that starts a monitor and waits: what `keyhole dev` is to it.
const parentEnvironment = "PRIVSEP_TEST_PARENT"

// TestMain is also every process that the tests start: the roles, the monitor's parent, and what is filtered.
func TestMain(m *testing.M) {
	Main(Roles{Agent: agentMain})
	if options := os.Getenv(parentEnvironment); options != "" {
		parentMain(options)
	}
	if name := os.Getenv(filteredEnvironment); name != "" {
		filteredMain(name)
	}
	if path := os.Getenv(truncatedEnvironment); path != "" {
		truncateMain(path)
	}
	testkit.MainAlone(m)
}

func parentMain(options string) {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		fatal(err)
	}
	m, err := StartMonitor(context.Background(), o)
	if err != nil {
		fatal(err)
	}
	fmt.Println("monitor", m.PID())
	if err := m.Wait(); err != nil {
		fatal(err)
	}
	os.Exit(0)
}

// agentMain is the agent's part of the tests: it does with its Client what the test tells it through a socket.
func agentMain(ctx context.Context, c *Client, args []string) error {
	socket, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Agent", &remoteAgent{client: c, holders: make(map[string]*remoteHolder)}); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	server.ServeConn(socket)
	return nil
}

type remoteAgent struct {
	client  *Client
	looking *Inspection
	symbols *Symbols

	mu      sync.Mutex
	holders map[string]*remoteHolder
}

type remoteHolder struct {
	*Holder
	events []event.Event // complete when taken is closed
	taken  chan struct{}
}

type HoldArgs struct {
	Session  string
	Spec     probe.Spec
	Envelope []byte
	// Twist, if set, falsifies what is sent: see twist.
	Twist string
	// Idle leaves the events unread until Take.
	Idle bool
	// Rules are those of the grant, as JSON; none: the shipped ones.
	Rules []byte
}

type HoldReply struct {
	PID      int
	Attached Attached
	Identity target.Identity
}

// Hold does what an agent does for a grant.
func (a *remoteAgent) Hold(args HoldArgs, reply *HoldReply) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	spec := args.Spec.WithDefaults()
	i, err := a.client.Inspect(ctx, spec.Target)
	if err != nil {
		return err
	}
	defer i.Close()
	t, err := i.Resolve(ctx, spec)
	if err != nil {
		return err
	}
	if err := i.Compare(ctx, spec, t); err != nil {
		return err
	}
	twist(t, args.Twist)
	rules := redact.Shipped()
	if args.Rules != nil {
		if err := json.Unmarshal(args.Rules, rules); err != nil {
			return err
		}
	}
	p, err := plan.Compile(&spec, t, rules)
	if err != nil {
		return err
	}
	digest := p.Digest()
	if args.Twist == "digest" {
		digest = "sha256:" + strings.Repeat("0", 64)
	}
	h, err := a.client.Hold(ctx, HoldRequest{Envelope: args.Envelope, Inspection: i, Target: t, PlanDigest: digest})
	if err != nil {
		return err
	}
	select { // what is called from here on is captured
	case <-h.Admitted():
	case <-h.done:
	}
	r := &remoteHolder{Holder: h, taken: make(chan struct{})}
	a.mu.Lock()
	a.holders[args.Session] = r
	a.mu.Unlock()
	if !args.Idle {
		go r.take()
	}
	*reply = HoldReply{PID: h.PID(), Attached: h.Attached(), Identity: t.Identity}
	return nil
}

// take reads the events to their end.
func (r *remoteHolder) take() {
	defer close(r.taken)
	for batch := range r.Events() {
		r.events = append(r.events, batch...)
	}
}

// Take begins to read the events of an idle session.
func (a *remoteAgent) Take(session string, _ *struct{}) error {
	h, err := a.holder(session)
	if err == nil {
		go h.take()
	}
	return err
}

func (a *remoteAgent) holder(session string) (*remoteHolder, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.holders[session]
	if !ok {
		return nil, errors.New("no session " + session)
	}
	return h, nil
}

// Stop asks a holder to end.
func (a *remoteAgent) Stop(session string, _ *struct{}) error {
	h, err := a.holder(session)
	if err == nil {
		h.Stop(event.EndStopped)
	}
	return err
}

// Forked returns what is known of the children of a session's target.
func (a *remoteAgent) Forked(session string, reply *Forked) error {
	h, err := a.holder(session)
	if err == nil {
		*reply = h.Forked()
	}
	return err
}

type WaitReply struct {
	Final  Final
	Events []event.Event
	Err    string
}

// Wait waits for a session's end.
func (a *remoteAgent) Wait(session string, reply *WaitReply) error {
	h, err := a.holder(session)
	if err != nil {
		return err
	}
	<-h.taken
	reply.Final, err = h.Wait()
	if err != nil {
		reply.Err = err.Error()
	}
	reply.Events = h.events
	return nil
}

// Inspect looks a process up and lets go of it.
func (a *remoteAgent) Inspect(s probe.Selector, reply *target.Identity) error {
	i, err := a.client.Inspect(context.Background(), s)
	if err != nil {
		return err
	}
	*reply = i.Identity()
	return i.Close()
}

// Look begins an inspection that goes on; the others use it until it ends.
func (a *remoteAgent) Look(s probe.Selector, _ *struct{}) error {
	i, err := a.client.Inspect(context.Background(), s)
	a.looking = i
	return err
}

// Functions lists functions of what Look has opened.
func (a *remoteAgent) Functions(pattern string, count *int) error {
	l, err := a.looking.Functions(context.Background(), pattern, 100)
	if err == nil {
		*count = len(l.Functions)
	}
	return err
}

// CompareArgs are what a stolen agent asks the monitor to compare.
type CompareArgs struct {
	Spec   probe.Spec
	Target target.Target
}

// CompareLooked compares the sites of a Target with what Look has opened.
func (a *remoteAgent) CompareLooked(args CompareArgs, _ *struct{}) error {
	return a.looking.Compare(context.Background(), args.Spec, &args.Target)
}

// ResolveLooked asks the inspector of what Look has opened.
func (a *remoteAgent) ResolveLooked(spec probe.Spec, reply *target.Target) error {
	t, err := a.looking.Resolve(context.Background(), spec)
	if err == nil {
		*reply = *t
	}
	return err
}

// CloseLooked ends what Look began.
func (a *remoteAgent) CloseLooked(struct{}, *struct{}) error { return a.looking.Close() }

// Check returns the node's self-test.
func (a *remoteAgent) Check(_ struct{}, reply *doctor.Report) error {
	r, err := a.client.Check(context.Background())
	if err == nil {
		*reply = *r
	}
	return err
}

// Try does what a confined agent must not be able to do, and says how that went.
func (a *remoteAgent) Try(paths []string, reply *[]string) error {
	for _, path := range paths {
		_, err := os.ReadFile(path)
		if err == nil {
			err = errors.New("ok")
		}
		*reply = append(*reply, err.Error())
	}
	return nil
}

// Babble sends the monitor what is no request.
func (a *remoteAgent) Babble(frame []byte, _ *struct{}) error {
	_, err := a.client.conn.file.Write(frame)
	return err
}

// Signal sends a signal, as a stolen agent would.
func (a *remoteAgent) Signal(pid int, _ *struct{}) error { return syscall.Kill(pid, syscall.SIGKILL) }

// A stage is a monitor with everything that it started, driven by a test.
type stage struct {
	t         testing.TB
	dir       string
	authority *authority
	monitor   int
	agent     *rpc.Client
	ceiling   string // of the node, without its version
	sessions  int
	stop      func()
	ended     func() error
}

// newStage starts a monitor as a child of this process.
func newStage(t testing.TB) *stage {
	t.Helper()
	return prepareStage(t).begin()
}

// begin starts the monitor of a stage that is prepared.
func (s *stage) begin() *stage {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var m *MonitorProcess
	s.connect(func(o Options) {
		var err error
		if m, err = StartMonitor(ctx, o); err != nil {
			t.Fatal(err)
		}
		s.monitor = m.PID()
	})
	s.stop, s.ended = cancel, m.Wait
	t.Cleanup(func() {
		cancel()
		_ = m.Wait() // how it ended is for the test to judge
		s.agent.Close()
	})
	return s
}

// newStageOfParent starts a monitor as a child of another process, which is returned.
func newStageOfParent(t testing.TB) (*stage, *testkit.Program) {
	t.Helper()
	s := prepareStage(t)
	var parent *testkit.Program
	s.connect(func(o Options) {
		options, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), parentEnvironment+"="+string(options))
		parent = testkit.StartCommand(t, cmd)
		if s.monitor, err = strconv.Atoi(parent.Expect("monitor", 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.agent.Close() })
	return s, parent
}

func prepareStage(t testing.TB) *stage {
	t.Helper()
	testkit.RequireRoot(t)
	testkit.Need(t, append(testkit.Processes, testkit.LandlockRefer)...)
	others := testkit.KernelObjects(t)
	t.Cleanup(func() { testkit.RequireNoKernelObjects(t, 2*time.Second, others...) })
	dir := t.TempDir()
	return &stage{t: t, dir: dir, authority: newAuthority(t, dir), ceiling: "max: {budget: 10000%, node_budget: 10000%}"}
}

// connect starts a monitor and waits for its agent to call.
func (s *stage) connect(start func(Options)) {
	s.t.Helper()
	state := filepath.Join(s.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	ceiling := filepath.Join(s.dir, "ceiling.yaml")
	if err := os.WriteFile(ceiling, []byte("version: 1\n"+s.ceiling+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	start(Options{
		Ceiling:   ceiling,
		AgentArgs: []string{l.Addr().String()}, StateDir: state, Node: testNode,
		GrantKeys: s.authority.grantKeys, LogKey: s.authority.logKey, RingBytes: 1 << 20, PerfEvents: !loader.HasUprobeMulti(),
	})
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		s.t.Fatalf("the agent does not call: %v", err)
	}
	s.agent = rpc.NewClient(conn)
}

// call calls the agent and fails the test on an error.
func (s *stage) call(method string, args, reply any) {
	s.t.Helper()
	if err := s.agent.Call("Agent."+method, args, reply); err != nil {
		s.t.Fatalf("%s: %v", method, err)
	}
}

// newSession names a session.
func (s *stage) newSession() string {
	s.sessions++
	return fmt.Sprintf("s-%d", s.sessions)
}

// hold attaches a probe and returns its session.
func (s *stage) hold(spec probe.Spec) (session string, reply HoldReply) {
	s.t.Helper()
	session = s.newSession()
	s.call("Hold", HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec)}, &reply)
	return session, reply
}

// wait waits for a session's end.
func (s *stage) wait(session string) WaitReply {
	s.t.Helper()
	var r WaitReply
	s.call("Wait", session, &r)
	return r
}

// specOf asks for the vault's Open.
func specOf(pid int, ttl time.Duration) probe.Spec {
	return probe.Spec{
		Target:   probe.Selector{Kind: probe.SelectPID, PID: pid},
		Function: "main.Open",
		Limits:   probe.Limits{TTL: ttl, Rate: probe.MaxRate, Budget: probe.MaxBudget},
		Reason:   "test of the processes",
	}
}

// processes lists the descendants of a process, itself included.
func processes(t testing.TB, root int) []int {
	t.Helper()
	found := []int{root}
	for i := 0; i < len(found); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", found[i]))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				continue // the thread ended
			}
			for _, f := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(f)
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, pid)
			}
		}
	}
	return found
}

// processNamed finds the one descendant with a name.
func processNamed(t testing.TB, root int, name string) int {
	t.Helper()
	for _, pid := range processes(t, root) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(b)) == name {
			return pid
		}
	}
	t.Fatalf("no process %s below %d", name, root)
	return 0
}

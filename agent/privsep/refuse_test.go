// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// refused holds and wants an error that says why not, with nothing attached.
func (s *stage) refused(v *vault, args HoldArgs, want string) {
	s.t.Helper()
	var reply HoldReply
	err := s.agent.Call("Agent.Hold", args, &reply)
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("%v; want an error with %q", err, want)
	}
	v.requireRestored(time.Now().Add(time.Second))
}

// TestGrantIsJudgedByTheMonitor has an agent that was taken over ask for what was not granted.
func TestGrantIsJudgedByTheMonitor(t *testing.T) {
	s, v, other := newStage(t), startVault(t), startVault(t)
	spec := specOf(v.PID(), time.Minute)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	altered := func(change func(*grant.Grant)) []byte {
		g := s.authority.build("s-refused", spec)
		change(&g)
		return s.authority.sign(g, s.authority.key)
	}
	long := specOf(v.PID(), 30*time.Minute)
	for _, c := range []struct {
		name     string
		spec     probe.Spec
		envelope []byte
		want     string
	}{
		{"no grant", spec, nil, "grant: "},
		{"signed by another", spec, s.authority.sign(s.authority.build("s-refused", spec), stranger), "not signed by a control plane"},
		{"for another node", spec, altered(func(g *grant.Grant) { g.Node = "node-2" }), "it is for node node-2"},
		{"not on record", spec, altered(func(g *grant.Grant) { g.Intent = grant.Intent{} }), "not proved to be on record"},
		{"on record for another session", spec, altered(func(g *grant.Grant) { g.SessionID = "s-other" }), "about session"},
		{"for another process", specOf(other.PID(), time.Minute), s.authority.grant("s-refused", spec), "it is not for process"},
		{"over the node's ceiling", long, s.authority.grant("s-refused", long), "15m"},
	} {
		t.Run(c.name, func(*testing.T) {
			s.refused(v, HoldArgs{Session: "s-refused", Spec: c.spec, Envelope: c.envelope}, c.want)
		})
	}
	t.Run("used before", func(*testing.T) {
		envelope := s.authority.grant("s-once", spec)
		s.call("Hold", HoldArgs{Session: "s-once", Spec: spec, Envelope: envelope}, new(HoldReply))
		s.call("Stop", "s-once", new(struct{}))
		s.wait("s-once")
		s.refused(v, HoldArgs{Session: "s-once", Spec: spec, Envelope: envelope}, "was carried out on this node before")
	})
}

// TestMonitorTellsNoMemory has an agent that was taken over ask the monitor to compare memory that is no code: whatever it thinks is there, the answer is the same.
func TestMonitorTellsNoMemory(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), time.Minute).WithDefaults()
	s.call("Look", spec.Target, new(struct{}))
	defer s.call("CloseLooked", struct{}{}, new(struct{}))
	var found target.Target
	s.call("ResolveLooked", spec, &found)
	s.call("CompareLooked", CompareArgs{spec, found}, new(struct{}))

	var stack testkit.Mapping
	for _, m := range testkit.Mappings(t, v.PID()) {
		if m.Path == "[stack]" {
			stack = m
		}
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", v.PID()))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	secret := make([]byte, 8)
	if _, err := memory.ReadAt(secret, int64(stack.End-64)); err != nil {
		t.Fatal(err)
	}
	answers := make(map[string]bool)
	for _, guess := range [][]byte{secret, {1, 2, 3, 4, 5, 6, 7, 8}, secret[:1], {secret[0] ^ 1}} {
		args := CompareArgs{spec, found}
		args.Target.Sites = []target.Site{found.Sites[0]}
		args.Target.Sites[0].RuntimeAddress, args.Target.Sites[0].Bytes = stack.End-64, guess
		err := s.agent.Call("Agent.CompareLooked", args, new(struct{}))
		if err == nil {
			t.Fatalf("the monitor compares % x with the stack", guess)
		}
		answers[err.Error()] = true
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
}

// TestCodeOfTheExecutable: what the monitor takes for code, even of a Target that an inspector has vouched for.
func TestCodeOfTheExecutable(t *testing.T) {
	v := startVault(t)
	s, err := openSubject(v.PID(), fileID{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	code, err := s.code()
	if err != nil || len(code) == 0 {
		t.Fatalf("%d parts of code, %v", len(code), err)
	}
	m := code[0]
	const within = 64
	good := target.Site{RuntimeAddress: m.Start + within, FileOffset: m.Offset + within, Bytes: make([]byte, 4)}
	if _, err := s.exe.ReadAt(good.Bytes, int64(good.FileOffset)); err != nil {
		t.Fatal(err)
	}
	if err := s.isCode(code, good); err != nil {
		t.Errorf("code: %v", err)
	}
	for name, change := range map[string]func(*target.Site){
		"another offset":        func(s *target.Site) { s.FileOffset++ },
		"another address":       func(s *target.Site) { s.RuntimeAddress++ },
		"other bytes":           func(s *target.Site) { s.Bytes = []byte{1, 2, 3, 4} },
		"beyond the mapping":    func(s *target.Site) { s.RuntimeAddress, s.FileOffset = m.End-1, m.Offset+(m.End-1-m.Start) },
		"no bytes":              func(s *target.Site) { s.Bytes = nil },
		"too many bytes":        func(s *target.Site) { s.Bytes = make([]byte, maxSiteBytes+1) },
		"an offset that wraps":  func(s *target.Site) { s.FileOffset = m.Offset - 1; s.RuntimeAddress = m.Start - 1 },
		"an address from space": func(s *target.Site) { s.RuntimeAddress = ^uint64(0) - 2; s.FileOffset = ^uint64(0) - 2 },
	} {
		site := good
		change(&site)
		if s.isCode(code, site) == nil {
			t.Errorf("%s is taken for code", name)
		}
	}
}

// TestStuckMemory: a target whose memory does not come keeps nobody waiting for longer than a moment, and once it comes it is looked at again.
func TestStuckMemory(t *testing.T) {
	never, answer, err := os.Pipe() // a read of it waits, as one of a page whose file server does not answer does
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	if err := unix.SetNonblock(int(never.Fd()), false); err != nil {
		t.Fatal(err)
	}
	var waits atomic.Bool
	waits.Store(true)
	s := &subject{memory: memoryFunc(func(b []byte, _ int64) (int, error) {
		if waits.Load() {
			return never.Read(b)
		}
		return len(b), nil
	})}
	s.users.Store(1)
	for _, most := range []time.Duration{2 * lookTime, lookTime / 2} {
		began := time.Now()
		if _, err := s.read(1, 1); !errors.Is(err, errStuck) {
			t.Errorf("reading it: %v; want that it is stuck", err)
		}
		if took := time.Since(began); took > most {
			t.Errorf("it took %v; want at most %v", took, most)
		}
	}
	waits.Store(false)
	if _, err := answer.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	for giveUp := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := s.read(1, 1); err == nil {
			break
		}
		if time.Now().After(giveUp) {
			t.Fatal("it came back, and is not looked at again")
		}
	}
}

// A memoryFunc is a target's memory.
type memoryFunc func(b []byte, at int64) (int, error)

func (f memoryFunc) ReadAt(b []byte, at int64) (int, error) { return f(b, at) }

// Close implements memory.
func (memoryFunc) Close() error { return nil }

// poke writes a byte into a process's text, as a debugger does.
func poke(t *testing.T, pid int, address uint64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, int64(address)); err != nil {
		t.Fatal(err)
	}
}

func TestForeignBreakpoint(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, h := s.hold(specOf(v.PID(), time.Minute)) // to learn where the site is
	s.call("Stop", session, new(struct{}))
	s.wait(session)
	site := h.Attached.Sites[0]
	v.requireRestored(time.Now().Add(time.Second))
	for _, c := range []struct {
		name   string
		offset int
		b      []byte
		want   string
	}{
		{"breakpoint", 0, breakpoint, "another tool has a breakpoint there"},
		{"changed code", len(site.Bytes) - 1, []byte{site.Bytes[len(site.Bytes)-1] ^ 1}, "something has changed the code"},
	} {
		t.Run(c.name, func(t *testing.T) {
			poke(t, v.PID(), site.RuntimeAddress+uint64(c.offset), c.b...)
			spec, session := specOf(v.PID(), time.Minute), s.newSession()
			err := s.agent.Call("Agent.Hold", HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec)}, new(HoldReply))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want an error with %q", err, c.want)
			}
			testkit.RequireNoKernelObjects(t, time.Second, v.others...)
			poke(t, v.PID(), site.RuntimeAddress, site.Bytes...)
		})
	}
}

// TestTargetEnds ends the session when its target ends.
func TestTargetEnds(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, _ := s.hold(specOf(v.PID(), time.Minute))
	v.call(3)
	v.Signal(unix.SIGKILL)
	began := time.Now()
	r := s.wait(session)
	if r.Final.EndedBy != event.EndTargetGone || !r.Final.Counts.Final || r.Final.Counts.Hits != 3 || !r.Final.TextRestored || len(r.Events) != 3 {
		t.Errorf("ended with %+v, %d events", r.Final, len(r.Events))
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	testkit.RequireNoKernelObjects(t, time.Second, v.others...)
}

// TestTargetIsReplaced ends the session when its target executes another program, even the same one again.
func TestTargetIsReplaced(t *testing.T) {
	s := newStage(t)
	for _, by := range []string{"", "/bin/cat"} {
		v := startVault(t)
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", v.PID()))
		if err != nil {
			t.Fatal(err)
		}
		if by == "" {
			by = path
		}
		session, _ := s.hold(specOf(v.PID(), time.Minute))
		v.Send("become " + by)
		r := s.wait(session)
		if r.Final.EndedBy != event.EndTargetReplaced || !r.Final.Counts.Final || !r.Final.TextRestored {
			t.Errorf("%s: ended with %+v", by, r.Final)
		}
		testkit.RequireNoKernelObjects(t, time.Second, v.others...)
		if by == path {
			v.Expect("ready", 5*time.Second)
			v.requireRestored(time.Now().Add(time.Second)) // it is not built position-independent: the same text at the same place
		}
	}
}

func TestMaxHits(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), time.Minute)
	spec.Limits.MaxHits = 7
	session, _ := s.hold(spec)
	v.call(100)
	r := s.wait(session)
	c := r.Final.Counts
	// It may end while the target still calls.
	if r.Final.EndedBy != event.EndMaxHits || !c.Final || c.Emitted != 7 || c.OverLimit > 93 || c.Hits != 7+c.OverLimit || len(r.Events) != 7 {
		t.Errorf("ended with %+v, %d events", r.Final, len(r.Events))
	}
	v.requireRestored(time.Now().Add(time.Second))
}

// TestTooMany refuses what would be more than a node takes, and takes again when there is room.
func TestTooMany(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), time.Minute)
	var sessions []string
	var holding sync.WaitGroup
	starting := make(slots, 8)
	for range maxHolders {
		session := s.newSession()
		sessions = append(sessions, session)
		args := HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec)}
		starting <- struct{}{}
		holding.Go(func() {
			defer starting.free()
			if err := s.agent.Call("Agent.Hold", args, new(HoldReply)); err != nil {
				t.Errorf("%s: %v", session, err)
			}
		})
	}
	holding.Wait()
	session := s.newSession()
	args := HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec)}
	err := s.agent.Call("Agent.Hold", args, new(HoldReply))
	if err == nil || !strings.Contains(err.Error(), "64 sessions are attached") {
		t.Errorf("session %d: %v", maxHolders+1, err)
	}
	v.call(1)
	for _, session := range sessions {
		s.call("Stop", session, new(struct{}))
	}
	for _, session := range sessions {
		if r := s.wait(session); r.Final.Counts.Hits != 1 {
			t.Errorf("%s ended with %+v", session, r.Final)
		}
	}
	s.call("Hold", args, new(HoldReply))
	s.call("Stop", session, new(struct{}))
	s.wait(session)
	v.requireRestored(time.Now().Add(time.Second))
}

// TestTerminate ends the whole stage as `systemctl stop` does.
func TestTerminate(t *testing.T) {
	s, v := newStage(t), startVault(t)
	s.hold(specOf(v.PID(), time.Minute))
	s.stop()
	if err := s.ended(); err != nil {
		t.Errorf("the monitor ended with %v", err)
	}
	v.requireRestored(time.Now().Add(time.Second))
}

// TestBabblingAgent ends everything when the agent says what no agent of ours says.
func TestBabblingAgent(t *testing.T) {
	for name, babble := range map[string]string{
		"too long":      "\xff\xff\xff\xff",
		"no JSON":       "\x00\x00\x00\x04AAAA",
		"unknown field": "\x00\x00\x00\x0d{\"sudo\":true}",
	} {
		t.Run(name, func(t *testing.T) {
			s, v := newStage(t), startVault(t)
			s.hold(specOf(v.PID(), time.Minute))
			_ = s.agent.Call("Agent.Babble", []byte(babble), new(struct{})) // it may be dead before it answers
			if err := s.ended(); err == nil {
				t.Error("the monitor ended as if nothing were wrong")
			}
			v.requireRestored(time.Now().Add(time.Second))
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// A vault is a target at rest, with its text as it was before any probe.
type vault struct {
	*testkit.Program
	t      *testing.T
	text   testkit.Text
	others []string // what the kernel held then
}

func startVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{Program: testkit.Start(t, testkit.BuildGo(t, "test/targets/vault")), t: t, others: testkit.KernelObjects(t)}
	v.Expect("ready", 10*time.Second)
	v.Send("secret hunter2")
	v.Expect("ok", 10*time.Second)
	v.text = testkit.ReadText(t, v.PID())
	return v
}

// call makes n calls of the probed function.
func (v *vault) call(n int) {
	v.t.Helper()
	v.Send(fmt.Sprintf("call %d", n))
	v.Expect("called", 30*time.Second)
}

// requireProbed fails unless the text shows exactly the breakpoints at the sites.
func (v *vault) requireProbed(a Attached) {
	v.t.Helper()
	differences := v.text.Differences(testkit.ReadText(v.t, v.PID()))
	if len(differences) != len(a.Sites) || !strings.Contains(differences[0], fmt.Sprintf("%#x: ", a.Sites[0].RuntimeAddress)) || !strings.Contains(differences[0], fmt.Sprintf(" %x after", testkit.Breakpoint)) {
		v.t.Fatalf("the text differs by %q; want a breakpoint at %#x", differences, a.Sites[0].RuntimeAddress)
	}
}

// requireText fails unless the text is what it was, by a time.
func (v *vault) requireText(by time.Time) {
	v.t.Helper()
	for {
		differences := v.text.Differences(testkit.ReadText(v.t, v.PID()))
		if len(differences) == 0 {
			return
		}
		if time.Now().After(by) {
			v.t.Fatalf("the text is not restored: %q", differences)
		}
		time.Sleep(time.Millisecond)
	}
}

// requireRestored fails unless the text is what it was, and nothing of ours is in the kernel, by a time.
func (v *vault) requireRestored(by time.Time) {
	v.t.Helper()
	v.requireText(by)
	testkit.RequireNoKernelObjects(v.t, time.Until(by), v.others...)
}

func TestHold(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, h := s.hold(specOf(v.PID(), time.Minute))
	v.requireProbed(h.Attached)
	v.call(100)
	if now := loader.BootNow(); h.Attached.DeadlineNs < now || h.Attached.DeadlineNs > now+uint64(time.Minute) {
		t.Errorf("deadline %d, now %d", h.Attached.DeadlineNs, now)
	}
	s.call("Stop", session, new(struct{}))
	r := s.wait(session)
	v.requireRestored(time.Now().Add(time.Second))
	c := r.Final.Counts
	if r.Err != "" || r.Final.EndedBy != event.EndStopped || !r.Final.TextRestored || !c.Final || c.Hits != 100 || c.Emitted != 100 || len(r.Events) != 100 {
		t.Fatalf("ended with %+v, %d events, error %q", r.Final, len(r.Events), r.Err)
	}
	e := r.Events[0]
	if e.SessionID != session || e.Node != testNode || e.Process.PID != v.PID() || e.Function != "main.Open" || time.Since(e.Time).Abs() > time.Minute {
		t.Errorf("event %+v", e)
	}
}

// TestReaderHasNoPrivilege looks at every task of the holder, and at what it has open. It is run with the race detector too,
// where the process has threads of C's.
func TestReaderHasNoPrivilege(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, h := s.hold(specOf(v.PID(), time.Minute))
	v.call(10)
	requireUnprivileged(t, h.PID, map[string]string{"Seccomp": "2"})

	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.PID))
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, l := range links {
		what, err := os.Readlink(l)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(what, "socket:") {
			what = "socket" // without its number
		}
		open = append(open, what)
	}
	slices.Sort(open)
	allowed := []string{"/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:bpf-map", "anon_inode:bpf_link", "socket"}
	stderr, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range open {
		cgroup := strings.HasPrefix(what, "/sys/fs/cgroup/") // Go's runtime watches its share of the processors
		if !slices.Contains(allowed, what) && what != stderr && !cgroup {
			t.Errorf("the holder has %s open", what)
		}
	}
	maps := slices.DeleteFunc(slices.Clone(open), func(s string) bool { return s != "anon_inode:bpf-map" })
	if len(maps) != 3 {
		t.Errorf("the holder has %d maps open; want ring, counts and control", len(maps))
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.PID)); err != nil || strings.TrimSpace(string(name)) != holderName {
		t.Errorf("the holder's name is %q, %v", name, err)
	}
	s.call("Stop", session, new(struct{}))
	s.wait(session)
}

// TestKill kills one process with no chance to clean up.
func TestKill(t *testing.T) {
	for _, who := range []string{"holder", "monitor", "agent", "parent"} {
		t.Run(who, func(t *testing.T) {
			s, parent := newStageOfParent(t)
			v := startVault(t)
			session, h := s.hold(specOf(v.PID(), time.Minute))
			v.requireProbed(h.Attached)
			v.call(10)
			family := processes(t, s.monitor)
			victim := map[string]int{
				"holder": h.PID, "monitor": s.monitor, "agent": processNamed(t, s.monitor, agentName), "parent": parent.PID(),
			}[who]
			killed := time.Now()
			if err := unix.Kill(victim, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			v.requireRestored(killed.Add(time.Second))
			t.Logf("restored after %v", time.Since(killed))
			if who == "holder" {
				r := s.wait(session)
				if r.Final.EndedBy != event.EndHolderLost || r.Final.Counts.Final || !r.Final.TextRestored {
					t.Errorf("ended with %+v", r.Final)
				}
				return
			}
			for _, pid := range family {
				requireGone(t, pid, killed.Add(time.Second))
			}
		})
	}
}

func requireGone(t *testing.T, pid int, by time.Time) {
	t.Helper()
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(by) {
			t.Fatalf("process %d lives: %s", pid, b)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestDeadline(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, h := s.hold(specOf(v.PID(), testkit.Slow(time.Second)))
	stop := make(chan struct{})
	var calling sync.WaitGroup
	calling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				v.call(5)
			}
		}
	})
	time.Sleep(time.Duration(h.Attached.DeadlineNs - loader.BootNow()))
	v.requireText(time.Now().Add(500 * time.Millisecond))
	close(stop)
	calling.Wait()
	r := s.wait(session)
	v.requireRestored(time.Now().Add(time.Second))
	c := r.Final.Counts
	if r.Final.EndedBy != event.EndDeadline || !c.Final || !r.Final.TextRestored || c.Hits != c.Emitted+c.Throttled+c.Lost || int(c.Emitted) != len(r.Events) {
		t.Errorf("ended with %+v, %d events", r.Final, len(r.Events))
	}
	requireNoneLater(t, r.Events, h.Attached.DeadlineNs)
}

func requireNoneLater(t *testing.T, events []event.Event, deadlineNs uint64) {
	t.Helper()
	if len(events) == 0 {
		t.Error("no events")
	}
	for _, e := range events {
		if e.BootNs >= deadlineNs {
			t.Errorf("an event %v after the deadline", time.Duration(e.BootNs-deadlineNs))
		}
	}
}

// TestStoppedAcrossDeadline stops agent and holder, so that neither can end the session; the program takes nothing
// after the deadline, and the monitor kills the holder.
func TestStoppedAcrossDeadline(t *testing.T) {
	s, v := newStage(t), startVault(t)
	session, h := s.hold(specOf(v.PID(), 2*time.Second))
	v.call(10)
	agent := processNamed(t, s.monitor, agentName)
	for _, pid := range []int{agent, h.PID} {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for loader.BootNow() < h.Attached.DeadlineNs+uint64(500*time.Millisecond) {
		v.call(10)
	}
	v.requireRestored(time.Now().Add(1500 * time.Millisecond))
	t.Logf("restored %v after the deadline", time.Duration(loader.BootNow()-h.Attached.DeadlineNs))
	if err := unix.Kill(agent, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r := s.wait(session)
	if r.Final.EndedBy != event.EndDeadline || r.Final.Counts.Final || !r.Final.TextRestored {
		t.Errorf("ended with %+v", r.Final)
	}
	for _, e := range r.Events {
		if e.BootNs >= h.Attached.DeadlineNs {
			t.Errorf("an event %v after the deadline", time.Duration(e.BootNs-h.Attached.DeadlineNs))
		}
	}
}

// TestThreeHolders probes one function by three sessions and ends them in every order.
func TestThreeHolders(t *testing.T) {
	s, v := newStage(t), startVault(t)
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var sessions [3]string
		var reply HoldReply
		for i := range sessions {
			sessions[i], reply = s.hold(specOf(v.PID(), time.Minute))
		}
		v.requireProbed(reply.Attached)
		for n, i := range order {
			v.call(1)
			s.call("Stop", sessions[i], new(struct{}))
			r := s.wait(sessions[i])
			if r.Final.Counts.Hits != uint64(n+1) || !r.Final.Counts.Final || !r.Final.TextRestored {
				t.Errorf("order %v: session %d ended with %+v", order, i, r.Final)
			}
			if n < 2 {
				v.requireProbed(reply.Attached)
			}
		}
		v.requireRestored(time.Now().Add(time.Second))
	}
}

// TestManyHolders starts 200 holders, several at a time, while threads of monitor and agent come and go.
func TestManyHolders(t *testing.T) {
	s, v := newStage(t), startVault(t)
	const holders, at = 200, 8
	slots := make(slots, at)
	var wg sync.WaitGroup
	for range holders {
		slots <- struct{}{}
		session := s.newSession()
		spec := specOf(v.PID(), time.Minute)
		envelope := s.authority.grant(session, spec)
		wg.Go(func() {
			defer slots.free()
			var reply HoldReply
			if err := s.agent.Call("Agent.Hold", HoldArgs{Session: session, Spec: spec, Envelope: envelope}, &reply); err != nil {
				t.Errorf("%s: %v", session, err)
				return
			}
			if err := s.agent.Call("Agent.Stop", session, new(struct{})); err != nil {
				t.Errorf("%s: %v", session, err)
			}
			var r WaitReply
			if err := s.agent.Call("Agent.Wait", session, &r); err != nil || r.Final.EndedBy != event.EndStopped || !r.Final.TextRestored {
				t.Errorf("%s ended with %+v, %v", session, r.Final, err)
			}
		})
	}
	wg.Wait()
	v.requireRestored(time.Now().Add(time.Second))
	left := processes(t, s.monitor)
	if len(left) != 2 {
		t.Errorf("processes %v are left; want monitor and agent", left)
	}
}

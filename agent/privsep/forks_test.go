// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func startForks(t testing.TB) *testkit.Program {
	t.Helper()
	p := testkit.Start(t, testkit.BuildC(t, "forks", []string{"test/targets/forks/forks.c"}, "-O2", "-g"))
	p.Expect("ready", 10*time.Second)
	return p
}

// fork has the target make children and returns their numbers.
func fork(t testing.TB, p *testkit.Program, n int, order string) []int {
	t.Helper()
	p.Send(order)
	var pids []int
	for range n {
		pid, err := strconv.Atoi(p.Expect("child", 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func specOfWork(pid int) probe.Spec {
	s := specOf(pid, time.Minute)
	s.Function = "forks_work"
	return s
}

// awaitForked waits until the agent knows of such children.
func (s *stage) awaitForked(session string, ok func(Forked) bool) {
	s.t.Helper()
	for giveUp := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var f Forked
		s.call("Forked", session, &f)
		if ok(f) {
			return
		}
		if time.Now().After(giveUp) {
			s.t.Fatalf("the agent knows of the children %+v", f)
		}
	}
}

// TestForkedChildren has a target fork before and while it is probed.
func TestForkedChildren(t *testing.T) {
	s, p := newStage(t), startForks(t)
	before := testkit.ReadText(t, p.PID())
	early := fork(t, p, 1, "fork 1")
	session, h := s.hold(specOfWork(p.PID()))
	late := fork(t, p, 3, "fork 3")
	exe := h.Identity.Path
	executed := fork(t, p, 1, "exec "+exe)[0]
	p.Expect("ready", 10*time.Second) // said by the program that it executed, itself once more
	if b := byteAt(t, executed, exe, h.Attached.Sites[0]); b != h.Attached.Sites[0].Bytes[0] {
		t.Errorf("a child that executed the very program has %#x at the site", b)
	}
	if d := before.Differences(testkit.ReadText(t, early[0])); len(d) != 0 {
		t.Errorf("a child forked before the attach differs by %q", d)
	}
	for _, pid := range late {
		if d := before.Differences(testkit.ReadText(t, pid)); len(d) != len(h.Attached.Sites) {
			t.Errorf("a child forked under the probe differs by %q", d)
		}
	}
	p.Send("work 100")
	for range 4 {
		p.Expect("worked", 10*time.Second)
	}
	p.Send("call 5")
	p.Expect("called", 10*time.Second)
	s.awaitForked(session, func(f Forked) bool {
		return f.Sum == 3 && fmt.Sprint(f.PIDs) == fmt.Sprint(late)
	})
	s.call("Stop", session, new(struct{}))
	r := s.wait(session)
	if r.Final.Counts.Hits != 5 || len(r.Events) != 5 || !r.Final.TextRestored {
		t.Errorf("%d events, %+v; want the 5 calls of the parent", len(r.Events), r.Final)
	}
	for _, pid := range append(late, early[0], p.PID()) {
		if d := before.Differences(testkit.ReadText(t, pid)); len(d) != 0 {
			t.Errorf("after the detach process %d differs by %q", pid, d)
		}
	}
	p.Send("end")
	p.Expect("ended", 10*time.Second)
}

// TestForksTooMuch lets a target go whose children would pay for its probe.
func TestForksTooMuch(t *testing.T) {
	s, p := newStage(t), startForks(t)
	before := testkit.ReadText(t, p.PID())
	session, _ := s.hold(specOfWork(p.PID()))
	children := fork(t, p, maxForked+1, fmt.Sprintf("fork %d", maxForked+1))
	r := s.wait(session)
	if r.Final.EndedBy != event.EndForks || !r.Final.TextRestored {
		t.Errorf("ended by %+v", r.Final)
	}
	for _, pid := range append(children, p.PID()) {
		if d := before.Differences(testkit.ReadText(t, pid)); len(d) != 0 {
			t.Errorf("process %d differs by %q", pid, d)
		}
	}
}

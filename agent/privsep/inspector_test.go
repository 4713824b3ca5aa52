// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
)

// TestInspector looks at an inspector while it lives, and kills it.
func TestInspector(t *testing.T) {
	s, v := newStage(t), startVault(t)
	s.call("Look", probe.Selector{Kind: probe.SelectPID, PID: v.PID()}, new(struct{}))
	var n int
	s.call("Functions", "main.Open", &n)
	if n != 1 {
		t.Errorf("%d functions match", n)
	}
	pid := processNamed(t, s.monitor, inspectorName)
	requireUnprivileged(t, pid, map[string]string{"Seccomp": "2"})
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Max cpu time 10 10 seconds", "Max data size 268435456 268435456 bytes"}
	if raceDetector {
		want = want[:1]
	}
	flat := strings.Join(strings.Fields(string(limits)), " ")
	for _, w := range want {
		if !strings.Contains(flat, w) {
			t.Errorf("the inspector's limits do not say %q:\n%s", w, limits)
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	requireGone(t, pid, time.Now().Add(time.Second))
	err = s.agent.Call("Agent.Functions", "main.Open", new(int))
	if err == nil || !strings.Contains(err.Error(), "the analysis of this executable took more than") {
		t.Errorf("asking an inspector that is gone: %v", err)
	}
	for { // the monitor may not yet have heard of the death
		err = s.agent.Call("Agent.CompareLooked", CompareArgs{}, new(struct{}))
		if err != nil && strings.Contains(err.Error(), "the inspection has ended") {
			break
		}
	}
	s.call("CloseLooked", struct{}{}, new(struct{}))
}

// TestTooManyInspections refuses one more than there may be, and takes it when another has ended.
func TestTooManyInspections(t *testing.T) {
	s, v := newStage(t), startVault(t)
	selector := probe.Selector{Kind: probe.SelectPID, PID: v.PID()}
	for range maxInspections {
		s.call("Look", selector, new(struct{}))
	}
	err := s.agent.Call("Agent.Look", selector, new(struct{}))
	if err == nil || !strings.Contains(err.Error(), "try again in a moment") {
		t.Errorf("inspection %d: %v", maxInspections+1, err)
	}
	pid := 0
	for _, p := range processes(t, s.monitor)[2:] {
		pid = p
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for giveUp := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = s.agent.Call("Agent.Look", selector, new(struct{})); err == nil {
			return
		}
		if time.Now().After(giveUp) {
			t.Fatal(err)
		}
	}
}

// TestIdleAgent has an agent that does not read what a holder sends: the probe ends in time all the same, and what was
// captured is not lost if the agent comes back.
func TestIdleAgent(t *testing.T) {
	s, v := newStage(t), startVault(t)
	spec := specOf(v.PID(), 2*time.Second)
	session := s.newSession()
	var h HoldReply
	s.call("Hold", HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec), Idle: true}, &h)
	v.call(20_000) // far more than sockets and channels hold
	time.Sleep(2 * time.Second)
	v.requireText(time.Now().Add(time.Second))
	s.call("Take", session, new(struct{}))
	r := s.wait(session)
	c := r.Final.Counts
	if r.Final.EndedBy != event.EndDeadline || !c.Final || !r.Final.TextRestored || c.Hits == 0 || c.Hits != c.Emitted+c.Lost || int(c.Emitted) != len(r.Events) {
		t.Errorf("ended with %+v, %d events", r.Final, len(r.Events))
	}
	requireNoneLater(t, r.Events, h.Attached.DeadlineNs)
	v.requireRestored(time.Now().Add(time.Second))
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestWindows: a session with --duty 20% has its breakpoint in the text for a fifth of the time, sees a fifth of the calls, and leaves
// nothing behind.
func TestWindows(t *testing.T) {
	testkit.RequireRoot(t)
	s := newStage(t)
	p := hot.Start(t)
	before := testkit.ReadText(t, p.PID())
	spec := specOf(p.PID(), time.Minute)
	spec.Function, spec.Limits.Duty = "hot_pair", 20
	session, reply := s.hold(spec)
	site := reply.Attached.Sites[0]
	const seconds = 6
	p.Do(t, "run 1000") // one call a millisecond
	on, looks := 0, 0
	for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		b, err := testkit.ReadMemory(p.PID(), site.RuntimeAddress, 1)
		if err != nil {
			t.Fatal(err)
		}
		if b[0] != site.Bytes[0] {
			on++
		}
		looks++
	}
	calls := p.Do(t, "halt")
	s.call("Stop", session, new(struct{}))
	f := s.wait(session).Final
	if share := float64(on) / float64(looks); share < 0.12 || share > 0.40 {
		t.Errorf("the breakpoint was there %.0f%% of the time", 100*share)
	}
	if share := float64(f.Counts.Hits) / float64(calls); share < 0.10 || share > 0.40 {
		t.Errorf("%d of %d calls were hits", f.Counts.Hits, calls)
	}
	if f.EndedBy != event.EndStopped || !f.Counts.Final || !f.TextRestored || f.Counts.Emitted == 0 {
		t.Errorf("%+v", f)
	}
	if d := before.Differences(testkit.ReadText(t, p.PID())); len(d) > 0 {
		t.Error(d)
	}
}

// TestWindowsLookAgain: what would not have been attached to is not attached to once more.
func TestWindowsLookAgain(t *testing.T) {
	s := newStage(t)
	v := startVault(t)
	spec := specOf(v.PID(), time.Minute)
	spec.Limits.Duty = 20
	session, reply := s.hold(spec)
	site := reply.Attached.Sites[0]
	// Another tool sets its breakpoint where ours is not for the moment.
	for giveUp := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if time.Now().After(giveUp) {
			t.Fatal("it never pauses")
		}
		if b, err := testkit.ReadMemory(v.PID(), site.RuntimeAddress, 1); err == nil && b[0] == site.Bytes[0] {
			break
		}
	}
	poke(t, v.PID(), site.RuntimeAddress, 0xcc)
	f := s.wait(session).Final
	poke(t, v.PID(), site.RuntimeAddress, site.Bytes[0])
	if f.EndedBy != event.EndNotResumed || f.Why == nil || !strings.Contains(f.Why.Message, "breakpoint") {
		t.Errorf("%+v, because %v", f, f.Why)
	}
	v.requireText(time.Now().Add(5 * time.Second))
}

// TestWindowsEnd: an end that comes at any time leaves nothing behind: while the probe is on, while it is off, in between.
func TestWindowsEnd(t *testing.T) {
	testkit.RequireRoot(t)
	s := newStage(t)
	p := hot.Start(t)
	before := testkit.ReadText(t, p.PID())
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			spec := specOf(p.PID(), time.Minute)
			spec.Function, spec.Limits.Duty = "hot_pair", 20
			session, _ := s.hold(spec)
			time.Sleep(700*time.Millisecond + time.Duration(i)*97*time.Millisecond)
			s.call("Stop", session, new(struct{}))
			if f := s.wait(session).Final; f.EndedBy != event.EndStopped || !f.TextRestored || !f.Counts.Final {
				t.Errorf("%+v", f)
			}
			if d := before.Differences(testkit.ReadText(t, p.PID())); len(d) > 0 {
				t.Error(d)
			}
		})
	}
}

// TestResumeOnlyThePaused: a holder that asks for links beside those that it has, or for more of them than there are seconds, gets none.
func TestResumeOnlyThePaused(t *testing.T) {
	for what, h := range map[string]*hold{
		"not to be paused": {isPaused: true},
		"not paused":       {program: os.Stdin},
		"just resumed":     {program: os.Stdin, isPaused: true, resumed: time.Now()},
	} {
		if err := new(monitor).resume(h); err == nil {
			t.Errorf("%s: it was attached once more", what)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package returns_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

const patience = 5 * time.Minute

func startCalls(t testing.TB) *testkit.Program {
	t.Helper()
	testkit.RequireRoot(t)
	p := testkit.Start(t, testkit.BuildGo(t, "test/targets/calls"))
	p.Expect("ready", 10*time.Second)
	return p
}

// do sends a command and returns how many calls began and how many returned.
func do(t testing.TB, p *testkit.Program, format string, args ...any) (began, returned uint64) {
	t.Helper()
	p.Send(fmt.Sprintf(format, args...))
	if _, err := fmt.Sscan(p.Expect("done", patience), &began, &returned); err != nil {
		t.Fatal(err)
	}
	return began, returned
}

// work asks for all that tells one call of main.Work from another.
func work(s *probe.Spec) {
	s.Arguments = []string{"depth", "id", "label"}
	s.Results = []string{"sum", "err"}
}

// requireRightPairs holds each call's result against its arguments.
func requireRightPairs(t *testing.T, events []event.Event) {
	t.Helper()
	wrong := 0
	for i := range events {
		e := &events[i]
		depth, _ := strconv.ParseUint(e.Arguments[0].Value, 10, 64)
		id, _ := strconv.ParseUint(e.Arguments[1].Value, 10, 64)
		room := uint64(0)
		room = id & 0xff
		want := strconv.FormatUint(id<<16|depth<<8|room, 10)
		failed := event.NilError
		if depth&1 == 1 {
			failed = event.AnError
		}
		if e.Results[0].Value == want && e.Results[1].Value == failed && e.Duration > 0 && e.Duration < patience && e.AttachPoint == "call" {
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("a wrong pair: %+v\ntook %v, wanted a sum of %s, an error %s", e, e.Duration, want, failed)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d pairs are wrong", wrong, len(events))
	}
}

// TestPairs: the number of calls that returned is the number of events, every one is right, and what did not return has a reason.
func TestPairs(t *testing.T) {
	for _, c := range []struct {
		command string
		unwound func(began, returned uint64, u event.UnpairedCounts) bool
	}{
		{"return 4 7 100", func(_, _ uint64, u event.UnpairedCounts) bool { return u == event.UnpairedCounts{} }},
		{"return 400 21 1", func(_, _ uint64, u event.UnpairedCounts) bool { return u == event.UnpairedCounts{} }},
		{"panic 50 13 10", nil},
		{"exit 100 13 1", nil},
		{"mixed 200 22 4", nil},
	} {
		t.Run(strings.ReplaceAll(c.command, " ", "-"), func(t *testing.T) {
			p := startCalls(t)
			before := testkit.ReadText(t, p.PID())
			tr := trace(t, p.PID(), "main.Work", work)
			if n := len(before.Differences(testkit.ReadText(t, p.PID()))); n != len(tr.plan.Sites) {
				t.Errorf("%d places of the text differ; there are %d sites", n, len(tr.plan.Sites))
			}
			began, returned := do(t, p, "%s", c.command)
			events, n := tr.end()
			t.Logf("%d calls, %d returned: %+v", began, returned, n)
			requireRightPairs(t, events)
			if changed := before.Differences(testkit.ReadText(t, p.PID())); len(changed) > 0 {
				t.Errorf("the text is not as it was: %v", changed)
			}
			if n.Hits != began || n.Emitted != returned || uint64(len(events)) != returned || n.Unpaired.Sum() != began-returned {
				t.Errorf("%d calls of which %d returned, %d events: %+v", began, returned, len(events), n)
			}
			if n.Unpaired.NoRoom > 0 || c.unwound != nil && !c.unwound(began, returned, n.Unpaired) {
				t.Errorf("unpaired: %+v", n.Unpaired)
			}
		})
	}
}

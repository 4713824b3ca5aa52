// SPDX-License-Identifier: Apache-2.0

package returns_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

const patience = 5 * time.Minute

func startCalls(t testing.TB) *testkit.Program {
	t.Helper()
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
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
		room := id & 0xff
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

// long says whether the full forms run: KEYHOLE_LONG is set by `make test-long`.
func long() bool { return os.Getenv("KEYHOLE_LONG") != "" }

// TestManyCallsAtOnce: goroutines that change threads, recurse, grow and shrink their stacks, recover panics and end within calls, with
// every pair right, but where more wait than there is room for, and no state left when each goroutine's runtime.g has been used again.
func TestManyCallsAtOnce(t *testing.T) {
	goroutines, rounds := 1000, 1
	if long() {
		goroutines, rounds = 8000, 2
	}
	p := startCalls(t)
	tr := trace(t, p.PID(), "main.Work", work)
	began, returned := do(t, p, "mixed %d 13 %d", goroutines, rounds)
	b, r := do(t, p, "shrink %d 19 2", goroutines/10)
	began, returned = began+b, returned+r
	b, r = do(t, p, "return %d 2 1", 20*goroutines)
	began, returned = began+b, returned+r
	events, n := tr.end()
	t.Logf("%d calls, %d returned: %+v", began, returned, n)
	requireRightPairs(t, events)
	if n.Hits != began || n.Emitted+n.Unpaired.Sum() != began || n.Emitted > returned || n.Emitted+n.Unpaired.NoRoom < returned || long() && n.Unpaired.Waiting > 0 {
		t.Errorf("%d calls of which %d returned: %+v", began, returned, n)
	}
	if n.Unpaired.NoRoom > 0 && uint64(goroutines)*14 < plan.MaxWaiting {
		t.Errorf("%d calls at most at once: %+v", goroutines*14, n)
	}
	if n.Unpaired.Unwound == 0 || n.Unpaired.GoroutineEnded == 0 {
		t.Errorf("nothing was unwound, or no goroutine's place was taken by another: %+v", n.Unpaired)
	}
}

// TestStacksGrow: many goroutines a little deep and a few very deep, whose stacks grow and shrink, for a while: each call is seen once at its
// entry, and once at its return but where more wait than there is room for.
func TestStacksGrow(t *testing.T) {
	many, while := 500, time.Second
	if long() {
		many, while = 10_000, time.Minute
	}
	p := startCalls(t)
	var seen, wrong uint64
	tr := traceEach(t, p.PID(), "main.Work", func(s *probe.Spec) { work(s); s.Arguments = s.Arguments[:2] }, func(e *event.Event) {
		seen++
		if e.Duration <= 0 || e.Duration > patience || e.Results[0].Missing != "" || e.Arguments[0].Missing != "" {
			if wrong++; wrong < 5 {
				t.Errorf("%+v", *e)
			}
		}
	})
	var began uint64
	rounds := 0
	for begun := time.Now(); time.Since(begun) < while; rounds++ {
		for _, command := range []string{fmt.Sprintf("return %d 20 1", many), "shrink 20 2000 1"} {
			b, r := do(t, p, "%s", command)
			if began += b; b != r {
				t.Fatalf("%s: %d calls, %d returned", command, b, r)
			}
		}
	}
	_, n := tr.end()
	t.Logf("%d rounds, %d calls: %+v", rounds, began, n)
	if want := (event.UnpairedCounts{NoRoom: n.Unpaired.NoRoom}); n.Hits != began || n.Emitted+n.Unpaired.NoRoom != began || seen != n.Emitted || n.Unpaired != want {
		t.Errorf("%d calls, %d events: %+v", began, seen, n)
	}
	if n.Unpaired.NoRoom > 0 && uint64(many)*21 < plan.MaxWaiting {
		t.Errorf("%d calls at most at once: %+v", many*21, n)
	}
	if wrong > 0 {
		t.Errorf("%d events are wrong", wrong)
	}
}

// TestCapacity holds more calls open than the map has room for: those that do not fit are said to be so, and nothing else is.
func TestCapacity(t *testing.T) {
	const depth = 149
	goroutines := plan.MaxWaiting/(depth+1) + 20
	p := startCalls(t)
	tr := trace(t, p.PID(), "main.Work", func(s *probe.Spec) { s.Results = []string{probe.Duration}; s.Arguments = []string{"depth"} })
	if capacity := tr.plan.MaxWaitingCalls(); capacity != plan.MaxWaiting {
		t.Fatalf("room for %d calls", capacity)
	}
	began, _ := do(t, p, "block %d %d 1", goroutines, depth)
	n := tr.counts()
	if n.Hits != began || n.Unpaired.Waiting != plan.MaxWaiting || n.Unpaired.NoRoom != began-plan.MaxWaiting {
		t.Errorf("%d calls: %+v", began, n)
	}
	do(t, p, "release %d %d 1", goroutines, depth)
	_, n = tr.end()
	t.Logf("%d calls: %+v", began, n)
	if want := (event.UnpairedCounts{NoRoom: began - plan.MaxWaiting}); n.Unpaired != want || n.Emitted != plan.MaxWaiting || n.Hits != began {
		t.Errorf("%d calls: %+v", began, n)
	}
}

// TestCalleesOfC: calls of a C program in several threads, by its own return instructions.
func TestCalleesOfC(t *testing.T) {
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
	p := testkit.Start(t, testkit.BuildC(t, "ccalls", []string{"test/targets/ccalls/main.c"}, "-O1", "-g", "-pthread", "-fno-optimize-sibling-calls"))
	p.Expect("ready", 10*time.Second)
	for _, c := range []struct {
		errors probe.Errors
		share  uint64 // of the calls, one in so many is shown
	}{{"", 1}, {probe.ErrorsOnly, 4}} {
		tr := trace(t, p.PID(), "work", func(s *probe.Spec) {
			s.Arguments, s.Results, s.Errors = []string{"depth", "id"}, []string{"r0"}, c.errors
		})
		began, returned := do(t, p, "calls")
		events, n := tr.end()
		t.Logf("%d calls, %d returned: %+v", began, returned, n)
		if n.Hits != began || n.Emitted+n.Filtered != returned || n.Unpaired.Sum() != began-returned || n.Unpaired.Unwound == 0 {
			t.Errorf("%d calls of which %d returned: %+v", began, returned, n)
		}
		if n.Emitted == 0 || uint64(len(events)) != n.Emitted || c.errors == "" && n.Filtered > 0 || c.errors != "" && n.Filtered == 0 {
			t.Errorf("%d events: %+v", len(events), n)
		}
		for i := range events {
			e := &events[i]
			depth, _ := strconv.ParseInt(e.Arguments[0].Value, 10, 64)
			id, _ := strconv.ParseInt(e.Arguments[1].Value, 10, 64)
			want := id*100 + depth
			if depth%4 == 3 {
				want = -want
			}
			if e.Results[0].Value != strconv.FormatInt(want, 10) || e.Duration <= 0 || c.errors != "" && want >= 0 {
				t.Fatalf("wanted %d: %+v", want, e)
			}
		}
	}
}

// TestNoReturnsRefused: where calls cannot be paired for sure they are not paired at all, and no flag makes a return probe of it.
func TestNoReturnsRefused(t *testing.T) {
	p := startCalls(t)
	in, _ := inputOf(t, p.PID())
	ask := func(s *probe.Spec) { s.Results = []string{probe.Duration} }
	for function, says := range map[string]string{
		"runtime.gogo": "jump to another function", "runtime.mcall": "jump to another function", "runtime.memmove": "no debug information says",
	} {
		_, err := compile(t, in, spec(p.PID(), function, ask))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", function, err)
		}
	}
	// A target that claims otherwise is refused wherever it is looked at.
	s := spec(p.PID(), "main.Work", ask)
	found, err := resolve.Resolve(in, s)
	if err != nil {
		t.Fatal(err)
	}
	found.Sites = found.Sites[:1]
	for _, by := range []target.Pairing{target.ByGoroutine, target.ByThread} {
		found.Returns.By = by
		if err := found.Validate(); err == nil || !strings.Contains(err.Error(), "no site is a return instruction") {
			t.Errorf("by %s: %v", by, err)
		}
		if _, err := plan.Compile(s, found, redact.Shipped()); err == nil {
			t.Errorf("by %s: compiled", by)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package returns_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func startTails(t testing.TB) *testkit.Program {
	t.Helper()
	testkit.RequireRoot(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("on other machines the kernel's return probe is not used")
	}
	p := testkit.Start(t, testkit.BuildC(t, "ctails", []string{"test/targets/ctails/main.c"}, "-O2", "-g", "-pthread"))
	p.Expect("ready", 10*time.Second)
	return p
}

// doRight has a program do something and requires that its calls gave it what they should.
func doRight(t testing.TB, p *testkit.Program, command string) (began, returned uint64) {
	t.Helper()
	p.Send(command)
	var wrong uint64
	if _, err := fmt.Sscan(p.Expect("done", patience), &began, &returned, &wrong); err != nil {
		t.Fatal(err)
	}
	if wrong > 0 {
		t.Errorf("%s: %d calls gave the program something wrong", command, wrong)
	}
	return began, returned
}

// requireKernelsProbe says whether a tracing is by the kernel's return probe, on one place of the text.
func requireKernelsProbe(t *testing.T, tr *tracing, before testkit.Text, pid int) {
	t.Helper()
	if r := tr.plan.Returns; r == nil || !r.ByKernel || len(tr.plan.Sites) != 2 {
		t.Fatalf("not the kernel's return probe:\n%s", tr.plan.Listing())
	}
	if n := len(before.Differences(testkit.ReadText(t, pid))); n != 1 {
		t.Errorf("%d places of the text differ", n)
	}
}

// TestReturnProbe: calls of functions that end in calls of others, in several threads, recursively, left by longjmp, from signal handlers,
// across forks, and under a filter that ends the process at system calls of the kernel's own trampolines. The program gets what it should, and
// each call is paired with its own end.
func TestReturnProbe(t *testing.T) {
	p := startTails(t)
	before := testkit.ReadText(t, p.PID())
	for _, filtered := range []bool{false, true} {
		if filtered {
			doRight(t, p, "filter")
		}
		tr := trace(t, p.PID(), "step", func(s *probe.Spec) { s.Arguments, s.Results = []string{"depth", "id"}, []string{"r0"} })
		requireKernelsProbe(t, tr, before, p.PID())
		began, returned := doRight(t, p, "calls")
		events, n := tr.end()
		t.Logf("filtered: %v; %d calls, %d returned: %+v", filtered, began, returned, n)
		if n.Hits != began || n.Emitted != returned || uint64(len(events)) != returned || n.Unpaired.Sum() != began-returned || n.Unpaired.Unwound == 0 {
			t.Errorf("%d calls of which %d returned, %d events: %+v", began, returned, len(events), n)
		}
		for i := range events {
			requireSum(t, &events[i])
		}
	}
	if changed := before.Differences(testkit.ReadText(t, p.PID())); len(changed) > 0 {
		t.Errorf("the text is not as it was: %v", changed)
	}
}

// requireSum holds the result of a call of step, even or hold against its arguments.
func requireSum(t *testing.T, e *event.Event) {
	t.Helper()
	depth, _ := strconv.ParseInt(e.Arguments[0].Value, 10, 64)
	id, _ := strconv.ParseInt(e.Arguments[1].Value, 10, 64)
	if e.Results[0].Value != strconv.FormatInt(id*100+depth, 10) || e.Duration <= 0 || e.Duration > patience {
		t.Fatalf("depth %d, id %d, took %v: %+v", depth, id, e.Duration, e.Results)
	}
}

// TestReturnProbeOfTurns: a function that comes back to itself by jumps is in one frame all the time. The last of these calls has the
// return; those before it were left without one.
func TestReturnProbeOfTurns(t *testing.T) {
	p := startTails(t)
	tr := trace(t, p.PID(), "even", func(s *probe.Spec) { s.Arguments, s.Results = []string{"n", "id"}, []string{"r0"} })
	began, returned := doRight(t, p, "turns")
	events, n := tr.end()
	t.Logf("%d calls, %d returned: %+v", began, returned, n)
	if n.Hits != began || n.Emitted != returned || n.Unpaired.Unwound != began-returned {
		t.Errorf("%d calls of which %d returned: %+v", began, returned, n)
	}
	for i := range events {
		requireSum(t, &events[i])
	}
}

// TestReturnProbeOfVariadic: a function that ends in a call of one of the C library's that takes any number of arguments, of which some are in
// vector registers.
func TestReturnProbeOfVariadic(t *testing.T) {
	p := startTails(t)
	tr := trace(t, p.PID(), "tell", func(s *probe.Spec) { s.Arguments, s.Results = []string{"id"}, []string{"r0"} })
	began, returned := doRight(t, p, "tells")
	events, n := tr.end()
	if n.Hits != began || n.Emitted != returned || uint64(len(events)) != returned || n.Unpaired.Sum() > 0 {
		t.Errorf("%d calls of which %d returned, %d events: %+v", began, returned, len(events), n)
	}
	for i := range events {
		if e := &events[i]; e.Results[0].Value != strconv.Itoa(len(fmt.Sprintf("id %s, 0.5", e.Arguments[0].Value))) {
			t.Fatalf("%+v", e)
		}
	}
}

// TestReturnProbeEndsInside: the probe ends while calls go on, whose return addresses are still the kernel's. They return where they should.
func TestReturnProbeEndsInside(t *testing.T) {
	p := startTails(t)
	before := testkit.ReadText(t, p.PID())
	tr := trace(t, p.PID(), "hold", func(s *probe.Spec) { s.Results = []string{"r0"} })
	requireKernelsProbe(t, tr, before, p.PID())
	began, _ := doRight(t, p, "hold")
	_, n := tr.end()
	if n.Hits != began || n.Unpaired.Waiting != began {
		t.Errorf("%d calls: %+v", began, n)
	}
	if changed := before.Differences(testkit.ReadText(t, p.PID())); len(changed) > 0 {
		t.Errorf("the text is not as it was: %v", changed)
	}
	if began, returned := doRight(t, p, "release"); began != returned {
		t.Errorf("%d of %d calls returned", returned, began)
	}
	doRight(t, p, "calls")
}

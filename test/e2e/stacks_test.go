// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
)

// askRuntime makes the program of test/targets/stacks call, and returns what its own runtime says of the stack.
func askRuntime(p *testkit.Program, depth int) (stack []string) {
	p.Send(fmt.Sprint(depth))
	for line := p.Line(10 * time.Second); line != ""; line = p.Line(10 * time.Second) {
		f := strings.Split(line, "\t")
		stack = append(stack, f[1]+" "+f[2]+":"+f[3])
	}
	return stack
}

// withoutMarks is a stack as the runtime says it, and how many of its calls are inlined.
func withoutMarks(stack []string) (plain []string, inlined int) {
	for _, line := range stack {
		rest, marked := strings.CutSuffix(line, " (inlined)")
		if plain = append(plain, rest); marked {
			inlined++
		}
	}
	return plain, inlined
}

// TestStacks shows the callers of calls of Go programs, with and without debug information, as these programs know them themselves: in
// events, in spans, on a terminal.
func TestStacks(t *testing.T) {
	receiver, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	d := devtest.Start(t, receiver.Environment())
	for name, flags := range map[string][]string{"plain": nil, "stripped": {"-ldflags=-s -w"}} {
		t.Run(name, func(t *testing.T) {
			program := testkit.Start(t, testkit.BuildGo(t, "test/targets/stacks", flags...))
			tr := d.Trace(fmt.Sprintf("pid/%d", program.PID()), "main.Probe", "--stack", "--for", "2m", "--max-hits", "2")
			want := [][]string{askRuntime(program, 0), askRuntime(program, 9)}
			events, sum := tr.Finish(30 * time.Second)
			sum.RequireSum(t)
			if len(events) != 2 || sum.EndedBy != event.EndMaxHits {
				t.Fatalf("%d events: %+v", len(events), sum)
			}
			for i, e := range events {
				got, inlined := withoutMarks(e.Stack)
				if len(got) == 0 || !strings.HasPrefix(got[0], "main.Probe /") || !slices.Equal(got[1:], want[i][1:]) || inlined < 3 {
					t.Errorf("%s\nthe program says\n%s", strings.Join(e.Stack, "\n"), strings.Join(want[i], "\n"))
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := receiver.WaitFor(ctx, func(spans []otlptest.Span, _ []otlptest.LogRecord) bool { return len(spans) >= 4 }); err != nil {
		t.Fatal(err)
	}
	for _, s := range receiver.Spans() {
		stack, _ := otlptest.Attribute(s.GetAttributes(), "code.stacktrace")
		if !strings.HasPrefix(stack, "main.Probe /") || !strings.Contains(stack, "\nmain.add /") || !strings.Contains(stack, "\nruntime.goexit ") {
			t.Errorf("a span with the stack %q", stack)
		}
	}
	program := testkit.Start(t, testkit.BuildGo(t, "test/targets/stacks"))
	target := fmt.Sprintf("pid/%d", program.PID())
	if out := d.MustRun("explain", target, "main.Probe", "--stack"); !strings.Contains(out, "callers") {
		t.Errorf("explain says nothing of callers:\n%s", out)
	}
	if r := d.Run("trace", target, "main.Probe", "--stack", "--count"); r.Status != 2 || !strings.Contains(r.Stderr, "--stack") {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
}

// TestStacksOfC ends a stack where a caller is not proved to keep a frame pointer.
func TestStacksOfC(t *testing.T) {
	d := devtest.Start(t, nil)
	for _, c := range []struct {
		flag string
		want []string // beginnings of lines
	}{
		{"-fno-omit-frame-pointer", []string{"probe_me ", "inlined ", "recurse ", "recurse ", "recurse ", "main ", "libc.so.6+0x"}},
		{"-fomit-frame-pointer", []string{"probe_me ", "inlined ", "recurse ", "(" + event.CutNoFrames + ")"}},
	} {
		t.Run(c.flag, func(t *testing.T) {
			program := testkit.Start(t, testkit.BuildC(t, "cstacks", []string{"test/targets/cstacks/main.c"}, "-O2", "-g", c.flag))
			program.Send("0")
			program.Line(10 * time.Second)
			tr := d.Trace(fmt.Sprintf("pid/%d", program.PID()), "probe_me", "--stack", "--ret", "r0", "--for", "2m", "--max-hits", "1")
			program.Send("2")
			program.Line(10 * time.Second)
			events, _ := tr.Finish(30 * time.Second)
			if len(events) != 1 {
				t.Fatalf("%d events", len(events))
			}
			stack := events[0].Stack
			if !slices.EqualFunc(stack, c.want, strings.HasPrefix) || !strings.HasSuffix(stack[1], "main.c:16 (inlined)") {
				t.Errorf("%s", strings.Join(stack, "\n"))
			}
		})
	}
}

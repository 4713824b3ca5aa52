// SPDX-License-Identifier: Apache-2.0

package returns_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/symbol"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

const timeToAnswer = 10 * time.Second

// names are what is said of a stack's addresses, all of which must be in the executable.
func names(t *testing.T, pid int, stack []event.Frame) []string {
	t.Helper()
	in, exe := inputOf(t, pid)
	table, err := symbol.Open(exe, in.Identity.Size)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i, f := range stack {
		if f.Module != "" {
			t.Fatalf("frame %d of %d is in %s", i, len(stack), f)
		}
		l := table.Lookup(symbol.Place{Offset: f.Offset, Return: f.Return})
		if len(l.Frames) == 0 && !l.Wrapper || l.NoFramePointer {
			t.Fatalf("frame %d of %d: %+v is %+v", i, len(stack), f, l)
		}
		for _, f := range l.Frames {
			f.Inlined = false
			list = append(list, f.String())
		}
	}
	return list
}

// TestStacks compares stacks that the kernel's program reads with what the runtime of the program says of the same calls: at entries and
// at returns, with and without debug information, with code at an address that the kernel chose.
func TestStacks(t *testing.T) {
	testkit.RequireRoot(t)
	for name, flags := range map[string][]string{
		"plain": nil, "stripped": {"-ldflags=-s -w"}, "pie": {"-buildmode=pie"}, "not optimised": {"-gcflags=all=-N -l"},
	} {
		for _, side := range []string{"entry", "return"} {
			if name == "stripped" && side == "return" {
				continue // nothing says what its calls are paired by
			}
			t.Run(name+", "+side, func(t *testing.T) {
				target := testkit.Start(t, testkit.BuildGo(t, "test/targets/stacks", flags...))
				tr := trace(t, target.PID(), "main.Probe", func(s *probe.Spec) {
					s.Stack = true
					if side == "return" {
						s.Results = []string{probe.Duration}
					}
				})
				depths := []int{0, 3, 40}
				var want [][]string
				for _, depth := range depths {
					target.Send(strconv.Itoa(depth))
					var stack []string
					for line := target.Line(timeToAnswer); line != ""; line = target.Line(timeToAnswer) {
						f := strings.Split(line, "\t")
						stack = append(stack, f[1]+" "+f[2]+":"+f[3])
					}
					want = append(want, stack)
				}
				events, _ := tr.end()
				if len(events) != len(depths) {
					t.Fatalf("%d events of %d calls", len(events), len(depths))
				}
				for i, e := range events {
					got := names(t, target.PID(), e.Stack)
					// The line of the function itself is that of the attach point; the program's is that of its question.
					if !strings.HasPrefix(got[0], "main.Probe /") || !slices.Equal(got[1:], want[i][1:]) || e.StackCut != "" {
						t.Errorf("depth %d:\n%s\nthe program says\n%s", depths[i], strings.Join(got, "\n"), strings.Join(want[i], "\n"))
					}
				}
			})
		}
	}
}

// TestDeepStack: what is beyond the bound is left out, and that is said.
func TestDeepStack(t *testing.T) {
	testkit.RequireRoot(t)
	target := testkit.Start(t, testkit.BuildGo(t, "test/targets/stacks"))
	tr := trace(t, target.PID(), "main.Probe", func(s *probe.Spec) { s.Stack = true })
	target.Send("500")
	for target.Line(timeToAnswer) != "" {
	}
	events, _ := tr.end()
	if len(events) != 1 || len(events[0].Stack) != 65 || events[0].StackCut != event.CutDepth {
		t.Fatalf("%d events: %+v", len(events), events)
	}
}

// TestStacksOfC: with frame pointers the whole way to the C library, and whatever the compiler keeps in the register otherwise, the immediate
// caller is right.
func TestStacksOfC(t *testing.T) {
	testkit.RequireRoot(t)
	const file = "test/targets/cstacks/main.c"
	for _, flag := range []string{"-fno-omit-frame-pointer", "-fomit-frame-pointer"} {
		for _, side := range []string{"entry", "return"} {
			t.Run(flag+" "+side, func(t *testing.T) {
				target := testkit.Start(t, testkit.BuildC(t, "cstacks", []string{file}, "-O2", "-g", flag))
				target.Send("0")
				target.Line(timeToAnswer) // by when the C library is mapped
				tr := trace(t, target.PID(), "probe_me", func(s *probe.Spec) {
					s.Stack = true
					if side == "return" {
						s.Results = []string{probe.Duration}
					}
				})
				target.Send("5")
				target.Line(timeToAnswer)
				events, _ := tr.end()
				if len(events) != 1 {
					t.Fatalf("%d events", len(events))
				}
				in, exe := inputOf(t, target.PID())
				table, err := symbol.Open(exe, in.Identity.Size)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				proved := true
				for _, f := range events[0].Stack {
					if f.Module != "" {
						got = append(got, f.Module)
						break
					}
					l := table.Lookup(symbol.Place{Offset: f.Offset, Return: f.Return})
					for _, f := range l.Frames {
						got = append(got, f.Function)
					}
					if proved = !f.Return || !l.NoFramePointer; !proved {
						break
					}
				}
				want := []string{"probe_me", "inlined", "recurse"}
				if flag == "-fno-omit-frame-pointer" {
					want = append(want, "recurse", "recurse", "recurse", "recurse", "recurse", "main", "libc.so.6")
				}
				if !slices.Equal(got, want) || proved != (flag == "-fno-omit-frame-pointer") {
					t.Errorf("%v: %v", got, events[0].Stack)
				}
			})
		}
	}
}

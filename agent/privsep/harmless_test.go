// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// many is how often a target is called: in the short form, or in the long one.
func many(short, long int) int {
	if os.Getenv("KEYHOLE_LONG") != "" {
		return long
	}
	return short
}

// TestRedZone probes a function that keeps values below its stack pointer and begins with a NOP that this kernel may rewrite.
func TestRedZone(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only x86-64 has a red zone, and NOPs that the kernel rewrites")
	}
	s, p := newStage(t), startForks(t)
	spec := specOf(p.PID(), 10*time.Minute)
	spec.Function, spec.Limits.Rate = "forks_red", 1000
	session, h := s.hold(spec)
	site := h.Attached.Sites[0]
	if !strings.Contains(site.Where, "behind a NOP of 5 bytes, which") || nopBytes(site.Bytes) != 0 {
		t.Errorf("the probe is at % x, %s", site.Bytes, site.Where)
	}
	n := many(20_000, 1_000_000)
	p.Send(fmt.Sprintf("red %d", n))
	if corrupt := p.Expect("corrupt", 5*time.Minute); corrupt != "0" {
		t.Errorf("in %s of %d calls what the function kept was changed", corrupt, n)
	}
	s.call("Stop", session, new(struct{}))
	if r := s.wait(session); r.Final.Counts.Hits != uint64(n) || !r.Final.TextRestored {
		t.Errorf("%d calls: %+v", n, r.Final)
	}
}

// TestFiftyProcesses probes one process of fifty of the same executable.
func TestFiftyProcesses(t *testing.T) {
	s := newStage(t)
	processes := make([]*testkit.Program, 50)
	before := make([]testkit.Text, len(processes))
	for i := range processes {
		processes[i] = startForks(t)
		before[i] = testkit.ReadText(t, processes[i].PID())
	}
	const granted = 23
	spec := specOfWork(processes[granted].PID())
	spec.Limits.TTL, spec.Limits.Rate = 10*time.Minute, 1000
	session, h := s.hold(spec)
	requireProbed := func(want int) {
		t.Helper()
		for i, p := range processes {
			d := before[i].Differences(testkit.ReadText(t, p.PID()))
			if i == granted && len(d) != want || i != granted && len(d) != 0 {
				t.Errorf("process %d of %d (granted: %v) differs by %q", i, len(processes), i == granted, d)
			}
		}
	}
	requireProbed(len(h.Attached.Sites))
	n := many(20_000, 1_000_000)
	for i, p := range processes {
		p.Send(fmt.Sprintf("call %d", n/(1+min(1, max(i-granted, granted-i))*9))) // the others a tenth of it
	}
	for _, p := range processes {
		p.Expect("called", 5*time.Minute)
	}
	requireProbed(len(h.Attached.Sites))
	s.call("Stop", session, new(struct{}))
	r := s.wait(session)
	requireProbed(0)
	if r.Final.Counts.Hits != uint64(n) || len(r.Events) == 0 || uint64(len(r.Events)) != r.Final.Counts.Emitted {
		t.Errorf("%d calls of the granted process: %d events, %+v", n, len(r.Events), r.Final.Counts)
	}
	for _, e := range r.Events {
		if e.Process.PID != processes[granted].PID() {
			t.Fatalf("an event of process %d; granted was %d", e.Process.PID, processes[granted].PID())
		}
	}
}

// byteAt is what is at a site in another process of the same executable.
func byteAt(t *testing.T, pid int, exe string, site target.Site) byte {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := procfs.ParseMaps(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if m.Path == exe && m.Offset <= site.FileOffset && site.FileOffset-m.Offset < m.End-m.Start && m.Executable {
			b, err := testkit.ReadMemory(pid, m.Start+site.FileOffset-m.Offset, 1)
			if err != nil {
				t.Fatal(err)
			}
			return b[0]
		}
	}
	t.Fatalf("process %d does not map %s there", pid, exe)
	return 0
}

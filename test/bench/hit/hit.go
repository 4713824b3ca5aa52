// SPDX-License-Identifier: Apache-2.0

// Package hit measures what one hit costs inside the program, as the kernel counts it (kernel.bpf_stats_enabled): without
// the trap, and with what the counting itself costs, which an empty program beside it shows.
package hit

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// A Cost is what a hit of one kind of probe takes.
type Cost struct {
	What string
	Hit  time.Duration // mean over all
	Hits uint64
	// Emitted is how many of them left a record, all of which were read.
	Emitted uint64
}

// Measure calls hot_pair(int, string of 16 bytes) so many times under each kind of probe, the empty program first.
func Measure(t testing.TB, calls int) []Cost {
	t.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatalf("count run times: %v", err)
	}
	defer stats.Close()
	p := hot.Start(t)
	costs := []Cost{empty(t, p, calls)}
	for _, k := range []struct {
		what, action string
		rate         uint32
		span         bool
		callers      int
	}{
		{"counts only", "keep", 1, false, 0}, // over its rate after the first, as a busy function always is
		{"an integer and a 16-byte string", "keep", probe.MaxRate, false, 0},
		{"the same, the string as its digest", "digest", probe.MaxRate, false, 0},
		{"a call: an integer and its result, both sides", "", probe.MaxRate, true, 0},
		{"an integer and a 16-byte string, with 5 callers", "keep", probe.MaxRate, false, 5},
		{"the same, with 20 callers", "keep", probe.MaxRate, false, 20},
	} {
		c := one(t, p, calls, k.action, k.rate, k.span, k.callers)
		c.What = k.what
		costs = append(costs, c)
	}
	return costs
}

func empty(t testing.TB, p *hot.Process, calls int) Cost {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	x, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", p.Exe.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	site := p.Target(t, "hot_pair").Sites[0].FileOffset
	k, err := x.UprobeMulti(nil, program, &link.UprobeMultiOptions{Addresses: []uint64{site}, PID: uint32(p.PID())})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	p.Do(t, "pair %d 1 sixteen letters.", calls)
	s, err := program.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return Cost{What: "empty program", Hit: mean(s.Runtime, s.RunCount), Hits: s.RunCount}
}

func one(t testing.TB, p *hot.Process, calls int, action string, rate uint32, span bool, callers int) Cost {
	t.Helper()
	program, reader := attach(t, p, planOf(t, p, action, rate, span, callers > 0))
	defer program.Close()
	defer reader.Close()

	stop, read := make(chan struct{}), make(chan uint64)
	go func() { // on the other CPU, as the holder would
		var n uint64
		for {
			_, err := reader.Read(time.Now().Add(20 * time.Millisecond))
			if err == nil {
				n++
				continue
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			select {
			case <-stop:
				read <- n
				return
			default:
			}
		}
	}()
	if callers > 0 {
		p.Do(t, "under %d %d", callers, calls)
	} else {
		p.Do(t, "pair %d 1 sixteen letters.", calls)
	}
	runs, took, err := program.Stats()
	if err != nil {
		t.Fatal(err)
	}
	close(stop)
	records := <-read
	counts, err := reader.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Emitted != records || counts.Hits != uint64(calls) {
		t.Errorf("%d calls: %d hits, %d emitted, %d records read", calls, counts.Hits, counts.Emitted, records)
	}
	if span {
		runs = counts.Hits // of two programs
	}
	return Cost{Hit: mean(took, runs), Hits: runs, Emitted: records}
}

func planOf(t testing.TB, p *hot.Process, action string, rate uint32, span, stack bool) *plan.Plan {
	t.Helper()
	keep := redact.Rule{ID: "bench", Match: redact.Match{Path: "text"}, Action: redact.Action{Kind: redact.Keep}}
	rules, err := redact.Shipped().WithOwner([]redact.Rule{keep})
	if err != nil {
		t.Fatal(err)
	}
	spec := &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: p.PID()}, Function: "hot_pair", Reason: "bench",
		Limits: probe.Limits{Rate: rate, MaxBytes: probe.MaxBytes, ValueBytes: 64},
	}
	found := p.Target(t, "hot_pair", hot.Pair()...)
	if span {
		spec.Arguments, spec.Results = []string{"value"}, []string{"r0"}
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		if found, err = resolve.Resolve(resolve.Input{Exe: p.Exe, Maps: maps, Identity: found.Identity}, spec); err != nil {
			t.Fatal(err)
		}
	} else {
		spec.Redact = []probe.Redaction{{Path: "text", Action: action}}
	}
	if spec.Stack = stack; stack {
		found.Stack = new(target.Stack)
	}
	compiled, err := plan.Compile(spec, found, rules)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func attach(t testing.TB, p *hot.Process, compiled *plan.Plan) (*loader.Program, *loader.Reader) {
	t.Helper()
	deadline := loader.BootNow() + uint64(10*time.Minute)
	program, err := loader.Load(compiled, loader.Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	attachment, err := program.Attach(p.Exe)
	if err != nil {
		t.Fatal(err)
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := loader.OpenReader(files)
	if err != nil {
		t.Fatal(err)
	}
	return program, reader
}

func mean(all time.Duration, n uint64) time.Duration {
	if n == 0 {
		return 0
	}
	return all / time.Duration(n)
}

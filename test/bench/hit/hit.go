// SPDX-License-Identifier: Apache-2.0

// Package hit measures what one hit costs inside the program, as the kernel counts it (kernel.bpf_stats_enabled): without
// the trap, and with what the counting itself costs, which an empty program beside it shows.
package hit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
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

// Calls of the probed functions, in commands of the program. How often is to be filled in.
const (
	Pair    = "pair %d 1 sixteen letters."
	Long    = "pair %d 1 a text of sixty-four bytes, which is a long one for an argument." // 64 of its bytes are shown
	Numbers = "numbers %d"
	Fields  = "fields %d"
)

// A kind is one way to probe one of the program's functions.
type kind struct {
	what     string
	calls    string // a command
	function string
	values   []target.Value
	action   string // what becomes of the text; empty: there is none
	rate     uint32
	span     bool
	stack    bool
}

func kinds() []kind {
	numbers := []target.Value{
		hot.Scalar("a", target.KindInt, 1, hot.Argument(0)), hot.Scalar("b", target.KindUint, 1, hot.Argument(1)),
		hot.Scalar("c", target.KindInt, 2, hot.Argument(2)), hot.Scalar("d", target.KindUint, 2, hot.Argument(3)),
	}
	var fields []target.Value
	for i := range 10 {
		fields = append(fields, hot.Scalar("f.field"+strconv.Itoa(i), target.KindUint, 8, hot.Argument(0, int64(8*i))))
	}
	return []kind{
		{"counts only", Pair, "hot_pair", hot.Pair(), "keep", 1, false, false}, // over its rate after the first, as a busy function always is
		{"an integer and a 16-byte string", Pair, "hot_pair", hot.Pair(), "keep", probe.MaxRate, false, false},
		{"the same, the string as its digest", Pair, "hot_pair", hot.Pair(), "digest", probe.MaxRate, false, false},
		{"4 integers", Numbers, "hot_wide", numbers, "", probe.MaxRate, false, false},
		{"a struct of 10 fields", Fields, "hot_fields", fields, "", probe.MaxRate, false, false},
		{"a string of 64 bytes", Long, "hot_pair", hot.Pair()[1:], "keep", probe.MaxRate, false, false},
		{"a call: an integer and its result, both sides", Pair, "hot_pair", nil, "", probe.MaxRate, true, false},
		{"an integer and a 16-byte string, with 5 callers", "under 5 %d", "hot_pair", hot.Pair(), "keep", probe.MaxRate, false, true},
		{"the same, with 20 callers", "under 20 %d", "hot_pair", hot.Pair(), "keep", probe.MaxRate, false, true},
	}
}

// Measure calls functions so many times under each kind of probe, the empty program first.
func Measure(t testing.TB, calls int) []Cost {
	t.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatalf("count run times: %v", err)
	}
	defer stats.Close()
	p := hot.Start(t)
	costs := []Cost{empty(t, p, calls)}
	for _, k := range kinds() {
		c := one(t, p, calls, k)
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
	p.Do(t, Pair, calls)
	s, err := program.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return Cost{What: "empty program", Hit: mean(s.Runtime, s.RunCount), Hits: s.RunCount}
}

func one(t testing.TB, p *hot.Process, calls int, k kind) Cost {
	t.Helper()
	program, reader := attach(t, p, planOf(t, p, k))
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
	p.Do(t, k.calls, calls)
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
	if k.span {
		runs = counts.Hits // of two programs
	}
	return Cost{Hit: mean(took, runs), Hits: runs, Emitted: records}
}

func planOf(t testing.TB, p *hot.Process, k kind) *plan.Plan {
	t.Helper()
	keep := redact.Rule{ID: "bench", Match: redact.Match{Path: "text"}, Action: redact.Action{Kind: redact.Keep}}
	rules, err := redact.Shipped().WithOwner([]redact.Rule{keep})
	if err != nil {
		t.Fatal(err)
	}
	spec := &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: p.PID()}, Function: k.function, Reason: "bench",
		Limits: probe.Limits{Rate: k.rate, MaxBytes: probe.MaxBytes, ValueBytes: 64},
	}
	found := p.Target(t, k.function, k.values...)
	switch {
	case k.span:
		spec.Arguments, spec.Results = []string{"value"}, []string{"r0"}
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		if found, err = resolve.Resolve(resolve.Input{Exe: p.Exe, Maps: maps, Identity: found.Identity}, spec); err != nil {
			t.Fatal(err)
		}
	case k.action != "":
		spec.Redact = []probe.Redaction{{Path: "text", Action: k.action}}
	}
	if spec.Stack = k.stack; k.stack {
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

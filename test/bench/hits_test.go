// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
	"github.com/keyhole-dev/keyhole/test/bench/hit"
)

// hits are the rows about one hit, ours and bpftrace's, in one process under the same calls.
func hits(t *testing.T, n size) []row {
	t.Helper()
	aims := map[string]string{
		"counts only":                        "80 ns",
		"an integer and a 16-byte string":    "500 ns",
		"the same, the string as its digest": "700 ns",

		"a call: an integer and its result, both sides": "1200 ns",
	}
	var rows []row
	for _, c := range hit.Measure(t, n.hits) {
		rows = append(rows, row{c.What, ns(c.Hit), aims[c.What], fmt.Sprintf("%d hits, %d records read", c.Hits, c.Emitted)})
	}
	path := bpftrace()
	if path == "" {
		return rows
	}
	for _, c := range []struct{ what, calls, script string }{
		{"count()", hit.Pair, `uprobe:PROGRAM:hot_pair { @ = count(); }`},
		{"an integer and a string", hit.Pair, `uprobe:PROGRAM:hot_pair { printf("%s %d\n", str(arg1), arg0); }`},
		{"the same and the stack", hit.Pair, `uprobe:PROGRAM:hot_pair { printf("%s %d %s\n", str(arg1), arg0, ustack); }`},
		{"4 integers", hit.Numbers, `uprobe:PROGRAM:hot_wide { printf("%d %d %d %d\n", arg0, arg1, arg2, arg3); }`},
		{"a struct of 10 fields", hit.Fields, `struct fields { uint64_t field[10]; } uprobe:PROGRAM:hot_fields { $f = (struct fields *)arg0; ` +
			`printf("%d %d %d %d %d %d %d %d %d %d\n", $f->field[0], $f->field[1], $f->field[2], $f->field[3], $f->field[4], ` +
			`$f->field[5], $f->field[6], $f->field[7], $f->field[8], $f->field[9]); }`},
		{"a string of 64 bytes", hit.Long, `uprobe:PROGRAM:hot_pair { printf("%s\n", str(arg1, 64)); }`},
		{"a call: an integer and its result, both sides", hit.Pair, `uprobe:PROGRAM:hot_pair { @since[tid] = nsecs; @value[tid] = arg0; } ` +
			`uretprobe:PROGRAM:hot_pair /@since[tid]/ { printf("%d %d %d\n", @value[tid], retval, nsecs - @since[tid]); delete(@since[tid]); delete(@value[tid]); }`},
	} {
		cost, hits := theirs(t, path, c.calls, c.script, n.hits)
		rows = append(rows, row{"bpftrace: " + c.what, ns(cost), "", fmt.Sprintf("%d hits", hits)})
	}
	return rows
}

func ns(d time.Duration) string { return strconv.FormatInt(d.Nanoseconds(), 10) + " ns" }

// theirs measures bpftrace's programs for a script about a function that hit.Measure probes: all of one hit together.
func theirs(t *testing.T, path, calls, script string, n int) (mean time.Duration, hits uint64) {
	t.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	p := hot.Start(t)
	known := programs(t)
	script = strings.ReplaceAll(script, "PROGRAM", fmt.Sprintf("/proc/%d/exe", p.PID()))
	tracer := testkit.StartCommand(t, exec.Command(path, "-p", strconv.Itoa(p.PID()), "-e", script))
	go func() {
		for range tracer.Lines() { // what it prints is thrown away, as fast as it comes
		}
	}()
	sum := func() (runtime time.Duration, most uint64) {
		for id := range programs(t) {
			if !known[id] {
				took, count := programStats(t, id)
				runtime, most = runtime+took, max(most, count)
			}
		}
		return runtime, most
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p.Do(t, calls, 1)
		runtime, count := sum()
		if count > 0 { // it is attached
			p.Do(t, calls, n)
			after, hits := sum()
			return (after - runtime) / time.Duration(max(hits-count, 1)), hits - count
		}
		if time.Now().After(deadline) {
			t.Fatalf("bpftrace did not attach\n%s", tracer.Stderr())
		}
	}
}

// programs are the numbers of all eBPF programs in the kernel.
func programs(t *testing.T) map[ebpf.ProgramID]bool {
	t.Helper()
	all := make(map[ebpf.ProgramID]bool)
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[next] = true
		id = next
	}
}

func programStats(t *testing.T, id ebpf.ProgramID) (time.Duration, uint64) {
	t.Helper()
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.Runtime, s.RunCount
}

// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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
	for _, c := range []struct{ what, action string }{
		{"bpftrace: count()", `@ = count();`},
		{`bpftrace: printf("%s %d")`, `printf("%s %d\n", str(arg1), arg0);`},
		{`bpftrace: printf("%s %d %s"), the last its stack`, `printf("%s %d %s\n", str(arg1), arg0, ustack);`},
	} {
		cost, hits := theirs(t, path, c.action, n.hits)
		rows = append(rows, row{c.what, ns(cost), "", fmt.Sprintf("%d hits", hits)})
	}
	return rows
}

func ns(d time.Duration) string { return strconv.FormatInt(d.Nanoseconds(), 10) + " ns" }

// theirs measures bpftrace's program for an action on the function that hit.Measure probes.
func theirs(t *testing.T, path, action string, calls int) (mean time.Duration, hits uint64) {
	t.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	p := hot.Start(t)
	known := programs(t)
	script := fmt.Sprintf(`uprobe:/proc/%d/exe:hot_pair { %s }`, p.PID(), action)
	tracer := testkit.StartCommand(t, exec.Command(path, "-p", strconv.Itoa(p.PID()), "-e", script))
	go func() {
		for range tracer.Lines() { // what it prints is thrown away, as fast as it comes
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p.Do(t, "pair %d 1 sixteen letters.", 1)
		for id := range programs(t) {
			if known[id] {
				continue
			}
			runtime, count := programStats(t, id)
			if count == 0 {
				continue // not its program, or not yet attached
			}
			p.Do(t, "pair %d 1 sixteen letters.", calls)
			after, hits := programStats(t, id)
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

// SPDX-License-Identifier: Apache-2.0

// Package bench_test measures what Keyhole costs and prints one table, all of it from one run on one machine. Beside our figures
// stand those of bpftrace doing the same, where it is installed. `make bench` runs it whole; as part of the tests it
// makes one short round, to show that it works.
package bench_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

var full = flag.Bool("full", false, "measure long enough for figures that mean something, and print the table")

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// A size is how much is measured.
type size struct {
	hits     int // calls of the probed function for each row about a hit
	starts   int // sessions from request to first event
	bpftrace int // starts of bpftrace
	idle     time.Duration
}

// A row is one line of the table.
type row struct {
	what, figure, aim, note string
}

func TestTable(t *testing.T) {
	testkit.RequireRoot(t)
	n := size{hits: 2_000, starts: 3, bpftrace: 1, idle: 500 * time.Millisecond}
	if *full {
		n = size{hits: 200_000, starts: 50, bpftrace: 10, idle: 3 * time.Second}
	}
	rows := slices.Concat(
		[]row{{what: "A hit: time in the program, without the trap"}}, hits(t, n),
		[]row{{what: "What becomes of a value, once it is read"}}, redaction(t, n),
		[]row{{what: "The agent"}}, agent(t, n),
		[]row{{what: "From the command to the first event on its standard output"}}, firstEvent(t, n), bigBinary(t, n),
	)
	if !*full {
		return
	}
	fmt.Printf("\n%s, %d CPUs (%s), Linux %s, %s\n\n", runtime.GOARCH, runtime.NumCPU(), cpuModel(), kernel(t), runtime.Version())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if r.figure == "" {
			fmt.Fprintf(w, "%s\t\t\t\n", r.what)
			continue
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", r.what, r.figure, r.aim, r.note)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// bpftrace is where the tool is that others use for this; empty if it is not installed.
func bpftrace() string {
	path, err := exec.LookPath("bpftrace")
	if err != nil {
		return ""
	}
	return path
}

// percentile of durations, nearest rank.
func percentile(all []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kernel(t *testing.T) string {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(release))
}

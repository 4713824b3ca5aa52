// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/a64"
)

// A Text is what the executable mappings of one process held at one time, by the address they begin at.
type Text map[uint64][]byte

// ReadText reads every mapping of the process that is executable and backed by a file, as the process itself would see
// it: breakpoints included. The kernel's own pages (vdso, the page that steps over breakpoints) are left out.
func ReadText(t testing.TB, pid int) Text {
	t.Helper()
	text := make(Text)
	for _, m := range Mappings(t, pid) {
		if !strings.Contains(m.Permissions, "x") || !strings.HasPrefix(m.Path, "/") {
			continue
		}
		b, err := ReadMemory(pid, m.Start, int(m.End-m.Start))
		if err != nil {
			t.Fatalf("read text of process %d: %v", pid, err)
		}
		text[m.Start] = b
	}
	if len(text) == 0 {
		t.Fatalf("process %d has no text", pid)
	}
	return text
}

// Breakpoint is what the kernel writes at the place of a uprobe.
var Breakpoint = map[string][]byte{"amd64": {0xcc}, "arm64": a64.Breakpoint[:]}[runtime.GOARCH]

// Differences lists the addresses at which two texts of one process differ, at most ten, with the bytes of both: as many at once as a
// breakpoint has.
func (before Text) Differences(after Text) []string {
	var found []string
	for start, was := range before {
		is := after[start]
		if bytes.Equal(was, is) {
			continue
		}
		if len(is) != len(was) {
			found = append(found, fmt.Sprintf("%#x: %d bytes mapped before, %d after", start, len(was), len(is)))
			continue
		}
		n := len(Breakpoint)
		for i := 0; i < len(was); i += n {
			if end := min(i+n, len(was)); !bytes.Equal(was[i:end], is[i:end]) {
				found = append(found, fmt.Sprintf("%#x: %x before, %x after", start+uint64(i), was[i:end], is[i:end]))
			}
			if len(found) == 10 {
				return found
			}
		}
	}
	return found
}

// ReadMemory reads n bytes of a process's memory at an address, through /proc/PID/mem. With an error it returns those
// before the first that cannot be read.
func ReadMemory(pid int, address uint64, n int) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	if got, err := f.ReadAt(b, int64(address)); err != nil {
		return b[:got], fmt.Errorf("%d bytes at %#x: %w", n, address, err)
	}
	return b, nil
}

// openProcess opens a file that the kernel has for a process.
func openProcess(t testing.TB, pid int, name string) *os.File {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A Mapping is one line of /proc/PID/maps.
type Mapping struct {
	Start, End  uint64
	Permissions string // "r-xp"
	Path        string // empty for anonymous memory; "[heap]" and the like as the kernel writes them
}

// Mappings lists the memory mappings of a process.
func Mappings(t testing.TB, pid int) []Mapping {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatalf("read mappings: %v", err)
	}
	var found []Mapping
	for line := range strings.Lines(string(data)) {
		var m Mapping
		// 7f0000000000-7f0000001000 r-xp 00000000 fe:00 1234   /path with spaces
		fields := strings.Fields(line)
		if len(fields) < 5 {
			t.Fatalf("read mappings: %q", line)
		}
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.Start, &m.End); err != nil {
			t.Fatalf("read mappings: %q: %v", line, err)
		}
		m.Permissions, m.Path = fields[1], strings.Join(fields[5:], " ")
		found = append(found, m)
	}
	return found
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/target"
)

func TestMemoryLeft(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/1/cgroup", "0::/pods/a\n")
	write("sys/fs/cgroup/pods/a/memory.max", "max\n")
	write("sys/fs/cgroup/pods/a/memory.current", "1\n")
	write("sys/fs/cgroup/pods/memory.max", "10000000\n") // the parent is what is full
	write("sys/fs/cgroup/pods/memory.current", "9900000\n")
	write("sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 100000\nactive_file 5\n")
	write("proc/2/cgroup", "5:cpu:/b\n4:hugetlb,memory:/b\n0::/\n")
	write("sys/fs/cgroup/memory/b/memory.limit_in_bytes", "5000\n")
	write("sys/fs/cgroup/memory/b/memory.usage_in_bytes", "6000\n")
	write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
	write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n")
	write("proc/3/cgroup", "0::/../../elsewhere\nnonsense\n")
	for pid, want := range map[int]struct {
		left  uint64
		group string
	}{1: {200_000, "/pods"}, 2: {0, "/b"}, 3: {math.MaxUint64, ""}} {
		left, group, err := memoryLeft(root, pid)
		if err != nil || left != want.left || group != want.group {
			t.Errorf("process %d: %d left in %q, %v; want %+v", pid, left, group, err, want)
		}
	}
	if _, _, err := memoryLeft(root, 4); err == nil {
		t.Error("a process that is not there has memory")
	}
	if _, _, err := memoryLeft("/", os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestNOPsAreRecognised(t *testing.T) {
	for text, want := range map[string]int{
		"0f1f440000": 5, "662e0f1f840000000000": 10, "0f1f00": 3, "55": 0, "4889e5": 0, "66": 0, "6690": 0, "": 0,
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := nopBytes(b); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestHarmfulSites asks a monitor for sites that are instructions and would harm their process all the same.
func TestHarmfulSites(t *testing.T) {
	v := startVault(t)
	s, err := openSubject(v.PID(), fileID{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	test := doctor.SelfTest{Trap: 1}
	for _, name := range []string{
		doctor.CheckLoad, doctor.CheckCapture, doctor.CheckRedact, doctor.CheckThreads, doctor.CheckScope, doctor.CheckDeadline, doctor.CheckDetach, doctor.CheckCost,
	} {
		test.Add(name, doctor.Pass, "")
	}
	m := &monitor{checked: make(chan struct{}), report: &doctor.Report{SelfTest: test}}
	close(m.checked)
	nop := target.Site{Bytes: []byte{0x0f, 0x1f, 0x44, 0, 0}}
	var scattered []target.Site
	for i := range maxPages + 1 {
		scattered = append(scattered, target.Site{RuntimeAddress: uint64(i+1) << 20, Bytes: []byte{0x55}})
	}
	for name, c := range map[string]struct {
		sites []target.Site
		want  string
	}{
		"an ordinary one":   {scattered[:1], ""},
		"as many as may be": {scattered[:maxPages], ""},
		"a NOP":             {[]target.Site{nop}, "a NOP of 5 bytes"},
		"too many pages":    {scattered, "17 pages of the process's code; at most 16"},
		"across two pages":  {append(scattered[1:maxPages:maxPages], target.Site{RuntimeAddress: 0xfff, Bytes: []byte{1, 2}}), "17 pages"},
	} {
		err := m.admitHarm(s, c.sites)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	m.report.SelfTest.Add(doctor.CheckNOP5, doctor.Pass, "")
	if err := m.admitHarm(s, []target.Site{nop}); err != nil {
		t.Errorf("a NOP that the self-test found to be safe: %v", err)
	}
	m.report = &doctor.Report{}
	if err := m.admitHarm(s, scattered[:1]); err == nil || !strings.Contains(err.Error(), "self-test") {
		t.Errorf("a node that did not pass: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// TestReturnProbeIsRefused asks a monitor for the kernel's return probe on processes that would die of it.
func TestReturnProbeIsRefused(t *testing.T) {
	testkit.RequireRoot(t)
	v := startVault(t)
	p := testkit.Start(t, testkit.BuildC(t, "ctails", []string{"test/targets/ctails/main.c"}, "-O2", "-g", "-pthread"))
	p.Expect("ready", 10*time.Second)
	site := target.Site{Address: 0x1000, FileOffset: 0x1000, RuntimeAddress: 0x401000, Bytes: []byte{0x55}, Where: "entry"}
	end := site
	end.Return = true
	// ask asks for it, of a node whose self-test found these checks unsafe, and of a program that is said to be of a language.
	ask := func(pid int, language string, sites []target.Site, unsafe ...string) error {
		s, err := openSubject(pid, fileID{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.release()
		m := &monitor{checked: make(chan struct{}), report: passing(unsafe...)}
		close(m.checked)
		id := s.identity
		id.Language = language
		return m.admitReturns(s, &target.Target{
			Identity: id, Function: target.Function{Name: "step"}, Sites: sites, Returns: &target.Returns{By: target.ByThread, ByKernel: true},
		})
	}
	both := []target.Site{site, end}
	filtered := func() {
		p.Send("filter")
		p.Expect("done 0", 10*time.Second)
	}
	for _, c := range []struct {
		name string
		do   func()
		err  func() error
		want string // empty: it is allowed
	}{
		{"C", nil, func() error { return ask(p.PID(), "c", both) }, ""},
		{"Go", nil, func() error { return ask(v.PID(), "go1.26.8", both) }, "in a Go program"},
		{"Go that is said to be C", nil, func() error { return ask(v.PID(), "c", both) }, "a Go program dies"},
		{"without an entry", nil, func() error { return ask(p.PID(), "c", both[1:]) }, "one entry and one return"},
		{"a kernel that harms", nil, func() error { return ask(p.PID(), "c", both, doctor.CheckReturn) }, "harms processes"},
		{"a kernel that harms under seccomp", nil, func() error { return ask(p.PID(), "c", both, doctor.CheckReturnSeccomp) }, "at any moment"},
		{"filtered, a mended kernel", filtered, func() error { return ask(p.PID(), "c", both) }, ""},
		{"filtered", nil, func() error { return ask(p.PID(), "c", both, doctor.CheckReturnSeccomp) }, "system calls are filtered"},
	} {
		if c.do != nil {
			c.do()
		}
		if err := c.err(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

// passing is the report of a node that is well but for some checks.
func passing(unsafe ...string) *doctor.Report {
	r := &doctor.Report{Facts: doctor.Facts{Kernel: "6.18.44", Arch: "amd64"}, SelfTest: doctor.SelfTest{Trap: 1}}
	for _, name := range unsafe {
		r.SelfTest.Add(name, doctor.Unsafe, "it died")
	}
	for _, name := range []string{
		doctor.CheckLoad, doctor.CheckCapture, doctor.CheckRedact, doctor.CheckThreads, doctor.CheckScope, doctor.CheckDeadline, doctor.CheckDetach,
		doctor.CheckCost, doctor.CheckReturn, doctor.CheckReturnSeccomp,
	} {
		r.SelfTest.Add(name, doctor.Pass, "")
	}
	return r
}

// TestHoldsGo finds what every Go program has, wherever in a file it is.
func TestHoldsGo(t *testing.T) {
	for _, at := range []int{0, 1, searched - len(goBuildInfo), searched - 1, searched, searched + len(goBuildInfo), 3*searched - 7} {
		b := make([]byte, 3*searched+64)
		for _, want := range []bool{false, true} {
			if want {
				copy(b[at:], goBuildInfo)
			}
			if got, err := holdsGo(bytes.NewReader(b), int64(len(b))); err != nil || got != want {
				t.Errorf("at %d: %v, %v; want %v", at, got, err, want)
			}
		}
	}
	self, err := os.Open(testkit.BuildGo(t, "test/targets/vault", "-ldflags=-s -w"))
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	info, err := self.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := holdsGo(self, info.Size()); err != nil || !got {
		t.Errorf("a stripped Go program: %v, %v", got, err)
	}
}

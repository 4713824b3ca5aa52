// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestLeakedDescriptorIsNamed(t *testing.T) {
	before, err := descriptors()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	leaked, err := leakedSince(before)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if len(leaked) != 1 || !strings.HasSuffix(leaked[0], "/dev/null") {
		t.Errorf("with /dev/null open the leaks are %q", leaked)
	}
	if leaked, err := leakedSince(before); err != nil || len(leaked) != 0 {
		t.Errorf("after closing it: %q, %v", leaked, err)
	}
}

func TestProgramIsHeldAtItsGate(t *testing.T) {
	p := Start(t, "/bin/sh", "-c", "echo ready; read line; echo got $line >&2; echo $line; exit 3")
	p.Expect("ready", 5*time.Second)
	before := ReadText(t, p.PID())
	p.Send("go")
	if got := p.Line(5 * time.Second); got != "go" {
		t.Errorf("answered %q", got)
	}
	if d := before.Differences(before); len(d) != 0 {
		t.Errorf("a text differs from itself: %v", d)
	}
	if code := p.Wait(5 * time.Second); code != 3 {
		t.Errorf("exit status %d", code)
	}
	if got := p.Stderr(); got != "got go\n" {
		t.Errorf("standard error %q", got)
	}
}

func TestTextDifferencesNameTheBytes(t *testing.T) {
	n := len(Breakpoint)
	before := Text{0x1000: make([]byte, 3*n)}
	after := Text{0x1000: slices.Concat(make([]byte, n), Breakpoint, make([]byte, n))}
	got := before.Differences(after)
	if len(got) != 1 || got[0] != fmt.Sprintf("%#x: %x before, %x after", 0x1000+n, make([]byte, n), Breakpoint) {
		t.Errorf("got %q", got)
	}
	if got := before.Differences(Text{}); len(got) != 1 {
		t.Errorf("a mapping that went away is not told: %q", got)
	}
}

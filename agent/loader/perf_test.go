// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/probe"
)

// withoutUprobeMulti has this kernel be one from before Linux 6.6, for a test.
func withoutUprobeMulti(t *testing.T) {
	before := hasUprobeMulti
	hasUprobeMulti = func() bool { return false }
	t.Cleanup(func() { hasUprobeMulti = before })
}

// TestPerfEvents attaches by perf events, as a node does that takes older kernels: to the one process and all of its threads, in several
// places, with nothing left behind.
func TestPerfEvents(t *testing.T) {
	withoutUprobeMulti(t)
	p, other := startHot(t), startHot(t)
	s := attach(t, p, request{function: "hot_pair"})
	calls := p.Do(t, "threads 4 500")
	other.Do(t, "pair 100 0 x")
	n := s.counts(t, calls)
	if n.Emitted+n.Lost != uint64(calls) || len(s.events(t)) != int(n.Emitted) {
		t.Errorf("%+v", n)
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "pair 100 0 x")
	if n, err := s.Counts(); err != nil || n.Hits != uint64(calls) || !n.Final {
		t.Errorf("after the detach: %+v, %v", n, err)
	}
}

// TestPerfEventsAreAskedFor: no probe is one of these unless the node says so.
func TestPerfEventsAreAskedFor(t *testing.T) {
	withoutUprobeMulti(t)
	p := startHot(t)
	deadline := BootNow()
	program, err := Load(compile(t, p, request{function: "hot_pair"}), Options{LatestDeadlineNs: deadline, DeadlineNs: deadline})
	if !errors.Is(err, errNoUprobeMulti) {
		program.Close()
		t.Errorf("%v; want %v", err, errNoUprobeMulti)
	}
	if err := Supported(false); err == nil || !strings.Contains(err.Error(), errNoUprobeMulti.Error()) {
		t.Errorf("%v; want %v", err, errNoUprobeMulti)
	}
	if err := Supported(true); err != nil {
		t.Error(err)
	}
}

// TestPerfEventsInSeveralPlaces: all of them or none, and the text is as before.
func TestPerfEventsInSeveralPlaces(t *testing.T) {
	withoutUprobeMulti(t)
	p := startHot(t)
	compiled := compile(t, p, request{function: "hot_pair", limits: probe.Limits{ValueBytes: 8}})
	deadline := BootNow() + 1
	program, err := Load(compiled, Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, PerfEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	site := compiled.Sites[0]
	text := func() []byte {
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		b := make([]byte, 16)
		if _, err := memory.ReadAt(b, int64(site.RuntimeAddress)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	before := text()
	const beyond = 1 << 40
	if a, err := program.AttachTo(p.Exe, p.PID(), []uint64{site.FileOffset, beyond}, false); err == nil {
		a.Close()
		t.Error("it attached beyond the file's end")
	}
	if now := text(); !bytes.Equal(now, before) {
		t.Errorf("the text is % x; it was % x", now, before)
	}
}

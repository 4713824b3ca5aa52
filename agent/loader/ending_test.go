// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/bpf"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestDeadlineInTheKernel lets the deadline pass while nobody on this side does anything, as if the holder were stopped.
func TestDeadlineInTheKernel(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), lifetime: testkit.Slow(300 * time.Millisecond)})
	deadline := s.deadline(t)
	p.Do(t, "run 100")
	time.Sleep(testkit.Slow(600 * time.Millisecond))
	before, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	calls := p.Do(t, "halt")
	after, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if before != after || after.Hits == 0 || after.Hits >= uint64(calls) {
		t.Errorf("%+v, later %+v, of %d calls", before, after, calls)
	}
	requireBefore(t, s, deadline, after.Emitted)
}

// deadline is the latest one that the program was loaded with.
func (s *session) deadline(t *testing.T) uint64 {
	t.Helper()
	var control bpf.UprobeKhDeadline
	if err := s.program.objects.KhControl.Lookup(uint32(0), &control); err != nil {
		t.Fatal(err)
	}
	return control.DeadlineNs
}

// requireBefore reads all records and wants so many, none stamped at or after the deadline.
func requireBefore(t *testing.T, s *session, deadline, want uint64) {
	t.Helper()
	events := s.events(t)
	if uint64(len(events)) != want {
		t.Errorf("%d records, want %d", len(events), want)
	}
	for _, e := range events {
		if e.BootNs >= deadline {
			t.Fatalf("a record %v after the deadline", time.Duration(e.BootNs-deadline))
		}
	}
}

// TestDeadlineMovesOnlyDown raises the control word beyond the frozen deadline, then lowers it to stop at once.
func TestDeadlineMovesOnlyDown(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", lifetime: testkit.Slow(300 * time.Millisecond)})
	deadline := s.deadline(t)
	if err := s.SetDeadline(deadline + uint64(time.Hour)); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "pair 3 0 x")
	s.counts(t, 3)
	time.Sleep(testkit.Slow(400 * time.Millisecond))
	p.Do(t, "pair 3 0 x")
	s.counts(t, 3)

	s = attach(t, p, request{function: "hot_pair"})
	p.Do(t, "pair 3 0 x")
	s.counts(t, 3)
	if err := s.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "pair 3 0 x")
	s.counts(t, 3)
	if err := s.SetDeadline(BootNow() + uint64(time.Minute)); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "pair 3 0 x")
	s.counts(t, 6)
}

// TestScope runs a second process of the same file, and a first one whose start time is not the granted one.
func TestScope(t *testing.T) {
	p, other := startHot(t), startHot(t)
	before := testkit.ReadText(t, other.PID())
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()})
	other.Do(t, "pair 10 0 not granted")
	p.Do(t, "pair 2 0 granted")
	s.counts(t, 2)
	for _, e := range s.events(t) {
		if e.Process.PID != p.PID() || e.Arguments[1].Value != "granted" {
			t.Errorf("%+v", e)
		}
	}
	if d := before.Differences(testkit.ReadText(t, other.PID())); len(d) > 0 {
		t.Errorf("the other process's text changed: %v", d)
	}

	// What the kernel's filter lets through, the program compares again: a process of that number, but another one.
	for _, ticks := range []int{-1, 1} {
		later := compile(t, p, request{function: "hot_pair"})
		later.Identity.StartTicks += uint64(ticks)
		s := attachPlan(t, p, later, request{})
		p.Do(t, "pair 5 0 x")
		s.counts(t, 0)
	}
}

func TestDetachRestoresText(t *testing.T) {
	p := startHot(t)
	before := testkit.ReadText(t, p.PID())
	s := attach(t, p, request{function: "hot_pair"})
	second := attach(t, p, request{function: "hot_pair"})
	differences := func() int { return len(before.Differences(testkit.ReadText(t, p.PID()))) }
	if n := differences(); n != 1 {
		t.Errorf("%d bytes of text differ under two probes of one site", n)
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	if n := differences(); n != 1 {
		t.Errorf("%d bytes differ under the second probe", n)
	}
	start := time.Now()
	if err := second.Detach(); err != nil {
		t.Fatal(err)
	}
	t.Logf("detached in %v", time.Since(start))
	if n := differences(); n != 0 {
		t.Errorf("%d bytes differ after both were detached", n)
	}
	p.Do(t, "pair 5 0 x")
	if n := s.counts(t, 0); !n.Final {
		t.Error("counts are not final")
	}
}

// TestNothingStays wants the kernel to forget a probe whose descriptors are closed.
func TestNothingStays(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair"})
	info, err := s.program.objects.atEntry.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	maps, _ := info.MapIDs()
	if err := errors.Join(s.Close(), s.program.Close()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(testkit.Slow(2 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		left := remaining(id, maps)
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of the program and its %d maps are left", left, len(maps))
		}
	}
}

// TestReadWaits wants Read to return a record soon after it is there, without a wake-up, and to keep to its deadline.
func TestReadWaits(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair()})
	start := time.Now()
	if _, err := s.Read(start.Add(120 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 100*time.Millisecond || d > time.Second {
		t.Errorf("gave up after %v", d)
	}
	for range 3 { // only the first wakes
		p.Do(t, "pair 1 0 x")
		called := time.Now()
		if _, err := s.Read(called.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(called); d > 4*pollInterval {
			t.Errorf("a record waited %v", d)
		}
	}
}

// TestWakeups waits for the ring without looking by itself: the kernel says when the first record is there and when a
// quarter is full, and nothing in between.
func TestWakeups(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), ring: 16 * os.Getpagesize()})
	wait := func(most time.Duration, calls int) time.Duration {
		start := time.Now()
		s.ring.SetDeadline(start.Add(most))
		done := make(chan error)
		go func() { done <- s.ring.ReadInto(&s.record) }()
		time.Sleep(20 * time.Millisecond) // it waits now
		p.Do(t, "pair %d 0 x", calls)
		if err := <-done; err != nil { // at the deadline it reads what is there
			t.Fatal(err)
		}
		took := time.Since(start)
		s.records(t)
		return took
	}
	if took := wait(5*time.Second, 1); took > 2*time.Second {
		t.Errorf("the first record was announced after %v", took)
	}
	if took := wait(400*time.Millisecond, 10); took < 300*time.Millisecond {
		t.Errorf("ten records were announced after %v", took)
	}
	if took := wait(10*time.Second, 400); took > 5*time.Second {
		t.Errorf("a quarter of the ring was announced after %v", took)
	}
}

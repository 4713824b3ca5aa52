// SPDX-License-Identifier: Apache-2.0

// Package returns_test holds entries and returns of real programs against what the programs did: from resolving to the decoded
// event, on the kernel of this machine, without the processes around it.
package returns_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/resolve"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// keep lets out what is compared: strings, and numbers of any size.
var keep = []redact.Rule{
	{ID: "test/text", Match: redact.Match{Name: "label"}, Action: redact.Action{Kind: redact.Keep}},
	{ID: "test/numbers", Match: redact.Match{Type: "*int*"}, Action: redact.Action{Kind: redact.Keep}},
}

// A tracing is a probe on a program of ours.
type tracing struct {
	t      testing.TB
	plan   *plan.Plan
	reader *loader.Reader
	stop   chan struct{}
	done   sync.WaitGroup
	each   func(*event.Event) // what is done with events; nil: they are kept
	events []event.Event
	ended  bool
}

// inputOf describes a running process as the monitor does.
func inputOf(t testing.TB, pid int) (resolve.Input, *os.File) {
	t.Helper()
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exe.Close() })
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	info, err := exe.Stat()
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Readlink(exe.Name())
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no stat")
	}
	return resolve.Input{Exe: exe, Maps: maps, Identity: target.Identity{
		PID: pid, StartTicks: startTicks(t, pid), Comm: "target", Path: path, Device: stat.Dev, Inode: stat.Ino, Size: info.Size(),
		MtimeNs: stat.Mtim.Nano(),
	}}, exe
}

func startTicks(t testing.TB, pid int) uint64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := procfs.ParseStat(data)
	if err != nil {
		t.Fatal(err)
	}
	return stat.StartTicks
}

// spec is a request with as few limits as there can be.
func spec(pid int, function string, change func(*probe.Spec)) *probe.Spec {
	s := probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: pid}, Function: function, Reason: "test",
		Limits: probe.Limits{Rate: probe.MaxRate, MaxBytes: probe.MaxBytes, TTL: time.Hour},
	}
	change(&s)
	s = s.WithDefaults()
	return &s
}

// compile goes as far as the plan.
func compile(t testing.TB, in resolve.Input, s *probe.Spec) (*plan.Plan, error) {
	t.Helper()
	found, err := resolve.Resolve(in, s)
	if err != nil {
		return nil, err
	}
	rules, err := redact.Shipped().WithOwner(keep)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Compile(s, found, rules)
}

// trace attaches a probe and begins to read. The probe ends with the test.
func trace(t testing.TB, pid int, function string, change func(*probe.Spec)) *tracing {
	t.Helper()
	return traceEach(t, pid, function, change, nil)
}

// traceEach keeps no events: each is given to a function, on the goroutine that reads.
func traceEach(t testing.TB, pid int, function string, change func(*probe.Spec), each func(*event.Event)) *tracing {
	t.Helper()
	in, exe := inputOf(t, pid)
	p, err := compile(t, in, spec(pid, function, change))
	if err != nil {
		t.Fatal(err)
	}
	deadline := loader.BootNow() + uint64(time.Hour)
	program, err := loader.Load(p, loader.Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: 64 << 20, PerfEvents: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Listing())
	}
	defer program.Close()
	attachment, err := program.Attach(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		t.Fatal(err)
	}
	tr := &tracing{t: t, plan: p, stop: make(chan struct{}), each: each}
	if tr.reader, err = loader.OpenReader(files); err != nil {
		t.Fatal(err)
	}
	decoder := decode.New(p, decode.Meta{Wall: func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }})
	tr.done.Go(func() { tr.read(decoder) })
	t.Cleanup(func() { tr.end() })
	t.Logf("%s: %d sites, %d instructions, attached in %v", function, len(p.Sites), program.Instructions, attachment.AttachTime.Round(time.Millisecond))
	return tr
}

// read decodes until it is told to stop and nothing is left.
func (tr *tracing) read(decoder *decode.Decoder) {
	for stopped := false; ; {
		select {
		case <-tr.stop:
			stopped = true
		default:
		}
		record, err := tr.reader.Read(time.Now().Add(20 * time.Millisecond))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if stopped {
				return
			}
			continue
		}
		if err != nil {
			tr.t.Error(err)
			return
		}
		e, err := decoder.Decode(record)
		if err != nil {
			tr.t.Error(err)
			return
		}
		if tr.each != nil {
			tr.each(&e)
			continue
		}
		tr.events = append(tr.events, e)
	}
}

// end detaches and returns what was seen.
func (tr *tracing) end() ([]event.Event, event.Counts) {
	tr.t.Helper()
	if tr.ended {
		return tr.events, event.Counts{}
	}
	tr.ended = true
	if err := tr.reader.Detach(); err != nil {
		tr.t.Error(err)
	}
	close(tr.stop)
	tr.done.Wait()
	counts := tr.counts()
	if err := tr.reader.Close(); err != nil {
		tr.t.Error(err)
	}
	return tr.events, counts
}

func (tr *tracing) counts() event.Counts {
	tr.t.Helper()
	counts, err := tr.reader.Counts()
	if err != nil {
		tr.t.Fatal(err)
	}
	return counts
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// status reads fields of every task of a process from /proc/PID/task/*/status.
func status(t *testing.T, pid int, fields ...string) map[string][]string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no tasks of process %d: %v", pid, err)
	}
	found := make(map[string][]string)
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			for _, f := range fields {
				if f == name {
					found[f] = append(found[f], strings.TrimSpace(value))
				}
			}
		}
	}
	for _, f := range fields {
		if len(found[f]) == 0 {
			t.Fatalf("process %d says nothing of %s", pid, f)
		}
	}
	return found
}

const noCapability = "0000000000000000"

// requireUnprivileged fails unless no task of the process has a capability or can gain one.
func requireUnprivileged(t *testing.T, pid int, more map[string]string) {
	t.Helper()
	want := map[string]string{"CapEff": noCapability, "CapPrm": noCapability, "CapInh": noCapability, "CapAmb": noCapability, "NoNewPrivs": "1"}
	for f, v := range more {
		want[f] = v
	}
	var fields []string
	for f := range want {
		fields = append(fields, f)
	}
	for f, values := range status(t, pid, fields...) {
		for _, v := range values {
			if v != want[f] {
				t.Errorf("a task of process %d has %s %s; want %s", pid, f, v, want[f])
			}
		}
	}
}

func TestAgentHasNoPrivilege(t *testing.T) {
	s := newStage(t)
	agent := processNamed(t, s.monitor, agentName)
	requireUnprivileged(t, agent, map[string]string{"Seccomp": "2"})

	outside := filepath.Join(s.dir, "outside")
	if err := os.WriteFile(outside, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(s.dir, "state", "inside")
	if err := os.WriteFile(inside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var reply []string
	paths := []string{inside, "/proc/self/status", outside, "/etc/passwd", s.authority.grantKeys, fmt.Sprintf("/proc/%d/status", s.monitor)}
	s.call("Try", paths, &reply)
	for i, path := range paths {
		got, allowed := reply[i], i < 2
		if (got == "ok") != allowed {
			t.Errorf("the agent reads %s: %s", path, got)
		}
	}
	t.Run("signals", func(t *testing.T) {
		testkit.Need(t, testkit.LandlockScope)
		victim := testkit.Start(t, "/bin/cat")
		if err := s.agent.Call("Agent.Signal", victim.PID(), new(struct{})); err == nil || !strings.Contains(err.Error(), "operation not permitted") {
			t.Errorf("the agent signals another process of its user: %v", err)
		}
	})
}

func TestMonitorHasFourCapabilities(t *testing.T) {
	s := newStage(t)
	want := fmt.Sprintf("%016x", uint64(monitorCapabilities|more(true)))
	for f, values := range status(t, s.monitor, "CapPrm", "CapEff", "NoNewPrivs", "Seccomp", "CapInh", "CapAmb") {
		for i, v := range values {
			switch f {
			case "NoNewPrivs":
				if v != "1" {
					t.Errorf("task %d: NoNewPrivs %s", i, v)
				}
			case "Seccomp":
				if v != "2" {
					t.Errorf("task %d: Seccomp %s", i, v)
				}
			case "CapInh", "CapAmb":
				if v != noCapability {
					t.Errorf("task %d: %s %s", i, f, v)
				}
			default: // the threads that start children have less
				if v != want && v != noCapability && v != fmt.Sprintf("%016x", uint64(loaderCapabilities|more(true))) {
					t.Errorf("task %d: %s %s; want %s at most", i, f, v, want)
				}
			}
		}
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.monitor)); err != nil || strings.TrimSpace(string(name)) != monitorName {
		t.Errorf("the monitor's name is %q, %v", name, err)
	}
}

func TestSelfTest(t *testing.T) {
	s := newStage(t)
	var r doctor.Report
	s.call("Check", struct{}{}, &r)
	t.Logf("%+v", r)
	if err := r.SelfTest.Err(); err != nil {
		t.Error(err)
	}
	if o, text := r.SelfTest.Outcome(doctor.CheckReturnSeccomp); o == "" {
		t.Errorf("nothing is known of a return probe in a filtered process: %s", text)
	}
	if !r.Facts.BTF || len(r.Facts.Capabilities) != 4 || r.Facts.Kernel == "" {
		t.Errorf("facts %+v", r.Facts)
	}
}

func TestExamine(t *testing.T) {
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
	r, err := Examine(t.Context(), !loader.HasUprobeMulti())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SelfTest.Err(); err != nil {
		t.Error(err)
	}
}

func TestInspectRefuses(t *testing.T) {
	s := newStage(t)
	ended := testkit.Start(t, "/bin/cat")
	ended.CloseInput()
	ended.Wait(5 * time.Second)
	for _, c := range []struct {
		name     string
		selector probe.Selector
		want     string
	}{
		{"ended", probe.Selector{Kind: probe.SelectPID, PID: ended.PID()}, "no process"},
		{"kernel thread", probe.Selector{Kind: probe.SelectPID, PID: 2}, "thread of the kernel"},
		{"monitor", probe.Selector{Kind: probe.SelectPID, PID: s.monitor}, "never a target"},
		{"agent", probe.Selector{Kind: probe.SelectPID, PID: processNamed(t, s.monitor, agentName)}, "never a target"},
		{"our executable", probe.Selector{Kind: probe.SelectPID, PID: os.Getpid()}, "never a target"},
		{"negative", probe.Selector{Kind: probe.SelectPID, PID: -1}, "no process has the number -1"},
		{"nobody runs it", probe.Selector{Kind: probe.SelectExe, Path: "/nowhere/program"}, "no process on this node runs /nowhere/program"},
		{"no kind", probe.Selector{}, "a target of kind"},
	} {
		err := s.agent.Call("Agent.Inspect", c.selector, new(target.Identity))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want an error with %q", c.name, err, c.want)
		}
	}
}

func TestInspect(t *testing.T) {
	s := newStage(t)
	cat := testkit.Start(t, "/bin/cat")
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cat.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, selector := range []probe.Selector{{Kind: probe.SelectPID, PID: cat.PID()}, {Kind: probe.SelectExe, Path: path}} {
		var id target.Identity
		s.call("Inspect", selector, &id)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if id.PID != cat.PID() || id.Comm != "cat" || id.Path != path || id.Size != info.Size() || id.MtimeNs != info.ModTime().UnixNano() || id.StartTicks == 0 || id.Inode == 0 {
			t.Errorf("%+v: %+v", selector, id)
		}
	}
}

// TestExplain: whoever is refused a process is told what to do about it.
func TestExplain(t *testing.T) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	defer process.Close()
	s := &subject{identity: target.Identity{PID: os.Getpid()}, process: process}
	if p := problem.Of(s.explain(fs.ErrPermission)); p.Code != problem.PermissionDenied || !strings.Contains(p.Message, "choose another process") {
		t.Errorf("not permitted: %v", p)
	}
	if p := problem.Of(s.explain(fs.ErrNotExist)); p.Code != problem.FailedPrecondition {
		t.Errorf("no executable: %v", p)
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package e2e_test looks at the product from outside: real commands, real processes, the real kernel.
package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// ready is how long `keyhole dev` may take until it takes sessions; on two busy cores it needs a few seconds.
const ready = 60 * time.Second

// A dev is one running `keyhole dev` with its processes.
type dev struct {
	*testkit.Program
	t       testing.TB
	dir     string // its --dir
	config  string // its client.yaml
	address string
	binary  string
}

// startDev starts `keyhole dev` and waits until it takes sessions. Environment entries are "NAME=value". When the test ends the
// kernel must hold nothing of ours.
func startDev(t testing.TB, environment []string, flags ...string) *dev {
	t.Helper()
	testkit.RequireRoot(t)
	testkit.RequireNoKernelObjects(t, 2*time.Second) // what a test before this one left behind is not ours to explain
	t.Cleanup(func() { testkit.RequireNoKernelObjects(t, 2*time.Second) })
	d := &dev{t: t, dir: filepath.Join(t.TempDir(), "dev"), binary: testkit.BuildGo(t, "cmd/keyhole")}
	d.config = filepath.Join(d.dir, "client.yaml")
	cmd := exec.Command(d.binary, append([]string{"dev", "--dir", d.dir, "--listen", "127.0.0.1:0"}, flags...)...)
	cmd.Env = append(os.Environ(), environment...)
	d.Program = testkit.StartCommand(t, cmd)
	d.address = d.Expect("ready", ready)
	return d
}

// command makes a keyhole command for this control plane.
func (d *dev) command(args ...string) *exec.Cmd {
	cmd := exec.Command(d.binary, args...)
	cmd.Env = append(os.Environ(), "KEYHOLE_CONFIG="+d.config, "KEYHOLE_REASON=end-to-end test")
	return cmd
}

// A result is how a command ended and what it wrote.
type result struct {
	stdout, stderr string
	status         int
}

// keyhole runs a command to its end.
func (d *dev) keyhole(args ...string) result {
	d.t.Helper()
	cmd := d.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("keyhole %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// mustKeyhole is keyhole for a command that has to succeed; it returns what the command printed.
func (d *dev) mustKeyhole(args ...string) string {
	d.t.Helper()
	r := d.keyhole(args...)
	if r.status != 0 {
		d.t.Fatalf("keyhole %s: status %d\n%s\n%s", strings.Join(args, " "), r.status, r.stderr, d.Stderr())
	}
	return r.stdout
}

// An update is one line of `keyhole trace -o json`.
type update struct {
	Event   *traced  `json:"event"`
	Summary *summary `json:"summary"`
}

type traced struct {
	SessionID   string    `json:"sessionId"`
	Node        string    `json:"node"`
	Time        time.Time `json:"time"`
	Function    string    `json:"function"`
	AttachPoint string    `json:"attachPoint"`
	Process     struct {
		PID  int    `json:"pid"`
		Comm string `json:"comm"`
	} `json:"process"`
	GoroutineID string  `json:"goroutineId"`
	Arguments   []value `json:"arguments"`
}

type value struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Kind      string `json:"kind"`
	Value     string `json:"value"`
	Truncated bool   `json:"truncated"`
	Missing   string `json:"missing"`
	Redaction *struct {
		Action string `json:"action"`
		Rule   string `json:"rule"`
	} `json:"redaction"`
}

// argument returns an event's value by its path.
func (e *traced) argument(t testing.TB, name string) value {
	t.Helper()
	for _, v := range e.Arguments {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("event has no argument %q: %+v", name, e.Arguments)
	return value{}
}

// A summary is the last line; 64-bit integers are strings in its JSON.
type summary struct {
	Hits         uint64 `json:"hits,string"`
	Emitted      uint64 `json:"emitted,string"`
	Filtered     uint64 `json:"filtered,string"`
	SampledOut   uint64 `json:"sampledOut,string"`
	Throttled    uint64 `json:"throttled,string"`
	OverLimit    uint64 `json:"overLimit,string"`
	Lost         uint64 `json:"lost,string"`
	Delivered    uint64 `json:"delivered,string"`
	LostToClient uint64 `json:"lostToClient,string"`
	CountsFinal  bool   `json:"countsFinal"`
	EndedBy      string `json:"endedBy"`
}

// checkSum fails the test unless the outcomes of a finished session add up to its hits.
func (s *summary) checkSum(t testing.TB) {
	t.Helper()
	if sum := s.Emitted + s.Filtered + s.SampledOut + s.Throttled + s.OverLimit + s.Lost; sum != s.Hits {
		t.Errorf("outcomes add up to %d, hits are %d: %+v", sum, s.Hits, s)
	}
	if !s.CountsFinal {
		t.Errorf("the counts are not final: %+v", s)
	}
}

// A trace is a running `keyhole trace -o json`.
type trace struct {
	*testkit.Program
	d *dev
	t testing.TB
}

// trace starts a session and waits until it is attached: until the kernel holds one more program of ours.
func (d *dev) trace(args ...string) *trace {
	d.t.Helper()
	known := make(map[string]bool)
	for _, s := range d.sessions() {
		known[s.ID] = true
	}
	tr := &trace{testkit.StartCommand(d.t, d.command(append([]string{"trace", "-o", "json"}, args...)...)), d, d.t}
	deadline := time.Now().Add(20 * time.Second)
	for {
		for _, s := range d.sessions() {
			if !known[s.ID] && s.State == "SESSION_STATE_ATTACHED" {
				return tr
			}
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("keyhole trace %s: not attached\n%s\n%s", strings.Join(args, " "), tr.Stderr(), d.Stderr())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// next returns the next line of a trace.
func (tr *trace) next(within time.Duration) update {
	tr.t.Helper()
	var u update
	line := tr.Line(within)
	if err := json.Unmarshal([]byte(line), &u); err != nil {
		tr.t.Fatalf("line of trace: %v: %s", err, line)
	}
	return u
}

// finish reads a trace to its summary.
func (tr *trace) finish(within time.Duration) ([]*traced, *summary) {
	tr.t.Helper()
	var events []*traced
	deadline := time.Now().Add(within)
	for {
		u := tr.next(time.Until(deadline))
		if u.Summary != nil {
			return events, u.Summary
		}
		events = append(events, u.Event)
	}
}

// A shown session is what `keyhole sessions ls|show -o json` says.
type shown struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	HolderPID int    `json:"holderPid"`
	Error     string `json:"error"`
	ErrorCode string `json:"errorCode"`
	Sites     []struct {
		PID        int    `json:"pid"`
		Address    string `json:"address"`
		FileOffset string `json:"fileOffset"`
		Bytes      []byte `json:"bytes"`
	} `json:"sites"`
}

// sessions lists the sessions that have not ended.
func (d *dev) sessions() []shown {
	d.t.Helper()
	var list []shown
	for line := range strings.Lines(d.mustKeyhole("sessions", "ls", "-o", "json")) {
		var s shown
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			d.t.Fatalf("sessions ls: %v: %s", err, line)
		}
		list = append(list, s)
	}
	return list
}

// session is what is known of one session.
func (d *dev) session(id string) shown {
	d.t.Helper()
	var s shown
	if err := json.Unmarshal([]byte(d.mustKeyhole("sessions", "show", id, "-o", "json")), &s); err != nil {
		d.t.Fatalf("sessions show: %v", err)
	}
	return s
}

// pids are the processes with this name among the descendants of `keyhole dev`, itself included.
func (d *dev) pids(name string) []int {
	d.t.Helper()
	parents, names := make(map[int]int), make(map[int]string)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			continue // ESRCH: gone since it was listed
		}
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		var state string
		var parent int
		if _, err := fmt.Sscan(string(stat[end+1:]), &state, &parent); err != nil {
			d.t.Fatalf("stat of %d: %v", pid, err)
		}
		parents[pid], names[pid] = parent, string(stat[open+1:end])
	}
	var found []int
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == d.PID() && names[pid] == name {
				found = append(found, pid)
			}
		}
	}
	return found
}

// pid is the one process with this name.
func (d *dev) pid(name string) int {
	d.t.Helper()
	found := d.pids(name)
	if len(found) != 1 {
		d.t.Fatalf("%d processes are called %s", len(found), name)
	}
	return found[0]
}

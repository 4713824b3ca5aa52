// SPDX-License-Identifier: Apache-2.0

// Package devtest runs `keyhole dev` for tests and reads what the commands say, as a user's program would: real
// commands, real processes, the real kernel.
package devtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
)

// ready is how long `keyhole dev` may take until it takes sessions; on two busy cores it needs a few seconds.
const ready = 60 * time.Second

// A Dev is one running `keyhole dev` with its processes.
type Dev struct {
	*testkit.Program
	Dir     string // its --dir
	Config  string // its client.yaml
	Address string // where the control plane listens
	Binary  string // the keyhole command

	t testing.TB
}

// Start starts `keyhole dev` and waits until it takes sessions. Environment entries are "NAME=value". When the test ends the
// kernel must hold nothing of ours that it did not hold before.
func Start(t testing.TB, environment []string, flags ...string) *Dev {
	t.Helper()
	testkit.RequireRoot(t)
	before := testkit.KernelObjects(t) // of somebody's session on this machine
	t.Cleanup(func() { testkit.RequireNoKernelObjects(t, 2*time.Second, before...) })
	d := &Dev{t: t, Dir: filepath.Join(t.TempDir(), "dev"), Binary: testkit.BuildGo(t, "cmd/keyhole")}
	d.Config = filepath.Join(d.Dir, "client.yaml")
	cmd := exec.Command(d.Binary, append([]string{"dev", "--dir", d.Dir, "--listen", "127.0.0.1:0"}, flags...)...)
	cmd.Env = append(os.Environ(), environment...)
	d.Program = testkit.StartCommand(t, cmd)
	d.Address = d.Expect("ready", ready)
	return d
}

// BusyNode writes a node's ceiling whose budgets let a test call a probed function as fast as it can, in sessions that ask
// for --budget 1000%.
func BusyNode(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ceiling.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nmax: {budget: 10000%, node_budget: 10000%}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Command makes a keyhole command for this control plane.
func (d *Dev) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(d.Binary, args...)
	cmd.Env = append(os.Environ(), "KEYHOLE_CONFIG="+d.Config, "KEYHOLE_REASON=end-to-end test")
	return cmd
}

// A Result is how a command ended and what it wrote.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Run runs a command to its end.
func (d *Dev) Run(args ...string) Result {
	d.t.Helper()
	return d.RunWith(d.Config, args...)
}

// RunWith is Run with another configuration file.
func (d *Dev) RunWith(config string, args ...string) Result {
	d.t.Helper()
	cmd := d.Command(args...)
	cmd.Env = append(cmd.Env, "KEYHOLE_CONFIG="+config)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("keyhole %s: %v", strings.Join(args, " "), err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// MustRun is Run for a command that has to succeed; it returns what the command printed.
func (d *Dev) MustRun(args ...string) string {
	d.t.Helper()
	r := d.Run(args...)
	if r.Status != 0 {
		d.t.Fatalf("keyhole %s: status %d\n%s\n%s", strings.Join(args, " "), r.Status, r.Stderr, d.Stderr())
	}
	return r.Stdout
}

// An Update is one line of `keyhole trace -o json`.
type Update struct {
	Event     *Event     `json:"event"`
	Aggregate *Aggregate `json:"aggregate"`
	Summary   *Summary   `json:"summary"`
}

// An Aggregate is what a session has counted so far.
type Aggregate struct {
	Calls  uint64 `json:"calls,string"`
	Path   string `json:"path"`
	Other  uint64 `json:"other,string"`
	Groups []struct {
		Value Value  `json:"value"`
		Calls uint64 `json:"calls,string"`
	} `json:"groups"`
	Histogram *struct {
		Scale    int    `json:"scale"`
		Zero     uint64 `json:"zero,string"`
		Sum      int64  `json:"sum,string"`
		Positive struct {
			Offset int      `json:"offset"`
			Counts []string `json:"counts"`
		} `json:"positive"`
	} `json:"histogram"`
	Durations bool `json:"durations"`
}

// An Event is one call as the JSON says it.
type Event struct {
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
	Arguments   []Value `json:"arguments"`
	Results     []Value `json:"results"`
	DurationNs  uint64  `json:"durationNs,string"`

	Stack []string `json:"stack"`
}

// A Value is one captured argument.
type Value struct {
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

// Argument returns an event's value by its path.
func (e *Event) Argument(t testing.TB, name string) Value {
	t.Helper()
	for _, v := range e.Arguments {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("event has no argument %q: %+v", name, e.Arguments)
	return Value{}
}

// A Summary is the last line; 64-bit integers are strings in its JSON.
type Summary struct {
	Hits         uint64 `json:"hits,string"`
	Emitted      uint64 `json:"emitted,string"`
	Filtered     uint64 `json:"filtered,string"`
	SampledOut   uint64 `json:"sampledOut,string"`
	Throttled    uint64 `json:"throttled,string"`
	OverLimit    uint64 `json:"overLimit,string"`
	Lost         uint64 `json:"lost,string"`
	Unpaired     uint64 `json:"unpaired,string"`
	Delivered    uint64 `json:"delivered,string"`
	LostToClient uint64 `json:"lostToClient,string"`
	CountsFinal  bool   `json:"countsFinal"`
	EndedBy      string `json:"endedBy"`
	CostNs       uint64 `json:"costNs,string"`
}

// RequireSum fails the test unless the outcomes of a finished session add up to its hits.
func (s *Summary) RequireSum(t testing.TB) {
	t.Helper()
	if sum := s.Emitted + s.Filtered + s.SampledOut + s.Throttled + s.OverLimit + s.Lost + s.Unpaired; sum != s.Hits {
		t.Errorf("outcomes add up to %d, hits are %d: %+v", sum, s.Hits, s)
	}
	if !s.CountsFinal {
		t.Errorf("the counts are not final: %+v", s)
	}
}

// A Trace is a running `keyhole trace -o json`.
type Trace struct {
	*testkit.Program
	d *Dev
	t testing.TB
}

// BeginTrace starts a session and waits for nothing.
func (d *Dev) BeginTrace(args ...string) *Trace {
	d.t.Helper()
	return &Trace{testkit.StartCommand(d.t, d.Command(append([]string{"trace", "-o", "json"}, args...)...)), d, d.t}
}

// Trace starts a session and waits until it is attached, and captures.
func (d *Dev) Trace(args ...string) *Trace {
	d.t.Helper()
	known := make(map[string]bool)
	for _, s := range d.Sessions() {
		known[s.ID] = true
	}
	tr := d.BeginTrace(args...)
	deadline := time.Now().Add(20 * time.Second)
	for {
		for _, s := range d.Sessions() {
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

// Next returns the next line of a trace.
func (tr *Trace) Next(within time.Duration) Update {
	tr.t.Helper()
	var u Update
	line := tr.Line(within)
	if err := json.Unmarshal([]byte(line), &u); err != nil {
		tr.t.Fatalf("line of trace: %v: %s", err, line)
	}
	return u
}

// Finish reads a trace to its summary.
func (tr *Trace) Finish(within time.Duration) ([]*Event, *Summary) {
	tr.t.Helper()
	var events []*Event
	deadline := time.Now().Add(within)
	for {
		u := tr.Next(time.Until(deadline))
		if u.Summary != nil {
			return events, u.Summary
		}
		events = append(events, u.Event)
	}
}

// A Session is what `keyhole sessions ls|show -o json` says.
type Session struct {
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

// Sessions lists the sessions that have not ended.
func (d *Dev) Sessions() []Session {
	d.t.Helper()
	var list []Session
	for line := range strings.Lines(d.MustRun("sessions", "ls", "-o", "json")) {
		var s Session
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			d.t.Fatalf("sessions ls: %v: %s", err, line)
		}
		list = append(list, s)
	}
	return list
}

// Session is what is known of one session.
func (d *Dev) Session(id string) Session {
	d.t.Helper()
	var s Session
	if err := json.Unmarshal([]byte(d.MustRun("sessions", "show", id, "-o", "json")), &s); err != nil {
		d.t.Fatalf("sessions show: %v", err)
	}
	return s
}

// PIDs are the processes with this name among the descendants of `keyhole dev`, itself included.
func (d *Dev) PIDs(name string) []int {
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
	slices.Sort(found)
	return found
}

// ProcessID is the one process with this name.
func (d *Dev) ProcessID(name string) int {
	d.t.Helper()
	found := d.PIDs(name)
	if len(found) != 1 {
		d.t.Fatalf("%d processes are called %s", len(found), name)
	}
	return found[0]
}

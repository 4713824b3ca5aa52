// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/canarytest"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
)

// canaryHits is how many calls are made with secrets, in all sessions together.
func canaryHits() int {
	if os.Getenv("KEYHOLE_LONG") != "" {
		return 1_000_000
	}
	return 20_000
}

// A canarySession is one session of the test: one program under one action.
type canarySession struct {
	*canarytest.Running
	trace   *devtest.Trace
	holder  int
	first   *devtest.Event
	summary *devtest.Summary
	output  map[string]int // what was found in the client's output
}

// places are where secrets were looked for, each with those found there.
type places map[string]map[string]string

// look searches everything that is ours outside the kernel's own memory, and what user space can read of that. Processes of one name are one place.
func look(t testing.TB, d *devtest.Dev, sessions []*canarySession, needles *testkit.Needles, when string, found places) {
	t.Helper()
	search := func(place string, pid int) {
		if found[place] == nil {
			found[place] = make(map[string]string)
		}
		maps.Copy(found[place], needles.InMemory(t, pid))
	}
	for _, name := range []string{"keyhole-monitor", "keyhole-agent"} {
		search(when+": "+name, d.ProcessID(name))
	}
	search(when+": control plane", d.PID())
	for _, s := range sessions {
		search(when+": kh-holder", s.holder)
		for name, b := range testkit.MapContents(t, s.holder) {
			found.in(when+": map "+name, needles, b)
		}
	}
}

// in searches bytes of a place.
func (p places) in(place string, needles *testkit.Needles, b []byte) {
	if p[place] == nil {
		p[place] = make(map[string]string)
	}
	for name, count := range needles.In(b) {
		p[place][name] = fmt.Sprintf("%d places", count)
	}
}

// TestNoRedactedByteLeavesTheKernel passes a secret of every kind of value under every action, at one time, and looks for all of them
// everywhere. Only those that a rule keeps may be found, and have to be, wherever values belong.
func TestNoRedactedByteLeavesTheKernel(t *testing.T) {
	if testkit.RaceDetector {
		t.Skip("with the race detector each process has terabytes of memory to search: make test runs this without it")
	}
	receiver := startReceiver(t)
	var rules strings.Builder
	rules.WriteString("version: 1\nrules:\n")
	for _, r := range canarytest.Rules() {
		fmt.Fprintf(&rules, "  - {id: %s, executable: '%s', action: '%s'}\n", r.ID, r.Match.Executable, r.Action)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d := devtest.Start(t, receiver.Environment(), "--redaction", filepath.Join(dir, "rules.yaml"), "--ceiling", devtest.BusyNode(t))
	needles := testkit.NewNeedles()
	reason := canarytest.RandomText(t)
	needles.Add("reason", []byte(reason))

	var sessions []*canarySession
	for _, r := range canarytest.Start(t, dir, needles) {
		if sessions = append(sessions, trace(d, r, reason)); len(sessions)%4 == 0 {
			waitAttached(t, d, sessions) // a node looks at few processes at once
		}
	}
	waitAttached(t, d, sessions)
	keeper := testkit.Start(t, testkit.BuildGo(t, "test/targets/canary"))
	keeper.Expect("ready", 10*time.Second)
	for _, s := range sessions {
		key := testkit.DigestKey(t, s.holder)
		needles.Add("key of "+s.Name, key)
		keeper.Send("hold " + hex.EncodeToString(key))
		keeper.Expect("ok", 10*time.Second)
	}
	var reading sync.WaitGroup
	for _, s := range sessions {
		reading.Go(func() { s.collect(needles) })
	}

	// Events wait undecoded: the readers stand still.
	found := make(places)
	for _, s := range sessions {
		stop(t, s.holder, syscall.SIGSTOP)
	}
	for _, s := range sessions {
		s.Call(50)
	}
	look(t, d, sessions, needles, "waiting", found)
	for _, s := range sessions {
		stop(t, s.holder, syscall.SIGCONT)
	}
	for _, s := range sessions {
		s.Call(canaryHits() / len(sessions))
	}
	// Clients that stand still leave events in the control plane: more than what lies between it and them takes.
	signalClients(t, sessions, syscall.SIGSTOP)
	for _, s := range sessions {
		if s.Action.Kind == redact.Keep {
			s.Call(3000)
		} else {
			s.Call(100)
		}
	}
	waitEmpty(t, d, sessions)
	look(t, d, sessions, needles, "decoded", found)
	signalClients(t, sessions, syscall.SIGCONT)

	d.MustRun("stop", "--all")
	reading.Wait()
	for _, s := range sessions {
		s.require(t)
		for name, n := range s.output {
			found.in("output of trace", needles, nil)
			found["output of trace"][name] = fmt.Sprintf("%d places", n)
		}
		found.in("errors of trace", needles, []byte(s.trace.Stderr()))
	}
	found.in("log of keyhole dev", needles, []byte(d.Stderr()))
	found.in("spans", needles, received(t, receiver))
	found.in("audit records", needles, []byte(d.MustRun("audit", "ls", "-o", "json")))
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found.in("files: "+e.Name(), needles, files(t, filepath.Join(d.Dir, e.Name())))
	}
	found["keeper of keys"] = needles.InMemory(t, keeper.PID())
	requirePlaces(t, found, sessions)
}

// trace begins a session of a program. A reason on record is what is looked for where values never are.
func trace(d *devtest.Dev, r *canarytest.Running, reason string) *canarySession {
	args := []string{fmt.Sprintf("pid/%d", r.PID()), r.Of.Function, "--budget", "1000%", "--rate", "1000000/s", "--max-bytes", "1073741824", "--for", "15m"}
	for _, v := range r.Of.Values {
		flag := "--arg"
		if v.Result {
			flag = "--ret"
		}
		args = append(args, flag, v.Path)
	}
	if r.Action.Kind == redact.Keep {
		args = append(args, "--reason", "order "+reason)
	}
	return &canarySession{Running: r, trace: d.BeginTrace(args...), output: make(map[string]int)}
}

// waitAttached waits until all sessions capture, and learns who holds each.
func waitAttached(t *testing.T, d *devtest.Dev, sessions []*canarySession) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		waiting := len(sessions)
		for _, known := range d.Sessions() {
			for _, s := range sessions {
				if known.State == "SESSION_STATE_ATTACHED" && len(known.Sites) > 0 && known.Sites[0].PID == s.PID() {
					s.holder = known.HolderPID
					waiting--
				}
			}
		}
		if waiting == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, s := range sessions {
				if s.holder == 0 {
					t.Errorf("%s is not attached: %s", s.Name, s.trace.Stderr())
				}
			}
			t.Fatal(d.Stderr())
		}
	}
}

// collect reads a trace to its end, and looks for secrets in all that it prints.
func (s *canarySession) collect(needles *testkit.Needles) {
	for line := range s.trace.Lines() {
		for name, n := range needles.In([]byte(line)) {
			s.output[name] += n
		}
		if s.first != nil && !strings.Contains(line, `"summary"`) {
			continue
		}
		var u devtest.Update
		if json.Unmarshal([]byte(line), &u) != nil {
			continue
		}
		if u.Event != nil && s.first == nil {
			s.first = u.Event
		}
		if u.Summary != nil {
			s.summary = u.Summary
		}
	}
}

// require wants the counts to be right, and of each value the action that is due.
func (s *canarySession) require(t *testing.T) {
	t.Helper()
	if s.summary == nil || s.first == nil {
		t.Fatalf("%s: no event, or no summary\n%s", s.Name, s.trace.Stderr())
	}
	s.summary.RequireSum(t)
	if s.summary.Hits != uint64(s.Calls) || s.summary.Emitted == 0 {
		t.Errorf("%s: %d calls were made; the session counts %+v", s.Name, s.Calls, s.summary)
	}
	for _, row := range s.Of.Values {
		values := s.first.Arguments
		if row.Result {
			values = s.first.Results
		}
		at := slices.IndexFunc(values, func(v devtest.Value) bool { return v.Name == row.Path })
		if at < 0 {
			t.Errorf("%s: the event has no %s: %+v", s.Name, row.Path, s.first)
			continue
		}
		kind := strings.TrimPrefix(strings.ToLower(row.Kind), "kind")
		v, want := values[at], s.Action.For(kind).String()
		switch {
		case row.Never != "":
		case want == "keep" && v.Kind != strings.TrimPrefix(kind, "c"):
			t.Errorf("%s: %s is %s, not %s", s.Name, row.Path, v.Kind, row.Kind)
		case want == "keep" && v.Missing != "":
			t.Errorf("%s: %s is kept, and missing: %+v", s.Name, row.Path, v)
		case want != "keep" && (v.Redaction == nil || v.Redaction.Action != want):
			t.Errorf("%s: %s has another action than %s: %+v", s.Name, row.Path, want, v)
		}
	}
}

// requirePlaces wants to find in every place what belongs there, and nothing else.
func requirePlaces(t *testing.T, found places, sessions []*canarySession) {
	t.Helper()
	values := []string{"waiting: map kh_ring", "waiting: kh-holder", "decoded: map kh_ring", "decoded: kh-holder", "decoded: keyhole-agent", "decoded: control plane", "spans", "output of trace"}
	reasons := []string{"waiting: keyhole-monitor", "waiting: keyhole-agent", "waiting: control plane", "audit records", "files: control-plane"}
	keys := []string{"waiting: map kh_config", "decoded: map kh_config", "keeper of keys"}
	want := make(places)
	expect := func(places []string, name string) {
		for _, place := range places {
			if want[place] == nil {
				want[place] = make(map[string]string)
			}
			want[place][name] = "yes"
			if _, searched := found[place]; !searched {
				t.Errorf("%s was not searched", place)
			} else if found[place][name] == "" {
				t.Errorf("%s is not found in %s: the search there proves nothing of it", name, place)
			}
		}
	}
	expect(reasons, "reason")
	for _, s := range sessions {
		expect(keys, "key of "+s.Name)
		if s.Action.Kind != redact.Keep {
			continue
		}
		for _, secret := range s.Secrets() {
			expect(values, secret)
		}
	}
	for place, names := range found {
		t.Logf("%-28s %d secrets", place, len(names))
		for name, where := range names {
			if name != "reason" && want[place][name] == "" {
				t.Errorf("%s is in %s, where it does not belong: %s", name, place, where)
			}
		}
	}
}

// signalClients stops or continues the commands that show events.
func signalClients(t *testing.T, sessions []*canarySession, what syscall.Signal) {
	t.Helper()
	for _, s := range sessions {
		stop(t, s.trace.PID(), what)
	}
}

// waitEmpty waits until the readers have taken everything out of their rings.
func waitEmpty(t *testing.T, d *devtest.Dev, sessions []*canarySession) {
	t.Helper()
	for _, s := range sessions {
		for deadline := time.Now().Add(time.Minute); testkit.RingPending(t, s.holder) > 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the ring of %s is not empty\n%s", s.Name, d.Stderr())
			}
		}
	}
	time.Sleep(500 * time.Millisecond) // for the last batch on its way to the client
}

// files is what all files below a directory hold: the log's tiles, the spool, the store, the keys.
func files(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func stop(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

func startReceiver(t *testing.T) *otlptest.Receiver {
	t.Helper()
	receiver, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	return receiver
}

// received is all that came to the receiver, as it came.
func received(t *testing.T, receiver *otlptest.Receiver) []byte {
	t.Helper()
	var all []byte
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, s := range receiver.Spans() {
		add(s.Span)
		add(s.Resource)
	}
	for _, r := range receiver.LogRecords() {
		add(r.LogRecord)
		add(r.Resource)
	}
	return all
}

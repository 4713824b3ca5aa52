// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/canarytest"
)

// TestKernelCanaries hands secrets to functions of the kernel, as strings of a process's and as strings of the kernel's own, under every action, and
// looks for them as TestCanaries does. The sessions follow one another, since each sees the calls of all processes.
func TestKernelCanaries(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector each of these processes has terabytes of memory to search; make test runs this without it")
	}
	if unsupported := loader.KernelSupported(); unsupported != nil {
		t.Skip("the kernel is no target here, as TestKernelSession wants it said: ", unsupported)
	}
	const calls = 2000 // in all sessions together
	s := prepareStage(t)
	s.ceiling += "\nkernel: {readMemory: true}"
	s.begin()
	opens := "do_filp_open"
	if symbols, err := os.ReadFile("/proc/kallsyms"); err != nil || !strings.Contains(string(symbols), " "+opens+"\n") {
		opens = "do_file_open" // as Linux 7 calls it
	}
	needles := testkit.NewNeedles()
	var kept []string
	for kind, action := range canarytest.Actions {
		for form, spec := range map[string]struct{ function, path string }{
			"a process's": {"do_sys_openat2", "filename"},
			"its own":     {opens, "pathname.name"},
		} {
			name := kind + ", " + form
			secret := canarytest.RandomText(t)
			needles.Add(name, []byte(secret))
			isKept := action.Kind == redact.Keep
			if isKept {
				kept = append(kept, name)
			}
			s.kernelCanary(kernelCanary{
				name: name, function: spec.function, path: spec.path, action: action, needles: needles, kept: kept,
				calls: calls / (2 * len(canarytest.Actions)), secret: secret,
			})
		}
	}
}

// A kernelCanary is one session of TestKernelCanaries.
type kernelCanary struct {
	name, function, path string
	action               redact.Action
	secret               string
	calls                int
	needles              *testkit.Needles
	kept                 []string // the names of all secrets that were let out so far
}

func (s *stage) kernelCanary(c kernelCanary) {
	t := s.t
	t.Helper()
	rules, err := redact.Shipped().WithOwner([]redact.Rule{{ID: "canary/kernel", Match: redact.Match{Function: c.function}, Action: c.action}})
	if err != nil {
		t.Fatal(err)
	}
	s.authority.rules = rules
	rulesJSON, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	spec := kernelSpec(c.function, c.path)
	spec.Limits.TTL = 10 * time.Minute
	session := s.newSession()
	var reply HoldReply
	s.call("Hold", HoldArgs{Session: session, Spec: spec, Envelope: s.authority.grant(session, spec), Rules: rulesJSON}, &reply)
	holder := reply.PID
	c.needles.Add("key of "+c.name, testkit.DigestKey(t, holder))
	path := "/" + c.secret
	if c.action.Kind == redact.Detect {
		path = "/sk_live_" + c.secret // all of which but the slash is a key
	}
	open := func(times int) {
		for range times {
			if f, err := os.Open(path); err == nil {
				f.Close()
				t.Fatalf("%s is a file", path)
			}
		}
	}
	signal := func(what syscall.Signal) {
		if err := syscall.Kill(holder, what); err != nil {
			t.Fatal(err)
		}
	}
	mine := c.action.Kind == redact.Keep
	agent := processNamed(t, s.monitor, "keyhole-agent")
	look := func(when string) {
		inRing := false
		for name, b := range testkit.MapContents(t, holder) {
			for secret := range c.needles.In(b) {
				switch {
				case name == "kh_ring" && secret == c.name && mine:
					inRing = true
				case name == "kh_config" && secret == "key of "+c.name:
				default:
					t.Errorf("%s, %s: %s is in map %s", c.name, when, secret, name)
				}
			}
		}
		if mine && !inRing {
			t.Errorf("%s, %s: it is kept, and not found in the ring: the search there proves nothing of it", c.name, when)
		}
		for place, pid := range map[string]int{"keyhole-monitor": s.monitor, "keyhole-agent": agent, "kh-holder": holder} {
			found := c.needles.InMemory(t, pid)
			for secret, where := range found {
				allowed := place != "keyhole-monitor" && slices.Contains(c.kept, secret)
				if !allowed {
					t.Errorf("%s, %s: %s is in %s: %s", c.name, when, secret, place, where)
				}
			}
			if _, ok := found[c.name]; mine && when == "read" && place != "keyhole-monitor" && !ok {
				t.Errorf("%s, %s: it is kept, and not found in %s: the search there proves nothing of it", c.name, when, place)
			}
		}
	}
	signal(syscall.SIGSTOP)
	open(20)
	look("waiting")
	signal(syscall.SIGCONT)
	open(c.calls - 20)
	for deadline := time.Now().Add(testkit.Slow(time.Minute)); testkit.RingPending(t, holder) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: the ring is not empty", c.name)
		}
	}
	time.Sleep(testkit.Slow(200 * time.Millisecond)) // for the last batch on its way to the agent
	look("read")
	s.call("Stop", session, new(struct{}))
	r := s.wait(session)
	if n := r.Final.Counts; r.Err != "" || r.Final.EndedBy != event.EndStopped || n.Emitted < uint64(c.calls) {
		t.Errorf("%s ended with %+v after %d calls: %s", c.name, r.Final, c.calls, strings.TrimSpace(r.Err))
	}
}

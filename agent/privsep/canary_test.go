// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/canarytest"
)

// TestCanaries passes secrets of every kind of value under every action, and looks for them in the pages of the rings, in all other maps and in all
// memory of monitor, agent and holders: while events wait, and when they were read. Those under keep have to be found, and no others.
// It needs no control plane; test/e2e looks into more places.
func TestCanaries(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector each of these processes has terabytes of memory to search; make test runs this without it")
	}
	const calls = 2000 // in all sessions together
	s := newStage(t)
	rules, err := redact.Shipped().WithOwner(canarytest.Rules())
	if err != nil {
		t.Fatal(err)
	}
	s.authority.rules = rules
	rulesJSON, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	needles := testkit.NewNeedles()
	all := canarytest.Start(t, t.TempDir(), needles)
	kept := make(map[string]bool)
	sessions, holders := make([]string, len(all)), make([]int, len(all))
	for i, r := range all {
		spec := probe.Spec{
			Target: probe.Selector{Kind: probe.SelectPID, PID: r.PID()}, Function: r.Of.Function,
			Limits: probe.Limits{TTL: 10 * time.Minute, Rate: probe.MaxRate, Budget: probe.MaxBudget, MaxBytes: probe.MaxBytes}, Reason: "test of redaction",
		}
		for _, v := range r.Of.Values {
			if v.Result {
				spec.Results = append(spec.Results, v.Path)
			} else {
				spec.Arguments = append(spec.Arguments, v.Path)
			}
		}
		var reply HoldReply
		sessions[i] = s.newSession()
		s.call("Hold", HoldArgs{Session: sessions[i], Spec: spec, Envelope: s.authority.grant(sessions[i], spec), Rules: rulesJSON}, &reply)
		holders[i] = reply.PID
		needles.Add("key of "+r.Name, testkit.DigestKey(t, reply.PID))
		if r.Action.Kind == redact.Keep {
			for _, secret := range r.Secrets() {
				kept[secret] = true
			}
		}
	}
	agent := processNamed(t, s.monitor, "keyhole-agent")
	look := func(when string) {
		inMemory, inRings := make(map[string]bool), make(map[string]bool)
		require := func(place string, found map[string]string, belongs func(name string) bool) {
			for name, where := range found {
				if !belongs(name) {
					t.Errorf("%s: %s is in %s: %s", when, name, place, where)
				}
			}
		}
		isKept := func(name string) bool { return kept[name] }
		require("keyhole-monitor", needles.InMemory(t, s.monitor), func(string) bool { return false })
		for place, pids := range map[string][]int{"keyhole-agent": {agent}, "kh-holder": holders} {
			for _, pid := range pids {
				found := needles.InMemory(t, pid)
				require(place, found, isKept)
				for name := range found {
					inMemory[place+" "+name] = true
				}
			}
		}
		for i, holder := range holders {
			for name, b := range testkit.MapContents(t, holder) {
				found := make(map[string]string)
				for secret := range needles.In(b) {
					found[secret] = "its bytes"
					inRings[name+" "+secret] = true
				}
				require("map "+name, found, func(secret string) bool {
					return name == "kh_ring" && kept[secret] || name == "kh_config" && secret == "key of "+all[i].Name
				})
			}
			if !inRings["kh_config key of "+all[i].Name] {
				t.Errorf("%s: the key of %s is not found where it is", when, all[i].Name)
			}
		}
		for name := range kept {
			if !inRings["kh_ring "+name] {
				t.Errorf("%s: %s is kept, and not found in the ring: the search there proves nothing of it", when, name)
			}
			for _, place := range []string{"kh-holder", "keyhole-agent"} {
				if when == "read" && !inMemory[place+" "+name] {
					t.Errorf("%s: %s is kept, and not found in %s: the search there proves nothing of it", when, name, place)
				}
			}
		}
	}
	signal := func(what syscall.Signal) {
		for _, holder := range holders {
			if err := syscall.Kill(holder, what); err != nil {
				t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	for _, r := range all {
		r.Call(20)
	}
	look("waiting")
	signal(syscall.SIGCONT)
	for _, r := range all {
		r.Call(calls/len(all) - 20)
	}
	for i, holder := range holders {
		for deadline := time.Now().Add(testkit.Slow(time.Minute)); testkit.RingPending(t, holder) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the ring of %s is not empty", all[i].Name)
			}
		}
	}
	time.Sleep(testkit.Slow(500 * time.Millisecond)) // for the last batch on its way to the agent
	look("read")
	for i, session := range sessions {
		s.call("Stop", session, new(struct{}))
		r := s.wait(session)
		if c := r.Final.Counts; r.Err != "" || c.Hits != uint64(all[i].Calls) || c.Emitted == 0 {
			t.Errorf("%s ended with %+v after %d calls: %s", all[i].Name, r.Final, all[i].Calls, strings.TrimSpace(r.Err))
		}
	}
}

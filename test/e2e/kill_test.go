// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// restored waits until a process's text is what it was and the kernel holds no more of ours than the others, and fails the
// test if that is not so by a time.
func restored(t *testing.T, pid int, before testkit.Text, others []string, by time.Time) {
	t.Helper()
	for {
		differences := before.Differences(testkit.ReadText(t, pid))
		if len(differences) == 0 {
			break
		}
		if time.Now().After(by) {
			t.Fatalf("the text of process %d is not what it was:\n  %s", pid, strings.Join(differences, "\n  "))
		}
		time.Sleep(time.Millisecond)
	}
	testkit.RequireNoKernelObjects(t, time.Until(by), others...)
}

// probed fails the test unless a breakpoint is in the text: what is to be restored has to be there first.
func probed(t *testing.T, pid int, before testkit.Text) {
	t.Helper()
	if len(before.Differences(testkit.ReadText(t, pid))) == 0 {
		t.Fatalf("no breakpoint in the text of process %d", pid)
	}
}

// startVault starts the target that is handed secrets.
func startVault(t *testing.T) *testkit.Program {
	t.Helper()
	vault := testkit.Start(t, testkit.BuildGo(t, "test/targets/vault"))
	vault.Expect("ready", 10*time.Second)
	vault.Send("secret 0123456789abcdef")
	vault.Expect("ok", 10*time.Second)
	return vault
}

// call makes n calls of the function that is probed.
func call(p *testkit.Program, n int) {
	p.Send(fmt.Sprintf("call %d", n))
	p.Expect("called", 30*time.Second)
}

// TestKill kills each kind of process while a probe is attached: within a second nothing of the probe is left.
func TestKill(t *testing.T) {
	for _, who := range []string{"kh-holder", "keyhole-monitor", "keyhole-agent", "keyhole"} {
		t.Run(who, func(t *testing.T) {
			dev := devtest.Start(t, nil)
			vault := startVault(t)
			before, others := testkit.ReadText(t, vault.PID()), testkit.KernelObjects(t)
			dev.Trace("pid/"+strconv.Itoa(vault.PID()), "main.Open", "--for", "1m")
			call(vault, 10)
			probed(t, vault.PID(), before)
			victim := dev.ProcessID(who)
			killed := time.Now()
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			restored(t, vault.PID(), before, others, killed.Add(time.Second))
			call(vault, 10) // the target has taken no harm
		})
	}
}

// TestStoppedAcrossDeadline stops agent and holder, so that neither can end the session at its deadline.
func TestStoppedAcrossDeadline(t *testing.T) {
	dev := devtest.Start(t, nil)
	vault := startVault(t)
	before, others := testkit.ReadText(t, vault.PID()), testkit.KernelObjects(t)
	const ttl = 3 * time.Second
	trace := dev.Trace("pid/"+strconv.Itoa(vault.PID()), "main.Open", "--for", ttl.String(), "--rate", "1000000/s")
	attached := time.Now() // or a moment ago
	call(vault, 10)
	agent := dev.ProcessID("keyhole-agent")
	for _, pid := range []int{agent, dev.ProcessID("kh-holder")} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for time.Since(attached) < ttl+500*time.Millisecond {
		call(vault, 10)
	}
	restored(t, vault.PID(), before, others, attached.Add(ttl+2*time.Second))
	if err := syscall.Kill(agent, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	events, sum := trace.Finish(20 * time.Second)
	if sum.EndedBy != "deadline" {
		t.Errorf("the session ended with %+v", sum)
	}
	for _, e := range events {
		if e.Time.After(attached.Add(ttl)) {
			t.Errorf("an event at %v, %v after the attach", e.Time, e.Time.Sub(attached))
		}
	}
}

// TestEveryOrder probes one function in three sessions and ends them in every order.
func TestEveryOrder(t *testing.T) {
	dev := devtest.Start(t, nil)
	vault := startVault(t)
	before, others := testkit.ReadText(t, vault.PID()), testkit.KernelObjects(t)
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var ids [3]string
		var traces [3]*devtest.Trace
		for i := range traces {
			known := dev.Sessions()
			traces[i] = dev.Trace("pid/"+strconv.Itoa(vault.PID()), "main.Open", "--for", "1m")
			ids[i] = newSession(t, known, dev.Sessions())
		}
		for n, i := range order {
			probed(t, vault.PID(), before)
			call(vault, 1)
			dev.MustRun("stop", ids[i])
			_, sum := traces[i].Finish(10 * time.Second)
			if sum.Hits != uint64(n+1) || sum.EndedBy != "stopped" {
				t.Errorf("order %v: session %d ended with %+v", order, i, sum)
			}
			sum.RequireSum(t)
		}
		restored(t, vault.PID(), before, others, time.Now().Add(time.Second))
	}
}

// newSession is the session that is in the later list and not in the earlier one.
func newSession(t *testing.T, earlier, later []devtest.Session) string {
	t.Helper()
	known := make(map[string]bool)
	for _, s := range earlier {
		known[s.ID] = true
	}
	for _, s := range later {
		if !known[s.ID] {
			return s.ID
		}
	}
	t.Fatal("no new session is listed")
	return ""
}

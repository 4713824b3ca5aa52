// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestDevStartsTheAgentAgain kills the monitor: its session is over, the probe gone, and soon there is an agent again.
func TestDevStartsTheAgentAgain(t *testing.T) {
	d := devtest.Start(t, nil)
	vault := startVault(t)
	text := testkit.ReadText(t, vault.PID())
	target := fmt.Sprintf("pid/%d", vault.PID())
	tr := d.Trace(target, "main.Open", "--arg", "n", "--for", "2m")
	first := d.ProcessID("keyhole-monitor")
	stop(t, first, syscall.SIGKILL)
	if events, sum := tr.Finish(30 * time.Second); sum.EndedBy != "agent_lost" || len(events) != 0 {
		t.Errorf("the session ended with %d events and %+v", len(events), sum)
	}
	if status := tr.Wait(10 * time.Second); status != 1 {
		t.Errorf("a trace that lost its agent is status %d; want 1", status)
	}
	if !strings.Contains(d.Stderr(), "starting it again") {
		t.Errorf("keyhole dev says nothing of it:\n%s", d.Stderr())
	}
	if changed := text.Differences(testkit.ReadText(t, vault.PID())); len(changed) > 0 {
		t.Errorf("the vault's text is not what it was: %v", changed)
	}
	again := d.Trace(target, "main.Open", "--arg", "n", "--max-hits", "1")
	if d.ProcessID("keyhole-monitor") == first {
		t.Error("the monitor that was killed still runs")
	}
	vault.Send("call 1")
	vault.Expect("called", 10*time.Second)
	if events, _ := again.Finish(20 * time.Second); len(events) != 1 {
		t.Errorf("the new agent shows %d events", len(events))
	}
}

// TestDevEndsAndBeginsAgain ends it in the middle of a session, and starts it again on the same state.
func TestDevEndsAndBeginsAgain(t *testing.T) {
	vault := startVault(t)
	text := testkit.ReadText(t, vault.PID())
	d := devtest.Start(t, nil)
	tr := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--for", "2m")
	children := append(d.PIDs("keyhole-monitor"), append(d.PIDs("keyhole-agent"), d.PIDs("kh-holder")...)...)
	if len(children) != 3 {
		t.Fatalf("a monitor, an agent and a holder are %d processes", len(children))
	}
	d.Signal(syscall.SIGTERM)
	if status := d.Wait(15 * time.Second); status != 0 {
		t.Errorf("keyhole dev ended with status %d\n%s", status, d.Stderr())
	}
	tr.Wait(15 * time.Second)
	for _, pid := range children {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("process %d is still there (%v)", pid, err)
		}
	}
	if changed := text.Differences(testkit.ReadText(t, vault.PID())); len(changed) > 0 {
		t.Errorf("the vault's text is not what it was: %v", changed)
	}
	again := testkit.Start(t, d.Binary, "dev", "--dir", d.Dir, "--listen", "127.0.0.1:0")
	address := again.Expect("ready", time.Minute)
	if out := d.MustRun("audit", "verify"); !strings.Contains(out, "audit verified") || strings.Contains(out, "not closed") {
		t.Errorf("after the second start: %s", out)
	}
	if out := d.MustRun("sessions", "ls", "--all"); !strings.Contains(out, "ended") {
		t.Errorf("the session of the first start is forgotten:\n%s", out)
	}

	// Who starts another one on the same state, or in the same place, is told within a second.
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--dir", d.Dir, "--listen", "127.0.0.1:0"}, 7, "another keyhole dev runs in " + d.Dir},
		{[]string{"--dir", filepath.Join(t.TempDir(), "other"), "--listen", address}, 2, "address already in use"},
	} {
		begin := time.Now()
		r := d.Run(append([]string{"dev"}, c.args...)...)
		if r.Status != c.status || !strings.Contains(r.Stderr, c.says) || r.Stdout != "" {
			t.Errorf("keyhole dev %q: status %d\n%s", c.args, r.Status, r.Stderr)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("keyhole dev %q took %v to say so", c.args, took)
		}
	}
}

// TestDevSaysWhoItNeeds starts it as nobody.
func TestDevSaysWhoItNeeds(t *testing.T) {
	testkit.RequireRoot(t)
	binary, err := os.Open(testkit.BuildGo(t, "cmd/keyhole"))
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	cmd := exec.Command("/proc/self/fd/3", "dev", "--dir", "/tmp/keyhole-of-nobody") // nobody may not look into the directory that it is in
	cmd.ExtraFiles = []*os.File{binary}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err = cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || !strings.HasPrefix(stderr.String(), "keyhole: PERMISSION_DENIED: keyhole dev must be started by root") {
		t.Errorf("%v: %s", err, stderr.String())
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("took %v to say so", took)
	}
}

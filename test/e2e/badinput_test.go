// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestBadRequests makes requests that cannot be carried out, one after the other, beside a session that must not notice. Each gets its status
// and a text that names the next step, is on record, and attaches nothing.
func TestBadRequests(t *testing.T) {
	d := devtest.Start(t, nil)
	vault := startVault(t)
	target := fmt.Sprintf("pid/%d", vault.PID())
	bystander := d.Trace(target, "main.Open", "--arg", "n", "--rate", "1000000/s", "--for", "2m")
	text := testkit.ReadText(t, vault.PID())
	holders := d.PIDs("kh-holder")

	gone := testkit.Start(t, "/bin/true")
	gone.Wait(5 * time.Second)
	cut := testkit.Start(t, cutShort(t, testkit.BuildGo(t, "test/targets/vault")))
	cut.Expect("ready", 10*time.Second)
	stripped := testkit.Start(t, testkit.BuildC(t, "inventory", []string{"test/foreign/inventory.c"}, "-O2", "-s"))
	stripped.Expect("ready", 10*time.Second)

	many := []string{"trace", target, "main.Open"}
	for i := range 10_000 {
		many = append(many, "--arg", fmt.Sprintf("a%d", i))
	}
	for _, c := range []struct {
		name   string
		args   []string
		status []int
		says   []string // at least one of these, on standard error
		local  bool     // refused by the command itself: there is nothing to record
	}{
		{"unknown function", []string{"trace", target, "main.Opne"}, []int{4}, []string{"main.Open"}, false},
		{"unknown argument", []string{"trace", target, "main.Open", "--arg", "acount"}, []int{4}, []string{"account"}, false},
		{"no such process", []string{"trace", fmt.Sprintf("pid/%d", gone.PID()), "main.Open"}, []int{4}, []string{"process"}, false},
		{"no such executable", []string{"trace", "exe/no/such/file", "main.Open"}, []int{4}, []string{"no/such/file"}, false},
		{"no such node", []string{"trace", target, "main.Open", "--node", "elsewhere"}, []int{4}, []string{"elsewhere"}, false},
		{"executable cut short", []string{"trace", fmt.Sprintf("pid/%d", cut.PID()), "main.Open"}, []int{4, 7}, []string{"symbol", "section", "ELF", "stripped"}, false},
		{"stripped executable", []string{"trace", fmt.Sprintf("pid/%d", stripped.PID()), "take"}, []int{4, 7}, []string{"strip", "debug"}, false},
		{"ten thousand arguments", many, []int{2}, []string{"32"}, true},
		{"long path", []string{"trace", target, "main.Open", "--arg", strings.Repeat("a.", 32<<10)}, []int{2}, []string{"256"}, true},
		{"condition on a redacted field", []string{"trace", target, "main.Open", "--where", `account == "x"`}, []int{2}, []string{"account"}, false},
		{"our own agent", []string{"trace", fmt.Sprintf("pid/%d", d.ProcessID("keyhole-agent")), "main.main"}, []int{3}, []string{"keyhole"}, false},
		{"not a target", []string{"trace", "pod/x", "main.Open"}, []int{2}, []string{"pid/"}, true},
		{"no time", []string{"trace", target, "main.Open", "--for", "25h"}, []int{2, 3}, []string{"3600s", "1h", "15m"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			records := audited(t, d)
			begin := time.Now()
			if !slices.Contains(c.args, "--for") {
				c.args = append(c.args, "--for", "5s") // what should not begin would end
			}
			r := d.Run(c.args...)
			if !slices.Contains(c.status, r.Status) {
				t.Errorf("status %d; want one of %v\n%s", r.Status, c.status, r.Stderr)
			}
			if !strings.HasPrefix(r.Stderr, "keyhole: ") || !containsAny(r.Stderr, c.says) {
				t.Errorf("standard error does not begin with keyhole: or names none of %q:\n%.2000s", c.says, r.Stderr)
			}
			if r.Stdout != "" {
				t.Errorf("standard output holds %q", r.Stdout)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if now := d.PIDs("kh-holder"); !slices.Equal(now, holders) {
				t.Errorf("the holders are %v, before they were %v", now, holders)
			}
			if d := text.Differences(testkit.ReadText(t, vault.PID())); len(d) > 0 {
				t.Errorf("the target's text has changed: %v", d)
			}
			if !c.local {
				awaitRecord(t, d, len(records))
			}
		})
	}

	vault.Send("call 1000")
	vault.Expect("called", 10*time.Second)
	d.MustRun("stop", "--all")
	if _, sum := bystander.Finish(10 * time.Second); sum.Hits != 1000 || sum.EndedBy != "stopped" {
		t.Errorf("the session beside all this counts %+v", sum)
	}
	if out := d.MustRun("audit", "verify"); !strings.Contains(out, "audit verified") {
		t.Errorf("audit verify says %q", out)
	}
}

// TestTargetIsReplaced: the process that a session observes runs another program, its file is renamed over, it ends and its number is given to
// another. The session goes with its process, and what comes after it is left alone.
func TestTargetIsReplaced(t *testing.T) {
	d := devtest.Start(t, nil)
	original := testkit.BuildGo(t, "test/targets/vault")

	t.Run("another program in the same process", func(t *testing.T) {
		p := testkit.Start(t, original)
		p.Expect("ready", 10*time.Second)
		tr := d.Trace(fmt.Sprintf("pid/%d", p.PID()), "main.Open", "--for", "1m")
		p.Send("become /bin/cat")
		if _, sum := tr.Finish(15 * time.Second); sum.EndedBy != "target_replaced" {
			t.Errorf("ended by %q after the process became another program; want target_replaced", sum.EndedBy)
		}
		p.Send("still there")
		p.Expect("still there", 10*time.Second)
	})
	t.Run("file renamed over", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vault")
		copyFile(t, original, path)
		old := testkit.Start(t, path)
		old.Expect("ready", 10*time.Second)
		tr := d.Trace("exe"+path, "main.Open", "--for", "1m")
		copyFile(t, original, path+".new")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		next := testkit.Start(t, path)
		next.Expect("ready", 10*time.Second)
		text := testkit.ReadText(t, next.PID())
		for _, p := range []*testkit.Program{old, next} {
			p.Send("call 10")
			p.Expect("called", 10*time.Second)
		}
		if d := text.Differences(testkit.ReadText(t, next.PID())); len(d) > 0 {
			t.Errorf("the new process was changed: %v", d)
		}
		d.MustRun("stop", "--all")
		if _, sum := tr.Finish(15 * time.Second); sum.Hits != 10 {
			t.Errorf("ten calls of the old process are %d hits", sum.Hits)
		}
	})
	t.Run("number given to another process", func(t *testing.T) {
		first := testkit.Start(t, original)
		first.Expect("ready", 10*time.Second)
		pid := first.PID()
		tr := d.Trace(fmt.Sprintf("pid/%d", pid), "main.Open", "--for", "1m")
		first.CloseInput()
		first.Wait(10 * time.Second)
		second := startWithPID(t, original, pid)
		second.Expect("ready", 10*time.Second)
		text := testkit.ReadText(t, pid)
		second.Send("call 10")
		second.Expect("called", 10*time.Second)
		_, sum := tr.Finish(15 * time.Second)
		if sum.Hits != 0 || sum.EndedBy != "target_gone" {
			t.Errorf("the successor's calls are the session's: %+v", sum)
		}
		if d := text.Differences(testkit.ReadText(t, pid)); len(d) > 0 {
			t.Errorf("the successor was changed: %v", d)
		}
	})

	// The agent's records are durable on the node before a session is said to be over; their copies reach the log soon after.
	want := []string{"target_replaced", "stopped", "target_gone"}
	var ends []string
	for deadline := time.Now().Add(10 * time.Second); len(ends) < len(want) && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ends = nil
		for _, r := range audited(t, d) {
			if r["kind"] == "detached" {
				details, _ := r["details"].(map[string]any)
				ends = append(ends, fmt.Sprint(details["endedBy"]))
			}
		}
	}
	if !slices.Equal(ends, want) {
		t.Errorf("on record are the ends %q; want %q", ends, want)
	}
}

// startWithPID starts a program under a process number that is free.
func startWithPID(t *testing.T, path string, pid int) *testkit.Program {
	t.Helper()
	for range 50 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0); err != nil {
			t.Fatal(err)
		}
		p := testkit.StartCommand(t, exec.Command(path))
		if p.PID() == pid {
			return p
		}
		p.CloseInput()
	}
	t.Fatalf("process number %d was not to be had", pid)
	return nil
}

// cutShort makes a copy of an executable that ends where its loaded segments end: it runs, but its symbols, its debug
// information and the table that says where they are are cut off.
func cutShort(t *testing.T, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var end uint64
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			end = max(end, p.Off+p.Filesz)
		}
	}
	short := filepath.Join(t.TempDir(), "vault")
	copyFile(t, path, short)
	if err := os.Truncate(short, int64(end)); err != nil {
		t.Fatal(err)
	}
	return short
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o700); err != nil {
		t.Fatal(err)
	}
}

// awaitRecord waits until more records than so many are in the log, and returns those that are new. The control plane does not
// keep a caller waiting for the record of a denial.
func awaitRecord(t *testing.T, d *devtest.Dev, known int) []map[string]any {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if records := audited(t, d); len(records) > known {
			return records[known:]
		}
		if time.Now().After(deadline) {
			t.Error("nothing is on record of it")
			return nil
		}
	}
}

// audited lists the audit records.
func audited(t *testing.T, d *devtest.Dev) []map[string]any {
	t.Helper()
	var records []map[string]any
	for line := range strings.Lines(d.MustRun("audit", "ls", "-o", "json")) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("audit ls: %v: %s", err, line)
		}
		records = append(records, r)
	}
	return records
}

func containsAny(text string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

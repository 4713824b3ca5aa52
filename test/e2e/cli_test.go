// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestCommands types what testdata/cli says, each script in turn, at a `keyhole dev` and a vault of its own. Beside testscript's own commands
// there are
//
//	status N keyhole ARGS...   runs a command that must end with this status
//	vault LINE                 says something to the vault and waits for its answer
//	attached                   waits until a session is attached, and puts its ID into $SESSION
//
// the condition kprobes, which is whether this kernel's functions can be probed, and the variables TARGET (the vault), DEV (the directory of keyhole dev) and ADDRESS.
func TestCommands(t *testing.T) {
	scripts, err := filepath.Glob("testdata/cli/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	d := devtest.Start(t, nil, rules(t, "id: test/note, name: note, action: keep")...)
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			vault := startVault(t)
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: func(e *testscript.Env) error {
					e.Setenv("PATH", filepath.Dir(d.Binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
					e.Setenv("HOME", e.WorkDir)
					e.Setenv("KEYHOLE_CONFIG", d.Config)
					e.Setenv("KEYHOLE_REASON", "a script")
					e.Setenv("TARGET", fmt.Sprintf("pid/%d", vault.PID()))
					e.Setenv("DEV", d.Dir)
					e.Setenv("ADDRESS", d.Address)
					return nil
				},
				Condition: func(name string) (bool, error) {
					if name != "kprobes" {
						return false, fmt.Errorf("no condition %s", name)
					}
					return loader.KernelSupported() == nil, nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"status": exits,
					"vault": func(_ *testscript.TestScript, _ bool, args []string) {
						vault.Send(strings.Join(args, " "))
						vault.Line(10 * time.Second)
					},
					"attached": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Setenv("SESSION", attached(t, d)) },
				},
			})
		})
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command ...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("status %d; want %d", got, want)
	}
}

// attached waits for the one session that goes on.
func attached(t *testing.T, d *devtest.Dev) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, s := range d.Sessions() {
			if s.State == "SESSION_STATE_ATTACHED" {
				return s.ID
			}
		}
	}
	t.Fatal("no session became attached")
	return ""
}

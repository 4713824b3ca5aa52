// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestOpenSockets lists what the processes listen on, in the middle of a session, and compares it with the table in
// docs/security-model.md: one TCP address and one socket file of the store, both of the control plane.
func TestOpenSockets(t *testing.T) {
	d := devtest.Start(t, nil)
	vault := startVault(t)
	tr := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--for", "1m")

	for _, name := range []string{"keyhole-monitor", "keyhole-agent", "kh-holder"} {
		if doors := testkit.OpenDoors(t, d.ProcessID(name)); len(doors) > 0 {
			t.Errorf("%s listens on %q; it should on nothing", name, doors)
		}
	}
	var address, file int
	for _, door := range testkit.OpenDoors(t, d.PID()) {
		path, isUnix := strings.CutPrefix(door, "unix ")
		switch {
		case door == "tcp "+d.Address:
			address++
		case isUnix && strings.HasPrefix(path, d.Dir+"/"):
			file++
			info, err := os.Stat(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			if mode := info.Mode().Perm(); mode != 0o700 {
				t.Errorf("the directory of %s has mode %o; want 700", path, mode)
			}
		default:
			t.Errorf("keyhole dev listens on %q, which no document names", door)
		}
	}
	if address != 1 || file != 1 {
		t.Errorf("found %d times the address and %d socket files; the documents name one of each", address, file)
	}

	d.MustRun("stop", "--all")
	if _, sum := tr.Finish(10 * time.Second); sum.EndedBy != "stopped" {
		t.Errorf("the session ended by %q", sum.EndedBy)
	}
}

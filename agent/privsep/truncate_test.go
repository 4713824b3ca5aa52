// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// truncatedEnvironment names a file that this test binary, confined as an agent is on Linux 6.1, tries to truncate.
const truncatedEnvironment = "PRIVSEP_TEST_TRUNCATE"

// oldFiles are the rights that Landlock version 2 knows: all but truncation, the 15th.
const oldFiles landlock.AccessFSSet = 1<<14 - 1

// truncateMain opens a file that Landlock does not let it write, in every way that truncates.
func truncateMain(path string) {
	// What oldLandlock enforces: a kernel that knows truncation does not look at it if a ruleset does not handle it.
	if err := landlock.V2.RestrictPaths(landlock.PathAccess(writeDir&oldFiles, filepath.Dir(path)+"/state")); err != nil {
		fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fatal(err)
	}
	if err := agentPolicy(oldLandlock).install(); err != nil {
		fatal(err)
	}
	for mode := range unix.O_ACCMODE + 1 {
		if fd, err := unix.Open(path, mode|unix.O_TRUNC|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			fmt.Printf("mode %d is let through\n", mode)
		}
	}
	if err := unix.Truncate(path, 0); err == nil {
		fmt.Println("truncate is let through")
	}
	os.Exit(0)
}

// TestOldAgentTruncatesNothing: where Landlock does not refuse it, the filter does, whatever the file is opened for.
func TestOldAgentTruncatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), truncatedEnvironment+"="+path), raceEnvironment...)
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(path); string(b) != "whole" {
		t.Errorf("what is left of the file is %q, %v", b, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/testkit"
)

const subjectEnvironment = "SELFTEST_SUBJECT"

func TestMain(m *testing.M) {
	if os.Getenv(subjectEnvironment) != "" {
		if err := Subject(os.NewFile(3, "socket")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.MainAlone(m)
}

// startSubject starts this test binary as one.
func startSubject(t testing.TB) Starter {
	return func() (*os.File, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		theirs := os.NewFile(uintptr(fds[1]), "theirs")
		defer theirs.Close()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), subjectEnvironment+"=1")
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // one was killed by its filter, maybe; the others end with their sockets
		return os.NewFile(uintptr(fds[0]), "ours"), nil
	}
}

func TestRun(t *testing.T) {
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
	r := Run(startSubject(t), true)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if r.Trap < 100*time.Nanosecond || r.Trap > time.Millisecond || r.Hits < 1000 {
		t.Errorf("a hit costs %v, by %d", r.Trap, r.Hits)
	}
	if r.Took > testkit.Slow(4*time.Second) {
		t.Errorf("it took %v", r.Took)
	}
	want := []string{doctor.CheckReturn, doctor.CheckReturnSeccomp}
	if runtime.GOARCH == "amd64" {
		want = append(want, doctor.CheckNOP5, doctor.CheckNOP10)
	}
	for _, name := range want {
		if o, text := r.Outcome(name); o != doctor.Pass && (o != doctor.Unsafe || text == "") {
			t.Errorf("%s: %q, %q", name, o, text)
		}
	}
	testkit.RequireNoKernelObjects(t, time.Second)
}

// SPDX-License-Identifier: Apache-2.0

// Command init is process 1 of a kernel that was booted for tests: it mounts what Linux machines have, runs the jobs of
// /jobs.json one after another, tells the console how each ended and what the kernel complained of, and switches the machine off.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Job is what test/kernels has this machine do.
type Job struct {
	Name    string
	Dir     string
	Args    []string
	Seconds int
}

// jobsEnvironment is what the names of the jobs begin with that are to be run. The kernel hands process 1 what it does not know of its own
// command line.
const jobsEnvironment = "JOBS"

func main() {
	if os.Getpid() != 1 {
		if err := work(); err != nil {
			say("failed %v", err)
			os.Exit(1)
		}
		return
	}
	if err := mountAll(); err != nil {
		say("failed %v", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", jobsEnvironment + "=" + os.Getenv(jobsEnvironment)}
	if err := cmd.Start(); err != nil {
		say("failed %v", err)
	} else {
		reap(cmd.Process.Pid)
	}
	complain()
	say("off")
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		say("failed power off: %v", err)
	}
}

// say writes a line that no test writes.
func say(format string, args ...any) { fmt.Printf("\n=== keyhole: "+format+"\n", args...) }

// reap waits for everybody's processes, as process 1 does, until one of them ends.
func reap(pid int) {
	for {
		ended, err := syscall.Wait4(-1, nil, 0, nil)
		if ended == pid || err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"securityfs", "/sys/kernel/security"}, {"debugfs", "/sys/kernel/debug"}, {"tracefs", "/sys/kernel/tracing"}, {"bpf", "/sys/fs/bpf"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		// The initial file system may have /dev already (CONFIG_DEVTMPFS_MOUNT).
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	return loopbackUp()
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

func work() error {
	data, err := os.ReadFile("/jobs.json")
	if err != nil {
		return err
	}
	var jobs []Job
	if err := json.Unmarshal(data, &jobs); err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	say("linux %s", strings.TrimSpace(string(release)))
	for _, j := range jobs {
		if !strings.HasPrefix(j.Name, os.Getenv(jobsEnvironment)) {
			continue
		}
		say("begin %s", j.Name)
		say("end %s %s", j.Name, run(j))
	}
	return nil
}

// run runs one job and says how it ended.
func run(j Job) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j.Seconds)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, j.Args[0], j.Args[1:]...)
	cmd.Dir = j.Dir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	// One that does not end tells where it is.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return err.Error()
	}
	return "ok"
}

// complaint is how the lines begin that the kernel writes of a fault of its own.
var complaint = regexp.MustCompile(`WARNING: |BUG: |Oops|general protection|stack segment|Unable to handle|UBSAN|KASAN|lockdep|hung_task`)

func complain() {
	buffer := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buffer)
	if err != nil {
		say("failed read the kernel's log: %v", err)
		return
	}
	for line := range strings.Lines(string(buffer[:n])) {
		if complaint.MatchString(line) {
			say("kernel %s", strings.TrimSpace(line))
		}
	}
}

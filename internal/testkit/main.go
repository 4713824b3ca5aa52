// SPDX-License-Identifier: Apache-2.0

// Package testkit is what the tests share: a TestMain that fails on leaked goroutines and file descriptors, programs
// built once and held at a gate, and views of what a probe changes outside of us: a process's text, and the
// eBPF objects that the kernel holds. It also holds the tests of the rules of this repository.
package testkit

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// settle is how long Main waits for what was closed asynchronously before it calls it a leak.
const settle = 2 * time.Second

// Main runs the tests of a package and exits. It turns a passing run into a failing one if the tests left a
// goroutine or a file descriptor behind. A package calls it as its whole TestMain:
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
//
// The options excuse goroutines that a library starts once and never ends.
func Main(m *testing.M, options ...goleak.Option) {
	os.Exit(run(m, options))
}

// MainAlone is Main for packages that put probes into the kernel: one at a time on this machine, also of several test runs, since
// they count what the whole kernel holds. Who is not root puts nothing there, and waits for nobody.
func MainAlone(m *testing.M, options ...goleak.Option) {
	if os.Geteuid() != 0 {
		Main(m, options...)
	}
	const path = "/tmp/keyhole-kernel-tests.lock"
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		// Held until the process ends.
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testkit: wait for other tests: %s: %v\n", path, err)
		os.Exit(1)
	}
	if earlier, err = kernelObjects(); err != nil {
		fmt.Fprintln(os.Stderr, "testkit: what the kernel holds:", err)
		os.Exit(1)
	}
	code := run(m, options)
	runtime.KeepAlive(lock) // a collected file is closed, and the lock with it
	os.Exit(code)
}

func run(m *testing.M, options []goleak.Option) int {
	before, err := descriptors()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
		return 1
	}
	code := m.Run()
	if err := removeBuilt(); err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
		code = 1
	}
	if code != 0 {
		return code
	}
	if err := goleak.Find(options...); err != nil {
		fmt.Fprintln(os.Stderr, "testkit: tests left goroutines behind:", err)
		return 1
	}
	leaked, err := leakedSince(before)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
		return 1
	}
	if len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "testkit: tests left %d file descriptors open:\n  %s\n", len(leaked), strings.Join(leaked, "\n  "))
		return 1
	}
	return 0
}

// leakedSince names the descriptors that are open now, were not open before and do not go away by themselves.
func leakedSince(before map[string]string) ([]string, error) {
	for deadline := time.Now().Add(settle); ; time.Sleep(20 * time.Millisecond) {
		now, err := descriptors()
		if err != nil {
			return nil, err
		}
		var leaked []string
		for fd, target := range now {
			if before[fd] != target {
				leaked = append(leaked, fd+" -> "+target)
			}
		}
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked, nil
		}
	}
}

// descriptors maps each open descriptor of this process to what it refers to. It leaves out the two that Go's network
// poller opens when it is first used and never closes.
func descriptors() (map[string]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	open := make(map[string]string, len(entries))
	var pollers int
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			if isGone(err) {
				continue // the descriptor that the listing itself used
			}
			return nil, fmt.Errorf("list descriptors: %w", err)
		}
		if isPoller(target) && pollers < 2 {
			pollers++
			continue
		}
		open[e.Name()] = target
	}
	return open, nil
}

func isPoller(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]"
}

func isGone(err error) bool { return os.IsNotExist(err) }

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A spawner starts processes from one thread that lives as long as this process does: the parent whose death the kernel tells
// a child of is a thread, and capabilities are inherited from a thread.
type spawner struct {
	starts chan func()
}

// newSpawner makes one whose children have at most these capabilities; all: what this process has.
func newSpawner(caps capabilities) (*spawner, error) {
	s := &spawner{starts: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: a goroutine that ends while locked takes its thread with it
		if caps != all {
			if err := limitThread(caps); err != nil {
				ready <- err
				return
			}
		}
		ready <- nil
		for start := range s.starts {
			start()
		}
	}()
	return s, <-ready
}

const all capabilities = 1<<64 - 1

// A child is a process that a spawner started. Whoever started it calls wait.
type child struct {
	pid     int
	process *os.File // pidfd
}

// A start says what to start: this executable, as a role.
type start struct {
	name  string
	role  role
	args  []string
	files []int // become descriptors 3, 4, ... of the child; the caller closes its own
	env   []string
}

// start starts a child, which is killed when this process dies. Its standard input and output are /dev/null, and it is
// in a process group of its own: what the terminal sends is for the parent to hand on.
func (s *spawner) start(what start) (*child, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: open %s: %w", what.name, os.DevNull, err)
	}
	defer unix.Close(null)
	files := []uintptr{uintptr(null), uintptr(null), 2}
	for _, fd := range what.files {
		files = append(files, uintptr(fd))
	}
	pidfd := -1
	attr := &syscall.ProcAttr{Env: what.env, Files: files, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, PidFD: &pidfd}}
	if attr.Env == nil {
		attr.Env = []string{} // nil would mean all of ours
	}
	argv := append([]string{what.name, string(what.role)}, what.args...)
	var pid int
	done := make(chan struct{})
	s.starts <- func() {
		defer close(done)
		pid, _, err = syscall.StartProcess(selfExecutable, argv, attr)
	}
	<-done
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what.name, err)
	}
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, fmt.Errorf("start %s: %w", what.name, err)
	}
	return &child{pid: pid, process: os.NewFile(uintptr(pidfd), what.name)}, nil
}

// signal sends the process a signal. One that has ended is no error.
func (c *child) signal(s unix.Signal) error {
	err := control(c.process, func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("signal process %d: %w", c.pid, err)
	}
	return nil
}

// wait waits for the process's end and says how it came, then lets go of it.
func (c *child) wait() (string, error) {
	defer c.process.Close()
	raw, err := c.process.SyscallConn()
	if err != nil {
		return "", err
	}
	var status unix.WaitStatus
	var waitErr error
	err = raw.Read(func(fd uintptr) bool {
		if !hasExited(int(fd)) {
			return false
		}
		_, waitErr = unix.Wait4(c.pid, &status, 0, nil) // nobody else waits for it, so the number is still its own
		return true
	})
	if err := errors.Join(err, waitErr); err != nil {
		return "", fmt.Errorf("wait for process %d: %w", c.pid, err)
	}
	if status.Signaled() {
		return "signal: " + status.Signal().String(), nil
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus()), nil
}

// hasExited says whether a pidfd is readable, which it is from the process's end on.
func hasExited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1
	}
}

// control calls f with a file's descriptor, which stays open and as it is meanwhile.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what the monitor needs to know.
type Options struct {
	// AgentArgs are handed to Roles.Agent.
	AgentArgs []string
	// StateDir is where the agent may write. It is made (mode 0700) if it is missing.
	StateDir string
	// ReadOnly are the files and directories that the agent may read besides: its certificate, key and authorities. What
	// the network needs of the system (name service, certificate authorities) is included.
	ReadOnly []string
	// Node is the name that grants must be bound to.
	Node string
	// GrantKeys is the file with the public keys whose grants are carried out, LogKey that with the audit log's.
	GrantKeys, LogKey string
	// Ceiling is the node's own policy file; empty: the built-in ceiling.
	Ceiling string
	// RingBytes is the size of each session's ring buffer, a power of two; 0: loader.DefaultRingBytes.
	RingBytes int
	// PerfEvents takes kernels without uprobe_multi links: probes are perf events there.
	PerfEvents bool
}

// A MonitorProcess is a monitor that StartMonitor started. It dies with this process.
type MonitorProcess struct {
	child *child
	done  chan struct{}
	err   error
}

// termination is how long a monitor that was asked to end may take.
const termination = 10 * time.Second

// StartMonitor starts a monitor, and with it an agent, as a child of this process. They end when ctx is done: first asked, then killed.
// The child's standard error is ours. It needs root.
func StartMonitor(ctx context.Context, o Options) (*MonitorProcess, error) {
	settings, err := settingsFile(o)
	if err != nil {
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	defer unix.Close(settings)
	s, err := newSpawner(all)
	if err != nil {
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	c, err := s.start(start{name: monitorName, role: roleStart, args: []string{strconv.Itoa(firstDescriptor)}, files: []int{settings}, env: os.Environ()})
	if err != nil {
		close(s.starts)
		return nil, err
	}
	m := &MonitorProcess{child: c, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, m.terminate)
	go func() {
		defer close(s.starts) // the thread that the monitor would die with
		defer close(m.done)
		defer stop()
		status, err := c.wait()
		switch {
		case err != nil:
			m.err = err
		case status != "exit status 0":
			m.err = fmt.Errorf("monitor: %s", status)
		}
	}()
	return m, nil
}

// terminate asks the monitor to end, and kills it if it does not.
func (m *MonitorProcess) terminate() {
	if err := m.child.signal(unix.SIGTERM); err != nil {
		return // it is being waited for
	}
	select {
	case <-m.done:
	case <-time.After(termination):
		_ = m.child.signal(unix.SIGKILL)
	}
}

// PID is the monitor's number.
func (m *MonitorProcess) PID() int { return m.child.pid }

// Done is closed when the monitor has ended.
func (m *MonitorProcess) Done() <-chan struct{} { return m.done }

// Wait waits for the monitor's end. It is nil if the agent ended without an error.
func (m *MonitorProcess) Wait() error {
	<-m.done
	return m.err
}

// BecomeMonitor makes this process the monitor. It returns only if it could not; the process may then have lost
// privileges and should end.
func BecomeMonitor(o Options) error {
	settings, err := settingsFile(o)
	if err != nil {
		return fmt.Errorf("become monitor: %w", err)
	}
	return becomeMonitor(settings, 0)
}

// startMonitor is the first role of StartMonitor's child.
func startMonitor() error {
	settings, err := descriptorArgument()
	if err != nil {
		return err
	}
	return becomeMonitor(settings, os.Getppid())
}

func becomeMonitor(settings, parent int) error {
	effective, _, err := threadCapabilities()
	if err != nil {
		return fmt.Errorf("become monitor: %w", err)
	}
	var o Options
	if err := peek(settings, &o); err != nil {
		return fmt.Errorf("become monitor: %w", err)
	}
	needs := monitorCapabilities | more(o.PerfEvents)
	if effective&needs != needs || os.Geteuid() != 0 {
		return errors.New("become monitor: it must be started as root with the capabilities BPF, PERFMON, SYS_PTRACE and DAC_READ_SEARCH, and, with " +
			"--perf-events on a kernel without uprobe_multi links, SYS_ADMIN")
	}
	b := become{caps: needs, name: monitorName, role: roleMonitor, files: []int{settings}, env: os.Environ(), parent: parent}
	return fmt.Errorf("become monitor: %w", b.now())
}

// settingsFile checks what can be checked early and puts the options where an exec keeps them.
func settingsFile(o Options) (int, error) {
	if o.StateDir == "" || o.Node == "" {
		return -1, errors.New("no state directory or no name of the node")
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return -1, err
	}
	return handOver("keyhole-settings", o)
}

// handOver puts a value into memory that a child or the next image of this process reads with takeOver. The caller closes it.
func handOver(name string, v any) (int, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return -1, fmt.Errorf("hand over: %w", err)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("hand over: %w", err)
	}
	for len(b) > 0 && err == nil {
		var n int
		n, err = unix.Write(fd, b)
		b = b[max(n, 0):]
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("hand over: %w", err)
	}
	return fd, nil
}

// takeOver reads a value that handOver wrote, and closes the descriptor.
func takeOver(fd int, v any) error {
	defer unix.Close(fd)
	return peek(fd, v)
}

// peek is takeOver that leaves it for another.
func peek(fd int, v any) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	b := make([]byte, st.Size)
	for at := 0; at < len(b); {
		n, err := unix.Pread(fd, b[at:], int64(at))
		if err != nil || n == 0 {
			return fmt.Errorf("take over: %d of %d bytes: %w", at, len(b), cmp.Or(err, io.ErrUnexpectedEOF))
		}
		at += n
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	return nil
}

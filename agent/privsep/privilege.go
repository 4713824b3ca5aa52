// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
)

// A capabilities is a set of Linux capabilities, one bit each.
type capabilities uint64

const (
	// monitorCapabilities: load and attach (which its holders inherit), open another process's executable, maps and memory.
	monitorCapabilities = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH
	// loaderCapabilities: the monitor looks at the target for it.
	loaderCapabilities = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	// perfEventCapabilities are needed besides, by both, where probes are perf events: Linux 6.1 opens those of a process's code for nobody else.
	perfEventCapabilities = 1 << unix.CAP_SYS_ADMIN
)

// more are the capabilities that a node's setting costs: none on kernels that do not need it.
func more(perfEvents bool) capabilities {
	if perfEvents && !loader.HasUprobeMulti() {
		return perfEventCapabilities
	}
	return 0
}

// selfExecutable is this very file, also when it was replaced or deleted since it was started.
const selfExecutable = "/proc/self/exe"

// A become is a process that executes itself anew with less privilege.
//
// Capabilities belong to threads, and Go cannot change those of all its threads where C code is linked in, which is every
// race build. Exec is one act for all threads, and wipes the heap. With no_new_privs an exec by user 0 brings
// no capability back that the thread had given up.
type become struct {
	caps  capabilities
	name  string
	role  role
	files []int // descriptors that stay open, in the order of the new process's arguments
	env   []string
	// parent is who must still be the parent, if the process is to die with it; 0: it dies with nobody.
	parent int
}

// now does it. It returns only if it failed; the thread may then have lost privileges.
func (b become) now() error {
	runtime.LockOSThread()
	// An exec off the first thread disarms the signal, so it is armed again on this one.
	if b.parent != 0 {
		if err := dieWith(b.parent); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := limitThread(b.caps); err != nil {
		return err
	}
	// What somebody left open without saying so goes, whoever it was that started us.
	if err := unix.CloseRange(firstDescriptor, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	argv := []string{b.name, string(b.role)}
	for _, fd := range b.files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	if len(b.files) > 0 {
		argv = append(argv, strconv.Itoa(b.files[0])) // what describes the others
	}
	return fmt.Errorf("execute %s as %s: %w", selfExecutable, b.role, unix.Exec(selfExecutable, argv, b.env))
}

// dieWith makes the calling thread's process die with the thread that made it, and checks that its process still is the parent.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent process is gone")
	}
	return nil
}

// limitThread gives up all capabilities of the calling thread but those to keep, which it must have.
func limitThread(keep capabilities) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up ambient capabilities: %w", err)
	}
	return nil
}

// threadCapabilities are the calling thread's effective, permitted and inheritable capabilities together.
func threadCapabilities() (effective, all capabilities, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, 0, fmt.Errorf("read capabilities: %w", err)
	}
	effective = capabilities(data[0].Effective) | capabilities(data[1].Effective)<<32
	all = effective
	for i, d := range data {
		all |= (capabilities(d.Permitted) | capabilities(d.Inheritable)) << (32 * i)
	}
	return effective, all, nil
}

// requireNoPrivilege fails in a process that could do more than its user. All threads descend from the one that was
// executed, so any of them speaks for all.
func requireNoPrivilege() error {
	_, all, err := threadCapabilities()
	if err != nil {
		return err
	}
	if all != 0 {
		return fmt.Errorf("the process has capabilities %#x", all)
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read no_new_privs: %w", err)
	}
	if nnp != 1 {
		return errors.New("the process could gain privileges")
	}
	return nil
}

// hide keeps the process's memory out of core dumps and from other processes of its user.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process undumpable: %w", err)
	}
	return nil
}

func nameThread(name string) error {
	b, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0); err != nil {
		return fmt.Errorf("name process: %w", err)
	}
	return nil
}

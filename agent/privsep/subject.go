// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/a64"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxMapsBytes bounds the copy of a process's maps that an inspector gets.
const maxMapsBytes = 16 << 20

// breakpoint is what the kernel writes over the first bytes of a probed instruction; on x86-64 int3.
var breakpoint = map[string][]byte{"amd64": {0xcc}, "arm64": a64.Breakpoint[:]}[runtime.GOARCH]

// A subject is a process that the monitor has opened, by descriptors that stay what they are whatever happens to
// the process's number, its path or its program; or the kernel, of which it has only what openKernel says.
type subject struct {
	identity target.Identity
	maps     []byte

	process *os.File // pidfd
	exe     *os.File
	memory  memory // of the address space that it had when it was opened

	proofs *proofs      // of its inspector
	text   *sync.Mutex  // held while its memory is looked at; subjects of one process share it
	stuck  atomic.Int32 // looks that have not come back

	users atomic.Int32
}

// lookTime is how long a look at a target's memory may take. A page of a file whose server does not answer never comes.
const lookTime = time.Second

// A memory is /proc/PID/mem, open.
type memory interface {
	io.ReaderAt
	io.Closer
}

// A fileID names a file as long as it is open or linked.
type fileID struct{ device, inode uint64 }

func fileIDOf(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{st.Dev, st.Ino}, nil
}

// openSubject opens the process with this number, which must be a program other than ourselves. Errors at the fault of the
// request are a *problem.Error. The caller releases the subject.
func openSubject(pid int, self fileID) (*subject, error) {
	s := &subject{identity: target.Identity{PID: pid}}
	s.users.Store(1)
	if err := s.open(self); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *subject) open(self fileID) error {
	if err := s.openProcess(); err != nil {
		return err
	}
	pid := s.identity.PID
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := readStat(pid)
	if err != nil {
		return s.explain(err)
	}
	s.identity.StartTicks, s.identity.Comm = stat.StartTicks, stat.Comm
	// The memory first: it tells, at the end, whether the process executed something else meanwhile.
	opened, err := os.Open(dir + "mem")
	if err != nil {
		return s.explain(err)
	}
	s.memory = opened
	if s.exe, err = os.Open(dir + "exe"); err != nil {
		return s.explain(err)
	}
	if err := s.identify(dir + "exe"); err != nil {
		return err
	}
	if (fileID{s.identity.Device, s.identity.Inode}) == self {
		return problem.New(problem.PermissionDenied, "process %d (%q) is Keyhole itself, which is never a target", pid, s.identity.Comm)
	}
	if s.maps, err = readMaps(dir + "maps"); err != nil {
		return s.explain(err)
	}
	if cgroup, err := readSmall(dir + "cgroup"); err == nil {
		s.identity.Workload = procfs.Workload(cgroup)
	}
	return s.check()
}

func (s *subject) openProcess() error {
	if s.identity.PID <= 0 {
		return problem.New(problem.InvalidArgument, "no process has the number %d", s.identity.PID)
	}
	fd, err := unix.PidfdOpen(s.identity.PID, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH):
		return problem.New(problem.NotFound, "no process %d on this node: if it was started anew, exe/PATH finds it whatever its number", s.identity.PID)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return problem.New(problem.NotFound, "%d is a thread, not a process: name its process", s.identity.PID)
	case err != nil:
		return fmt.Errorf("open process %d: %w", s.identity.PID, err)
	}
	s.process = os.NewFile(uintptr(fd), "process")
	return nil
}

// identify reads what the kernel says of the open executable.
func (s *subject) identify(link string) error {
	path, err := os.Readlink(link)
	if err != nil {
		return s.explain(err)
	}
	var st unix.Stat_t
	if err := control(s.exe, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return problem.New(problem.FailedPrecondition, "the executable of process %d is no regular file", s.identity.PID)
	}
	i := &s.identity
	i.Path, i.Device, i.Inode, i.Size, i.MtimeNs = path, st.Dev, st.Ino, st.Size, st.Mtim.Nano()
	return nil
}

// explain turns a failure to look at the process into what is the matter with the process.
func (s *subject) explain(err error) error {
	pid := s.identity.PID
	stat, statErr := readStat(pid)
	switch {
	case hasExitedFile(s.process), statErr != nil:
		return problem.New(problem.NotFound, "process %d has ended", pid)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return problem.New(problem.FailedPrecondition, "process %d (%q) is a thread of the kernel: it has no executable", pid, stat.Comm)
	case errors.Is(err, fs.ErrPermission):
		return problem.New(problem.PermissionDenied, "the kernel does not let the agent look at process %d: %v; it may be of another user "+
			"namespace, or closed by a security module: choose another process, or ask who runs this machine", pid, err)
	default:
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
}

// check says whether the process is still the one that was opened, running the program that was opened.
func (s *subject) check() error {
	if s.isKernel() {
		return nil // it runs as long as we do
	}
	pid := s.identity.PID
	if hasExitedFile(s.process) {
		return problem.New(problem.NotFound, "process %d has ended", pid)
	}
	replaced := problem.New(problem.FailedPrecondition, "target_replaced: process %d has executed another program since it was looked at: try again", pid)
	if !s.sameMemory() {
		return replaced
	}
	id, err := fileIDOf(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return s.explain(err)
	}
	var st unix.Stat_t
	if err := control(s.exe, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return fmt.Errorf("stat %s: %w", s.identity.Path, err)
	}
	i := &s.identity
	if id != (fileID{i.Device, i.Inode}) {
		return replaced
	}
	if st.Size != i.Size || st.Mtim.Nano() != i.MtimeNs {
		return problem.New(problem.FailedPrecondition, "target_replaced: the file %s was written to since it was looked at: try again", i.Path)
	}
	return nil
}

// sameMemory says whether the address space that was opened still has a user. It has none after an exec, or an exit.
func (s *subject) sameMemory() bool {
	_, err := s.read(0, 1)
	return !errors.Is(err, io.EOF) // nothing is mapped at 0, which is another error
}

// read copies n bytes of the target's memory. It gives up after lookTime, and from then on at once, so that a target cannot keep others waiting.
func (s *subject) read(address uint64, n int) ([]byte, error) {
	if s.stuck.Load() > 0 {
		return nil, errStuck
	}
	s.retain()
	type result struct {
		bytes []byte
		err   error
	}
	done := make(chan result, 1)
	var decided atomic.Bool // whether it came in time
	go func() {
		defer s.release()
		b := make([]byte, n)
		_, err := s.memory.ReadAt(b, int64(address))
		if !decided.CompareAndSwap(false, true) {
			s.stuck.Add(-1)
		}
		done <- result{b, err}
	}()
	timer := time.NewTimer(lookTime)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.bytes, r.err
	case <-timer.C:
	}
	s.stuck.Add(1)
	if decided.CompareAndSwap(false, true) {
		return nil, errStuck
	}
	s.stuck.Add(-1)
	r := <-done
	return r.bytes, r.err
}

var errStuck = fmt.Errorf("its memory could not be read within %v", lookTime)

// code are the parts of the process's memory that are code of its executable, as the kernel mapped it.
func (s *subject) code() ([]procfs.Mapping, error) {
	b, err := readMaps(fmt.Sprintf("/proc/%d/maps", s.identity.PID))
	if err != nil {
		return nil, s.explain(err)
	}
	all, err := procfs.ParseMaps(b)
	if err != nil {
		return nil, err
	}
	i := &s.identity
	return slices.DeleteFunc(all, func(m procfs.Mapping) bool {
		// File systems in layers show another device here than in the file's own status.
		ofExecutable := m.Inode == i.Inode && (m.Device == i.Device || m.Path == i.Path)
		return !ofExecutable || !m.Executable || m.Writable || !m.Private
	}), nil
}

// isCode says why a site is not an instruction of the executable at the place where the kernel mapped it.
func (s *subject) isCode(code []procfs.Mapping, site target.Site) error {
	n := uint64(len(site.Bytes))
	if n == 0 || n > maxSiteBytes {
		return problem.New(problem.InvalidArgument, "site %#x: an instruction of %d bytes", site.Address, n)
	}
	mapped := slices.ContainsFunc(code, func(m procfs.Mapping) bool {
		return site.RuntimeAddress >= m.Start && site.RuntimeAddress < m.End && m.End-site.RuntimeAddress >= n &&
			site.FileOffset >= m.Offset && site.FileOffset-m.Offset == site.RuntimeAddress-m.Start
	})
	found := make([]byte, n)
	if mapped {
		if _, err := s.exe.ReadAt(found, int64(site.FileOffset)); err != nil {
			return problem.New(problem.FailedPrecondition, "site %#x: read the executable: %v", site.Address, err)
		}
	}
	if !mapped || !bytes.Equal(found, site.Bytes) {
		return problem.New(problem.FailedPrecondition, "site %#x: it is not code of the executable, where the process has mapped that", site.Address)
	}
	return nil
}

// The ways in which a site's memory can look.
const (
	siteOriginal = iota // the bytes that were analysed
	siteProbed          // the same, with a breakpoint over them
	siteOther           // anything else
	siteGone            // no such memory any more
)

// look says how the memory at a site is.
func (s *subject) look(site target.Site) (how int, err error) {
	found, err := s.read(site.RuntimeAddress, len(site.Bytes))
	switch {
	case errors.Is(err, io.EOF):
		return siteGone, nil
	case err != nil:
		return siteOther, fmt.Errorf("read %d bytes at %#x: %w", len(site.Bytes), site.RuntimeAddress, err)
	case bytes.Equal(found, site.Bytes):
		return siteOriginal, nil
	case isProbed(found, site.Bytes):
		return siteProbed, nil
	default:
		return siteOther, nil
	}
}

func (s *subject) same(other *subject) bool {
	return s.identity.PID == other.identity.PID && s.identity.StartTicks == other.identity.StartTicks
}

func (s *subject) retain() *subject {
	s.users.Add(1)
	return s
}

func (s *subject) release() {
	if s.users.Add(-1) > 0 {
		return
	}
	if s.proofs != nil {
		s.proofs.close()
	}
	if s.memory != nil {
		s.memory.Close()
	}
	for _, f := range []*os.File{s.process, s.exe} {
		if f != nil {
			f.Close()
		}
	}
}

func hasExitedFile(process *os.File) bool {
	exited := true // closed: it was
	_ = control(process, func(fd int) error {
		exited = hasExited(fd)
		return nil
	})
	return exited
}

func readStat(pid int) (procfs.Stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procfs.Stat{}, err
	}
	return procfs.ParseStat(b)
}

func readMaps(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMapsBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxMapsBytes {
		return nil, problem.New(problem.FailedPrecondition, "the process has more mappings than fit %d MiB", maxMapsBytes>>20)
	}
	return b, nil
}

// isProbed says whether memory is an instruction with a breakpoint over its first bytes.
func isProbed(found, instruction []byte) bool {
	n := len(breakpoint)
	return len(found) >= n && len(found) == len(instruction) && bytes.Equal(found[:n], breakpoint) && bytes.Equal(found[n:], instruction[n:])
}

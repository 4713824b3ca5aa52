// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

const (
	// maxThreads is how many threads of a process are looked at one by one.
	maxThreads = 16_384
	// goBuildInfo begins what Go's linker says of each program, which a Go program reads itself (debug/buildinfo).
	goBuildInfo = "\xff Go buildinf:"
	// searched is how much of an executable is searched at a time.
	searched = 256 << 10
)

// admitReturns says why the kernel's return probe, if a target is for it, would harm the process. What the inspector found out about the
// program is vouched for; here is what only the kernel knows, and that no program of Go's is among them, whatever was found.
func (m *monitor) admitReturns(s *subject, t *target.Target) error {
	if t.Returns == nil || !t.Returns.ByKernel {
		return nil
	}
	report, err := m.able()
	if err != nil {
		return err
	}
	refuse := func(why string) error {
		return problem.New(problem.FailedPrecondition, "cannot see the returns of %s: not all are at return instructions, and %s; leave out --ret, "+
			"--slower-than and --errors-only to see its calls", t.Function.Name, why)
	}
	if err := target.KernelReturn(&t.Identity, t.Sites, t.Returns.By); err != nil {
		return refuse(err.Error())
	}
	isGo, err := holdsGo(s.exe, s.identity.Size)
	if err != nil {
		return fmt.Errorf("search %s: %w", s.identity.Path, err)
	}
	if isGo {
		return refuse("a Go program dies of the kernel's return probe when one of its stacks moves")
	}
	why, err := refuseReturn(report, s.identity.PID)
	if err != nil {
		return s.explain(err)
	}
	if why != "" {
		return refuse(why)
	}
	return nil
}

// refuseReturn says why the kernel's return probe would harm one of a process's threads.
func refuseReturn(report *doctor.Report, pid int) (string, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer threads.Close()
	names, err := threads.Readdirnames(maxThreads + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", err
	case len(names) > maxThreads:
		return fmt.Sprintf("the process has more than %d threads, each of which would have to be looked at", maxThreads), nil
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			return "", fmt.Errorf("%s: %q is no thread", dir, name)
		}
		b, err := readSmall(dir + "/" + name + "/status")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended
		}
		if err != nil {
			return "", err
		}
		status, err := procfs.ParseStatus(b)
		if err != nil {
			return "", err
		}
		if why := report.RefuseReturn(status); why != "" {
			return why, nil
		}
	}
	if len(names) == 0 {
		return "", fs.ErrNotExist
	}
	return "", nil
}

// holdsGo says whether a file has what every program of Go's has. It may find it in one that is none, which is then refused for nothing.
func holdsGo(f io.ReaderAt, size int64) (bool, error) {
	const overlap = len(goBuildInfo) - 1
	b := make([]byte, overlap+searched)
	kept := 0
	for at := int64(0); at < size; {
		n, err := f.ReadAt(b[kept:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if n == 0 {
			break // it was cut short
		}
		if bytes.Contains(b[:kept+n], []byte(goBuildInfo)) {
			return true, nil
		}
		at += int64(n)
		end := kept + n
		kept = copy(b, b[max(0, end-overlap):end])
	}
	return false, nil
}

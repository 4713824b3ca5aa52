// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// An Attachment is a program on its sites.
type Attachment struct {
	program *Program
	link    link.Link
	// CountsMissed says that the kernel counts the calls at which it could not run the program.
	CountsMissed bool
	// AttachTime is how long attaching took.
	AttachTime time.Duration
}

// Attach puts the program on the plan's sites in the one process that the plan names, and only there: one link, with
// the kernel's PID filter and the site's index as cookie. The executable is the open file that was analysed: the kernel
// is given its descriptor's path, so that no path is looked up a second time, and offsets in the file, so that neither
// this package nor the library under it parses a byte of it. A plan for the kernel needs no file.
func (l *Program) Attach(exe *os.File) (*Attachment, error) {
	start := time.Now()
	if l.plan.Identity.Kernel != "" {
		return l.attachKernel(start)
	}
	sites := l.plan.Sites
	options := link.UprobeMultiOptions{
		Addresses: make([]uint64, len(sites)),
		Cookies:   make([]uint64, len(sites)),
		PID:       uint32(l.plan.Identity.PID),
	}
	for i, s := range sites {
		if s.FileOffset == 0 { // the library would look for a symbol instead
			return nil, fmt.Errorf("attach probe: site %d is at offset 0 of the file, where its header is", i)
		}
		options.Addresses[i], options.Cookies[i] = s.FileOffset, uint64(i)
	}
	if options.PID == 0 { // the kernel would take it for every process
		return nil, errors.New("attach probe: no process named")
	}
	x, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()))
	if err != nil {
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	k, err := x.UprobeMulti(nil, l.objects.program, &options)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("attach probe: no process %d any more: %w", options.PID, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	return &Attachment{program: l, link: k, AttachTime: time.Since(start)}, nil
}

// Files are the descriptors that a reader needs, and no more: neither the program nor the tables with the key, nor the
// scratch. They are closed on exec unless the caller says otherwise. The probe stays attached as long as Link, or the
// attachment it was made from, is open anywhere.
type Files struct {
	Ring, Counts, Control, Link *os.File
}

// Files duplicates the attachment's descriptors.
func (a *Attachment) Files() (_ *Files, err error) {
	fd, ok := a.link.(interface{ FD() int })
	if !ok {
		return nil, errors.New("duplicate probe: the link has no descriptor")
	}
	f := new(Files)
	defer func() {
		if err != nil {
			err = fmt.Errorf("duplicate probe: %w", errors.Join(err, f.Close()))
		}
	}()
	if f.Ring, err = duplicateMap(a.program.objects.KhRing); err != nil {
		return nil, err
	}
	if f.Counts, err = duplicateMap(a.program.objects.KhCounts); err != nil {
		return nil, err
	}
	if f.Control, err = duplicateMap(a.program.objects.KhControl); err != nil {
		return nil, err
	}
	if f.Link, err = duplicate(fd.FD(), "kh_link"); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes those that are open.
func (f *Files) Close() error {
	var errs []error
	for _, file := range []*os.File{f.Link, f.Control, f.Counts, f.Ring} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	*f = Files{}
	return errors.Join(errs...)
}

func duplicateMap(m *ebpf.Map) (*os.File, error) {
	return duplicate(m.FD(), m.String())
}

func duplicate(fd int, name string) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	return os.NewFile(uintptr(dup), name), nil
}

// Close closes this end of the link. The probe is detached when no duplicate of it is left.
func (a *Attachment) Close() error { return a.link.Close() }

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

	"github.com/keyhole-dev/keyhole/internal/probe"
)

// An Attachment is a program on its sites.
type Attachment struct {
	program *Program
	link    link.Link
	returns link.Link // nil: nothing looks at returns
	// CountsMissed says that the kernel counts the calls at which it could not run the program.
	CountsMissed bool
	// AttachTime is how long attaching took.
	AttachTime time.Duration
}

// Attach puts the program on the plan's sites in the one process that the plan names, and only there: one link, and one more for
// returns, with the kernel's PID filter and the site's index as cookie. The executable is the open file that was analysed: the
// kernel is given its descriptor's path, so that no path is looked up a second time, and offsets in the file, so that neither
// this package nor the library under it parses a byte of it. A plan for the kernel needs no file.
func (l *Program) Attach(exe *os.File) (*Attachment, error) {
	if l.plan.Identity.Kernel != "" {
		return l.attachKernel()
	}
	var entries, returns places
	for i, s := range l.plan.Sites {
		if s.Return {
			returns.add(s.FileOffset, i)
		} else {
			entries.add(s.FileOffset, i)
		}
	}
	return l.attach(exe, l.plan.Identity.PID, entries, returns, false)
}

// AttachTo is Attach at other places and in another process than the plan's, where the program will find itself out of scope and
// do nothing: what a probe does to a process can be seen without it. With returns, the places are first
// instructions of functions, and the program is where these return to.
func (l *Program) AttachTo(exe *os.File, pid int, offsets []uint64, returns bool) (*Attachment, error) {
	var at places
	for i, offset := range offsets {
		at.add(offset, i)
	}
	if returns {
		return l.attach(exe, pid, places{}, at, true)
	}
	return l.attach(exe, pid, at, places{}, false)
}

// places are offsets in the executable, each with the index of its site.
type places struct {
	offsets, cookies []uint64
}

func (p *places) add(offset uint64, site int) {
	p.offsets, p.cookies = append(p.offsets, offset), append(p.cookies, uint64(site))
}

// attach puts the program on entries and on returns. Those are return instructions or, if they are the kernel's to find, the entries of
// the functions that return.
func (l *Program) attach(exe *os.File, pid int, entries, returns places, kernels bool) (_ *Attachment, err error) {
	start := time.Now()
	if pid <= 0 { // the kernel would take 0 for every process
		return nil, errors.New("attach probe: no process named")
	}
	x, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()))
	if err != nil {
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	a := &Attachment{program: l}
	defer func() {
		if err != nil {
			err = fmt.Errorf("attach probe: %w", errors.Join(err, a.Close()))
		}
	}()
	if len(returns.offsets) > 0 { // first: a call that was let in should find its return
		attach := x.UprobeMulti
		if kernels {
			attach = x.UretprobeMulti
		}
		if a.returns, err = returns.attach(attach, l.objects.atReturn, pid); err != nil {
			return nil, err
		}
	}
	if len(entries.offsets) > 0 {
		if a.link, err = entries.attach(x.UprobeMulti, l.objects.atEntry, pid); err != nil {
			return nil, err
		}
	}
	a.AttachTime = time.Since(start)
	return a, nil
}

func (p *places) attach(
	attach func([]string, *ebpf.Program, *link.UprobeMultiOptions) (link.Link, error), program *ebpf.Program, pid int,
) (link.Link, error) {
	for i, offset := range p.offsets {
		if offset == 0 { // the library would look for a symbol instead
			return nil, fmt.Errorf("site %d is at offset 0 of the file, where its header is", p.cookies[i])
		}
	}
	k, err := attach(nil, program, &link.UprobeMultiOptions{Addresses: p.offsets, Cookies: p.cookies, PID: uint32(pid)})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no process %d any more: %w", pid, err)
	}
	return k, err
}

// Files are the descriptors that a reader needs, and no more: neither the program nor the tables with the key, nor the
// scratch. They are closed on exec unless the caller says otherwise. The probe stays attached as long as Link, or the
// attachment it was made from, is open anywhere.
type Files struct {
	Ring, Counts, Control, Link *os.File
	Returns                     *os.File // the link of the returns; nil: nothing looks at them
	Counted                     *os.File // groups or histogram; nil if the plan counts in neither
}

// Files duplicates the attachment's descriptors.
func (a *Attachment) Files() (_ *Files, err error) {
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
	if a.returns != nil {
		if f.Returns, err = duplicateLink(a.returns); err != nil {
			return nil, err
		}
	}
	switch a.program.plan.Aggregate {
	case probe.AggregateGroups:
		f.Counted, err = duplicateMap(a.program.objects.KhGroups)
	case probe.AggregateHistogram:
		f.Counted, err = duplicateMap(a.program.objects.KhHistogram)
	}
	if err != nil {
		return nil, err
	}
	if f.Link, err = duplicateLink(a.link); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes those that are open.
func (f *Files) Close() error {
	var errs []error
	for _, file := range []*os.File{f.Link, f.Returns, f.Control, f.Counts, f.Ring, f.Counted} {
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

func duplicateLink(l link.Link) (*os.File, error) {
	fd, ok := l.(interface{ FD() int })
	if !ok {
		return nil, errors.New("the link has no descriptor")
	}
	return duplicate(fd.FD(), "kh_link")
}

func duplicate(fd int, name string) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	return os.NewFile(uintptr(dup), name), nil
}

// Close closes this end of the links. The probe is detached when no duplicate of them is left.
func (a *Attachment) Close() error {
	var errs []error
	for _, l := range []link.Link{a.link, a.returns} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

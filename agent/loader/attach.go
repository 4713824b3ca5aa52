// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// An Attachment is a program on its sites.
type Attachment struct {
	program *Program
	links   []link.Link // of entries first
	// CountsMissed says that the kernel counts the calls at which it could not run the program.
	CountsMissed bool
	// AttachTime is how long attaching took.
	AttachTime time.Duration
}

// Attach puts the program on the plan's sites in the one process that the plan names, and only there, with the site's index as cookie.
// The executable is the open file that was analysed: the kernel is given its descriptor's path, so that no path is looked up a second
// time, and offsets in the file, so that neither this package nor the library under it parses a byte of it. A plan for the kernel needs
// no file.
func (l *Program) Attach(exe *os.File) (*Attachment, error) {
	if l.plan.Identity.Kernel != "" {
		return l.attachKernel()
	}
	r := l.plan.Returns
	return l.attach(exe, l.plan.Identity.PID, placesOf(l.plan.Sites), r != nil && r.ByKernel)
}

// AttachTo is Attach at other places and in another process than the plan's, where the program will find itself out of scope and
// do nothing: what a probe does to a process can be seen without it. With returns, the places are first
// instructions of functions, and the program is where these return to.
func (l *Program) AttachTo(exe *os.File, pid int, offsets []uint64, returns bool) (*Attachment, error) {
	var at places
	for i, offset := range offsets {
		at.add(offset, i, returns)
	}
	return l.attach(exe, pid, at, returns)
}

// attach puts the program on places. Returns are return instructions or, if they are the kernel's to find, the entries of the functions
// that return.
func (l *Program) attach(exe *os.File, pid int, at places, kernels bool) (*Attachment, error) {
	start := time.Now()
	links, err := at.attach(exe, pid, l.objects.atEntry, l.objects.atReturn, kernels)
	if err != nil {
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	return &Attachment{program: l, links: links, AttachTime: time.Since(start)}, nil
}

// AttachAgain attaches a program that Load made for a target's entries, in another process than that which loaded it. The files are the
// links, of which there are no others.
func AttachAgain(program *os.File, t *target.Target, exe *os.File) ([]*os.File, error) {
	fd, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach probe again: %w", err)
	}
	p, err := ebpf.NewProgramFromFD(fd) // closes fd if it fails
	if err != nil {
		return nil, fmt.Errorf("attach probe again: %w", err)
	}
	defer p.Close()
	var links []link.Link
	if t.Identity.Kernel != "" {
		links, err = attachSymbols(t.Sites, p, nil)
	} else {
		at := placesOf(t.Sites)
		links, err = at.attach(exe, t.Identity.PID, p, nil, false)
	}
	if err != nil {
		return nil, fmt.Errorf("attach probe again: %w", err)
	}
	files, err := duplicateLinks(links)
	if err := errors.Join(err, closeLinks(links)); err != nil {
		return nil, fmt.Errorf("attach probe again: %w", err)
	}
	return files, nil
}

// places are offsets in the executable, each with the index of its site.
type places struct {
	entries, returns []place
}

type place struct {
	offset, cookie uint64
}

func placesOf(sites []target.Site) (at places) {
	for i, s := range sites {
		at.add(s.FileOffset, i, s.Return)
	}
	return at
}

func (p *places) add(offset uint64, site int, isReturn bool) {
	if isReturn {
		p.returns = append(p.returns, place{offset, uint64(site)})
	} else {
		p.entries = append(p.entries, place{offset, uint64(site)})
	}
}

// attach attaches to all places or to none.
func (p *places) attach(exe *os.File, pid int, atEntry, atReturn *ebpf.Program, kernels bool) (_ []link.Link, err error) {
	if pid <= 0 { // the kernel would take 0 for every process
		return nil, errors.New("no process named")
	}
	for _, at := range slices.Concat(p.entries, p.returns) {
		if at.offset == 0 { // the library would look for a symbol instead
			return nil, fmt.Errorf("site %d is at offset 0 of the file, where its header is", at.cookie)
		}
	}
	x, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()))
	if err != nil {
		return nil, err
	}
	// Returns first: a call that was let in should find its own.
	returns, err := p.attachSome(x, pid, p.returns, atReturn, kernels)
	if err != nil {
		return nil, err
	}
	entries, err := p.attachSome(x, pid, p.entries, atEntry, false)
	if err != nil {
		return nil, errors.Join(err, closeLinks(returns))
	}
	return append(entries, returns...), nil
}

// attachSome makes one link with the kernel's PID filter or, where it has no such links, a perf event of the process for each place.
func (p *places) attachSome(x *link.Executable, pid int, list []place, program *ebpf.Program, kernels bool) (_ []link.Link, err error) {
	var links []link.Link
	defer func() {
		if err != nil {
			err = errors.Join(err, closeLinks(links))
		}
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			err = fmt.Errorf("no process %d any more: %w", pid, err)
		}
	}()
	if len(list) == 0 {
		return nil, nil
	}
	if !hasUprobeMulti() {
		attach := x.Uprobe
		if kernels {
			attach = x.Uretprobe
		}
		for _, at := range list {
			k, err := attach("keyhole", program, &link.UprobeOptions{Address: at.offset, Cookie: at.cookie, PID: pid})
			if err != nil {
				return nil, perfError(err)
			}
			links = append(links, k)
		}
		return links, nil
	}
	attach := x.UprobeMulti
	if kernels {
		attach = x.UretprobeMulti
	}
	options := link.UprobeMultiOptions{PID: uint32(pid)}
	for _, at := range list {
		options.Addresses, options.Cookies = append(options.Addresses, at.offset), append(options.Cookies, at.cookie)
	}
	k, err := attach(nil, program, &options)
	if err != nil {
		return nil, err
	}
	return []link.Link{k}, nil
}

func closeLinks(links []link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// perfError says of an attach by a perf event that was forbidden what forbade it.
func perfError(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the kernel forbids it: perf events of a process's code need CAP_SYS_ADMIN (or a kernel with uprobe_multi links, Linux 6.6): %w", err)
	}
	return err
}

// Files are the descriptors that a reader needs, and no more: neither the program nor the tables with the key, nor the
// scratch. They are closed on exec unless the caller says otherwise. The probe stays attached as long as one of
// Links, or the attachment they were made from, is open anywhere.
type Files struct {
	Ring, Counts, Control *os.File
	Counted               *os.File   // groups or histogram; nil if the plan counts in neither
	Links                 []*os.File // of entries first
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
	switch a.program.plan.Aggregate {
	case probe.AggregateGroups:
		f.Counted, err = duplicateMap(a.program.objects.KhGroups)
	case probe.AggregateHistogram, probe.AggregateDurations:
		f.Counted, err = duplicateMap(a.program.objects.KhHistogram)
	}
	if err != nil {
		return nil, err
	}
	f.Links, err = duplicateLinks(a.links)
	return f, err
}

// Close closes those that are open.
func (f *Files) Close() error {
	var errs []error
	for _, file := range append(f.Links, f.Control, f.Counts, f.Ring, f.Counted) {
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

func duplicateLinks(links []link.Link) ([]*os.File, error) {
	var files []*os.File
	for _, l := range links {
		file, err := duplicateLink(l)
		if err != nil {
			return nil, errors.Join(err, closeFiles(files))
		}
		files = append(files, file)
	}
	return files, nil
}

func closeFiles(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
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
func (a *Attachment) Close() error { return closeLinks(a.links) }

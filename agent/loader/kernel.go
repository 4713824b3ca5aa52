// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/kbtf"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Where the kernel says that it has kprobes as perf events (CONFIG_KPROBE_EVENTS), and what it locks down.
const (
	kprobeSource = "/sys/bus/event_source/devices/kprobe/type"
	lockdownFile = "/sys/kernel/security/lockdown"
)

// KernelSupported says in one sentence why no function of this kernel can be probed; nil if nothing is known against it. It
// needs no privilege.
func KernelSupported() error {
	if lockedDown() {
		return errors.New("the kernel is locked down for confidentiality, which forbids probes of its functions; a process's can be probed")
	}
	if _, err := os.Stat(kprobeSource); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("this node's kernel has no kprobes (it was built without CONFIG_KPROBE_EVENTS), so functions of the kernel cannot be " +
				"probed here; a process's can be")
		}
		return fmt.Errorf("whether the kernel has kprobes cannot be seen: %w", err)
	}
	if _, err := os.Stat(kbtf.Path); err != nil {
		return fmt.Errorf("the kernel does not describe its functions (%s; it is built with CONFIG_DEBUG_INFO_BTF): %w", kbtf.Path, err)
	}
	return nil
}

// lockedDown says whether the kernel keeps its memory from its administrator. Without security file system it cannot be
// seen; then the attach tells.
func lockedDown() bool {
	modes, err := os.ReadFile(lockdownFile)
	return err == nil && strings.Contains(string(modes), "[confidentiality]")
}

// HasUprobeMulti says whether the kernel has the links that need no perf event for each place (Linux 6.6). It needs the capabilities BPF
// and PERFMON.
func HasUprobeMulti() bool { return hasUprobeMulti() }

var hasUprobeMulti = sync.OnceValue(func() bool { return features.HaveBPFLinkUprobeMulti() == nil })

// hasKprobeMulti says whether the kernel has the links that need no perf event, and so not its administrator's leave.
func hasKprobeMulti() bool { return features.HaveBPFLinkKprobeMulti() == nil }

// hasKretprobeMulti says whether such links tell where the stack is when a function has returned, by which its call is found again. Since
// Linux 6.14 their return probes are those of the function graph tracer, whose trampoline left the stack pointer out of what it saves: on
// amd64 until Linux 7.0 (commit 8bc11700e0d2), on arm64, which had no such links before, to this day. A perf event's return probe has it.
var hasKretprobeMulti = sync.OnceValue(func() bool {
	if !hasKprobeMulti() || runtime.GOARCH == "arm64" {
		return false
	}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	major, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), ".")
	n, err := strconv.Atoi(major)
	return err == nil && (n >= 7 || !usesGraphTracer())
})

// usesGraphTracer says whether kprobe_multi links are made of the function graph tracer: a struct fprobe says what it is a part of.
func usesGraphTracer() bool {
	f, err := os.Open(kbtf.Path)
	if err != nil {
		return true
	}
	defer f.Close()
	types, err := kbtf.Open(f)
	if err != nil {
		return true
	}
	fprobe, err := types.Struct("fprobe")
	if err != nil {
		return true
	}
	_, err = fprobe.Field("hlist_array")
	return err == nil
}

// paranoid says whether perf events are closed to all but CAP_SYS_ADMIN, as some distributions' kernels can be told.
func paranoid() bool {
	level, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(level)))
	return err == nil && n > 2
}

// attachKernel puts the program on the entry of a function of the kernel, by its name: the kernel finds the address, and refuses
// what it cannot probe safely. The link holds the perf event, and ends with it.
func (l *Program) attachKernel() (*Attachment, error) {
	start := time.Now()
	if err := KernelSupported(); err != nil { // the library would try another way, which leaves traces behind
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	links, err := attachSymbols(l.plan.Sites, l.objects.atEntry, l.objects.atReturn)
	if err != nil {
		return nil, fmt.Errorf("attach probe: %w", err)
	}
	return &Attachment{program: l, links: links, CountsMissed: countsMissed(), AttachTime: time.Since(start)}, nil
}

// attachSymbols attaches to all of the kernel's functions or to none.
func attachSymbols(sites []target.Site, atEntry, atReturn *ebpf.Program) (links []link.Link, err error) {
	defer func() {
		if err != nil {
			links, err = nil, errors.Join(err, closeLinks(links))
		}
	}()
	for i := len(sites) - 1; i >= 0; i-- { // the return first: a call that was let in should find it
		var k link.Link
		if s := &sites[i]; s.Return {
			k, err = kprobe(hasKretprobeMulti(), atReturn, s.Symbol, uint64(i), link.KretprobeMulti, link.Kretprobe)
		} else {
			k, err = kprobe(hasKprobeMulti(), atEntry, s.Symbol, uint64(i), link.KprobeMulti, link.Kprobe)
		}
		if err != nil {
			return links, err
		}
		links = slices.Insert(links, 0, k)
	}
	return links, nil
}

func kprobe(
	hasMulti bool, program *ebpf.Program, symbol string, cookie uint64,
	multi func(*ebpf.Program, link.KprobeMultiOptions) (link.Link, error),
	perf func(string, *ebpf.Program, *link.KprobeOptions) (link.Link, error),
) (link.Link, error) {
	if symbol == "" {
		return nil, errors.New("a plan for the kernel has sites that are functions")
	}
	var k link.Link
	var err error
	if hasMulti {
		k, err = multi(program, link.KprobeMultiOptions{Symbols: []string{symbol}, Cookies: []uint64{cookie}})
	} else {
		k, err = perf(symbol, program, &link.KprobeOptions{Cookie: cookie})
	}
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("the kernel has several functions %s, or none that can be probed", symbol)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the kernel has no function %s that can be probed (its compiler may have put it into its callers): %w", symbol, err)
	case errors.Is(err, os.ErrPermission) && paranoid():
		return nil, fmt.Errorf("kernel.perf_event_paranoid is above 2, where this kernel lets nobody but CAP_SYS_ADMIN open kprobes: "+
			"set it to 2, or take a kernel with kprobe_multi links (CONFIG_FPROBE, Linux 5.18; for returns one other than 6.14 to 6.19, and amd64): %w", err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("the kernel forbids it (a lockdown, or a security module): %w", err)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("the kernel does not let %s be probed: it is one that probes themselves need: %w", symbol, err)
	case err != nil:
		return nil, err
	}
	if _, ok := k.(interface{ FD() int }); !ok {
		return nil, errors.Join(errors.New("the kernel has no links of perf events (Linux 5.15)"), k.Close())
	}
	return k, nil
}

// countsMissed says whether this kernel tells of a kprobe how often it could not run (Linux 6.7). It would not say no otherwise:
// the field that it does not know stays zero.
func countsMissed() bool {
	f, err := os.Open(kbtf.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	types, err := kbtf.Open(f)
	if err != nil {
		return false
	}
	info, err := types.Struct("bpf_link_info")
	if err != nil {
		return false
	}
	path := []string{"perf_event", "kprobe", "missed"}
	if hasKprobeMulti() {
		path = []string{"kprobe_multi", "missed"}
	}
	for _, name := range path {
		field, err := info.Field(name)
		if err != nil {
			return false
		}
		info = field.Type
	}
	return true
}

// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// A Feature is something of the kernel's that not every kernel has that the tests run on.
type Feature struct {
	name string
	// major and minor are the Linux that brought it, as the kernel's history says (the commit that is named beside each).
	major, minor int
	// config, if set, is what a kernel may be built without, however new it is.
	config string
	has    func() bool
}

// The features that tests ask for by name.
var (
	// RingBuffer is BPF_MAP_TYPE_RINGBUF (457f44363a88, v5.8).
	RingBuffer = Feature{"the eBPF ring buffer", 5, 8, "", func() bool { return features.HaveMapType(ebpf.RingBuf) == nil }}
	// AttachCookie is bpf_get_attach_cookie (7adfc6c9b315, v5.15).
	AttachCookie = Feature{"bpf_get_attach_cookie", 5, 15, "", helper(asm.FnGetAttachCookie)}
	// Loop is bpf_loop (e6f2dd0f8067, v5.17).
	Loop = Feature{"bpf_loop", 5, 17, "", helper(asm.FnLoop)}
	// LandlockRefer is version 2 of Landlock (b91c3e4ea756, v5.19).
	LandlockRefer = Feature{"Landlock version 2", 5, 19, "CONFIG_SECURITY_LANDLOCK", landlock(2)}
	// UprobeMulti is BPF_TRACE_UPROBE_MULTI (89ae89f53d20, v6.6).
	UprobeMulti = Feature{"uprobe_multi links", 6, 6, "CONFIG_UPROBES", func() bool { return features.HaveBPFLinkUprobeMulti() == nil }}
	// LandlockScope is version 6 of Landlock (54a6e6bbf3be, v6.12).
	LandlockScope = Feature{"Landlock version 6", 6, 12, "CONFIG_SECURITY_LANDLOCK", landlock(6)}
	// Kprobes is the source of perf events for functions of the kernel (e12f03d7031a, v4.17).
	Kprobes = Feature{"kprobes", 4, 17, "CONFIG_KPROBE_EVENTS", exists("/sys/bus/event_source/devices/kprobe/type")}
	// KernelTypes is the kernel's description of its own types (341dfcf8d78e, v5.4).
	KernelTypes = Feature{"types described by the kernel", 5, 4, "CONFIG_DEBUG_INFO_BTF", exists("/sys/kernel/btf/vmlinux")}
)

// Processes are what a probe of a process needs on every node: Linux 5.17 has them all.
var Processes = []Feature{KernelTypes, RingBuffer, AttachCookie, Loop}

func helper(f asm.BuiltinFunc) func() bool {
	return func() bool { return features.HaveProgramHelper(ebpf.Kprobe, f) == nil }
}

func exists(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

func landlock(version uintptr) func() bool {
	return func() bool {
		const askVersion = 1 // LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h
		got, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, askVersion)
		return errno == 0 && got >= version
	}
}

// Need skips a test on a kernel that is older than a feature which it lacks, and says so. On a kernel that ought to have the feature the test
// fails, unless this kernel is known to be built without it; the kernels that are emulated for the tests are not.
func Need(t testing.TB, all ...Feature) {
	t.Helper()
	release, err := kernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.has() {
			continue
		}
		skip, reason := f.judge(release, Emulated())
		if !skip {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
}

// judge says why a kernel lacks a feature, and whether it may.
func (f Feature) judge(release string, emulated bool) (may bool, reason string) {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false, fmt.Sprintf("the kernel calls itself %q: %v", release, err)
	}
	switch {
	case major < f.major || major == f.major && minor < f.minor:
		return true, fmt.Sprintf("%s came with Linux %d.%d; this is %s", f.name, f.major, f.minor, release)
	case f.config != "" && !emulated:
		return true, fmt.Sprintf("%s is not in this kernel, which can be built without (%s): %s", f.name, f.config, release)
	}
	return false, fmt.Sprintf("%s is in Linux since %d.%d and not found in %s", f.name, f.major, f.minor, release)
}

func kernelRelease() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b)), err
}

// Emulated says whether this is a kernel that the tests have booted in an emulator: some ten times slower than this machine, with the
// programs that a test needs in a directory instead of compilers, and with no races between cores to find.
func Emulated() bool { return os.Getenv(programsEnvironment) != "" }

// Scale is how often a test does what it does n times on this machine: a tenth of that on an emulated kernel.
func Scale(n int) int {
	if Emulated() {
		return max(1, n/10)
	}
	return n
}

// Slow is how long a test gives to what takes d on this machine.
func Slow(d time.Duration) time.Duration {
	if Emulated() {
		return 10 * d
	}
	return d
}

var errNoProgram = errors.New("is not among the programs that were built for this kernel: name it in test/kernels")

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/kbtf"
)

// Supported says in one sentence what this process or its kernel lacks to load a probe; nil if nothing. It finds out by
// loading the real object, with an empty plan, and only then looks for the reason: what a version number promises and
// what a load answers differ. With perfEvents the kernel needs no uprobe_multi links.
func Supported(perfEvents bool) error {
	nothing := &plan.Plan{}
	nothing.Identity.PID = os.Getpid()
	loaded, err := load(nothing, Options{LatestDeadlineNs: 1, RingBytes: os.Getpagesize(), PerfEvents: perfEvents})
	if err == nil {
		return loaded.Close()
	}
	if reason := lacking(perfEvents); reason != "" {
		return fmt.Errorf("no probe can be loaded here: %s", reason)
	}
	return fmt.Errorf("no probe can be loaded here: %w", err)
}

// lacking names the first thing that is missing, in the order in which a load needs them.
func lacking(perfEvents bool) string {
	var status unix.CapUserHeader
	status.Version = unix.LINUX_CAPABILITY_VERSION_3
	var caps [2]unix.CapUserData
	if err := unix.Capget(&status, &caps[0]); err == nil {
		has := func(c uint) bool { return caps[c/32].Effective>>(c%32)&1 == 1 }
		if !has(unix.CAP_SYS_ADMIN) && (!has(unix.CAP_BPF) || !has(unix.CAP_PERFMON)) {
			return "this process has not the capabilities BPF and PERFMON; run it as root or give it these two"
		}
	}
	if _, err := os.Stat(kbtf.Path); errors.Is(err, os.ErrNotExist) {
		return "the kernel does not describe its types (" + kbtf.Path + "; it is built with CONFIG_DEBUG_INFO_BTF)"
	}
	if errors.Is(features.HaveMapType(ebpf.RingBuf), ebpf.ErrNotSupported) {
		return "the kernel has no eBPF ring buffer (Linux 5.8)"
	}
	if !hasLoop() {
		return "the kernel has no bpf_loop (Linux 5.17)"
	}
	if !perfEvents && !hasUprobeMulti() {
		return errNoUprobeMulti.Error()
	}
	return ""
}

// hasLoop asks the kernel's own list of helpers. A load that tries bpf_loop would not always answer: kernels before 5.11
// charge eBPF memory to RLIMIT_MEMLOCK, give it back late, and refuse the next load with EPERM until they have.
func hasLoop() bool {
	file, err := os.Open(kbtf.Path)
	if err != nil {
		return true // what the load said is the better answer
	}
	defer file.Close()
	types, err := kbtf.Open(file)
	return err != nil || types.HasHelper("loop")
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Finding is one sentence about a node: what it can do or cannot, why, and what would change it.
type Finding struct {
	Subject string `json:"subject"`
	State   State  `json:"state"`
	Text    string `json:"text"`
	// Advice is what would change it; empty if nothing needs to, or can, be changed.
	Advice string `json:"advice,omitempty"`
}

// A State is how a finding bears on what the node can do.
type State string

// The states.
const (
	Good    State = "good"
	Limited State = "limited" // something is refused, the rest works
	Missing State = "missing" // nothing can be probed
	Fact    State = "fact"    // it bears on nothing
)

// monitorNeeds are the capabilities of a monitor.
var monitorNeeds = []string{"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"}

// Findings are the report in plain words, what matters most first.
func (r *Report) Findings() []Finding {
	list := []Finding{r.sessions(), r.cost()}
	list = append(list, r.kernel()...)
	list = append(list, r.machine()...)
	return append(list, r.sites()...)
}

func (r *Report) sessions() Finding {
	if err := r.SelfTest.Err(); err != nil {
		return Finding{"sessions", Missing, fmt.Sprintf("this node takes none: %v", err), "see what is missing below, then start the agent again"}
	}
	return Finding{"sessions", Good, fmt.Sprintf("this node takes sessions: the self-test passed in %v", r.SelfTest.Took.Round(time.Millisecond)), ""}
}

func (r *Report) cost() Finding {
	if r.SelfTest.Trap <= 0 {
		return Finding{"cost of a hit", Missing, "it was not measured", ""}
	}
	return Finding{
		"cost of a hit", Good,
		fmt.Sprintf("a hit takes %v from its process, beside what the probe reads (the median of %d); 1,000 calls a second take %.2g %% of a core",
			r.SelfTest.Trap, r.SelfTest.Hits, float64(r.SelfTest.Trap)*1000/float64(time.Second)*100), "",
	}
}

func (r *Report) kernel() []Finding {
	f := &r.Facts
	list := []Finding{{"kernel", Fact, fmt.Sprintf("Linux %s on %s", or(f.Kernel, "of an unknown release"), or(f.Arch, "an unknown architecture")), ""}}
	if f.BTF {
		list = append(list, Finding{"BTF", Good, "the kernel describes its types, which the program needs to find a process's number", ""})
	} else {
		list = append(list, Finding{"BTF", Missing, "the kernel does not describe its types (/sys/kernel/btf/vmlinux)", "a kernel built with CONFIG_DEBUG_INFO_BTF"})
	}
	switch f.Lockdown {
	case "confidentiality":
		list = append(list, Finding{"lockdown", Limited, "the kernel is locked down for confidentiality: it refuses to read its own memory for a program", "lockdown=integrity when the kernel starts"})
	case "integrity":
		list = append(list, Finding{"lockdown", Good, "the kernel is locked down for integrity, in which probes of processes work", ""})
	default:
		list = append(list, Finding{"lockdown", Fact, "the kernel is not locked down, or does not say so (/sys/kernel/security is not mounted)", ""})
	}
	switch {
	case f.UprobeMulti && !uprobeMultiMended(f.Kernel):
		list = append(list, Finding{
			"uprobe_multi", Limited, "it works, and this release had a fault that an attach which fails can set off (CVE-2024-47675), unless its distribution has mended it",
			"Linux 6.6.54, 6.10.13, 6.11.2, or 6.12 and later",
		})
	case f.UprobeMulti:
		list = append(list, Finding{"uprobe_multi", Good, "the kernel binds a probe to its process, with one link for all places", ""})
	case f.PerfEvents:
		list = append(list, Finding{
			"uprobe_multi", Limited, "the kernel has no such links: each place of a probe is a perf event, which costs the monitor CAP_SYS_ADMIN, and a process whose first thread has ended cannot be probed",
			"Linux 6.6 or later",
		})
	default:
		list = append(list, Finding{"uprobe_multi", Missing, "the kernel has no such links", "Linux 6.6 or later, or keyhole-agent --perf-events"})
	}
	if f.Kprobes {
		list = append(list, Finding{"kernel functions", Good, "the kernel lets programs be put on its own functions", ""})
	} else {
		list = append(list, Finding{"kernel functions", Limited, "functions of the kernel cannot be probed: it has no kprobes", "a kernel built with CONFIG_KPROBE_EVENTS"})
	}
	return list
}

// uprobeMultiMended says whether a release has commit 5fe6e308abae, or that of its branch. A distribution's may have it under an older
// number, which is why it is said, and nothing refused.
func uprobeMultiMended(release string) bool {
	for branch, from := range map[[2]int]int{{6, 6}: 54, {6, 10}: 13, {6, 11}: 2} {
		if patch, ok := patchOf(release, branch); ok {
			return patch >= from
		}
	}
	return atLeast(release, [2]int{6, 12})
}

func (r *Report) machine() []Finding {
	f := &r.Facts
	var lacks []string
	for _, c := range monitorNeeds {
		if !slices.Contains(f.Capabilities, c) {
			lacks = append(lacks, c)
		}
	}
	list := []Finding{{"capabilities", Good, "the monitor has the four that it needs: " + strings.Join(monitorNeeds, ", "), ""}}
	if len(lacks) > 0 {
		list[0] = Finding{"capabilities", Missing, "the agent cannot have the capabilities " + strings.Join(lacks, ", "), "start it as root, and give its container these capabilities"}
	}
	list = append(list,
		sysctl("perf_event_paranoid", f.PerfEventParanoid, func(n int) Finding {
			if !f.UprobeMulti {
				return Finding{"", Good, fmt.Sprintf("is %d, which does not matter: with --perf-events the agent has CAP_SYS_ADMIN", n), ""}
			}
			return Finding{"", Good, fmt.Sprintf("is %d, which does not matter: probes are no perf events", n), ""}
		}),
		sysctl("unprivileged_bpf_disabled", f.UnprivilegedBPFDisabled, func(n int) Finding {
			if n == 0 {
				return Finding{"", Limited, "is 0: any user may load some eBPF programs", "sysctl kernel.unprivileged_bpf_disabled=2"}
			}
			return Finding{"", Good, fmt.Sprintf("is %d: only processes with CAP_BPF load programs", n), ""}
		}),
		mounted("tracefs", f.Tracefs, "Keyhole does not use it on kernels with uprobe_multi"),
		mounted("bpffs", f.BPFFS, "Keyhole pins nothing, and does not use it"),
	)
	switch {
	case f.Cgroup2 != "":
		list = append(list, Finding{"cgroups", Good, "version 2 at " + f.Cgroup2 + also(f.Cgroup1, ", and memory of version 1") + ": a process without room for a copied page is not probed", ""})
	case f.Cgroup1:
		list = append(list, Finding{"cgroups", Good, "version 1: a process without room for a copied page is not probed", ""})
	default:
		list = append(list, Finding{
			"cgroups", Limited, "no control group can be seen from here: nobody looks whether a process has room for the pages that a probe copies (4 KiB each)",
			"mount /sys/fs/cgroup into the agent's container",
		})
	}
	switch {
	case f.Landlock < 2, f.Landlock < 3 && !f.PerfEvents:
		list = append(list, Finding{
			"Landlock", Missing, fmt.Sprintf("the kernel enforces version %d, and the agent does not start below 3 (2 with --perf-events): nothing would bound its files", f.Landlock),
			"Linux 6.2 or later, with landlock named in the boot parameter lsm=",
		})
	case f.Landlock < 6:
		list = append(list, Finding{"Landlock", Limited, "it bounds the agent's files, not whom it may signal", "Linux 6.12 or later"})
	default:
		list = append(list, Finding{"Landlock", Good, "it bounds the agent's files and whom it may signal", ""})
	}
	if !f.Seccomp {
		list = append(list, Finding{"seccomp", Missing, "the kernel cannot filter system calls, and the agent's processes do not start without", "a kernel built with CONFIG_SECCOMP_FILTER"})
	}
	return list
}

func (r *Report) sites() []Finding {
	var list []Finding
	for _, c := range []struct{ name, subject, good, unsafe, advice string }{
		{
			CheckNOP5, "NOPs of 5 bytes", "a breakpoint on one harms nobody", "a probe stands behind them, or is refused",
			"a kernel with the fix of July 2026 (it rewrites NOPs of 10 bytes instead)",
		},
		{CheckNOP10, "NOPs of 10 bytes", "a breakpoint on one harms nobody", "a probe stands behind them, or is refused", ""},
		{CheckReturn, "returns of C, C++ and Rust", "a probe on one harms nobody", "probes on them are refused", "a newer kernel"},
		{
			CheckReturnSeccomp, "returns under seccomp", "a probe on one harms nobody", "they are refused in processes whose system calls are filtered",
			"a kernel from 6.14 on",
		},
	} {
		switch o, text := r.SelfTest.Outcome(c.name); o {
		case Pass:
			list = append(list, Finding{c.subject, Good, c.good, ""})
		case Unsafe:
			list = append(list, Finding{c.subject, Limited, text + ": " + c.unsafe, c.advice})
		}
	}
	if since := shadowStackSince[r.Facts.Arch]; !atLeast(r.Facts.Kernel, since) {
		list = append(list, Finding{
			"returns with a shadow stack", Limited, "they are refused in processes that have one: the kernel would crash them",
			fmt.Sprintf("a kernel from %d.%d on", since[0], since[1]),
		})
	}
	return list
}

func sysctl(name string, n int, say func(int) Finding) Finding {
	if n == Unknown {
		return Finding{name, Fact, "cannot be read", ""}
	}
	f := say(n)
	f.Subject = name
	return f
}

func mounted(name, where, use string) Finding {
	if where == "" {
		return Finding{name, Fact, "not mounted; " + use, ""}
	}
	return Finding{name, Fact, "at " + where + "; " + use, ""}
}

func also(b bool, text string) string {
	if b {
		return text
	}
	return ""
}

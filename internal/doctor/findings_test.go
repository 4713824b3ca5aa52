// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"slices"
	"strings"
	"testing"
)

// able is a node that lacks nothing.
func able() *Report {
	return &Report{
		Facts: Facts{
			Kernel: "7.3.4", Arch: "amd64", BTF: true, Lockdown: "integrity", Capabilities: monitorNeeds, PerfEventParanoid: 4, UnprivilegedBPFDisabled: 2,
			Tracefs: "/sys/kernel/tracing", BPFFS: "/sys/fs/bpf", Cgroup2: "/sys/fs/cgroup", Kprobes: true, UprobeMulti: true, Seccomp: true, Landlock: 6,
		},
		SelfTest: passed(),
	}
}

func TestFindings(t *testing.T) {
	for _, f := range able().Findings() {
		if f.State != Good && f.State != Fact || f.Advice != "" || f.Text == "" || f.Subject == "" {
			t.Errorf("of a node that lacks nothing: %+v", f)
		}
	}
	for name, c := range map[string]struct {
		change  func(*Report)
		subject string
		state   State
		text    string
		advice  string
	}{
		"self-test":    {func(r *Report) { r.SelfTest = with(CheckDetach, Fail, "a byte stayed") }, "sessions", Missing, "detach): a byte stayed", "start the agent again"},
		"no cost":      {func(r *Report) { r.SelfTest.Trap = 0 }, "cost of a hit", Missing, "not measured", ""},
		"BTF":          {func(r *Report) { r.Facts.BTF = false }, "BTF", Missing, "does not describe", "CONFIG_DEBUG_INFO_BTF"},
		"lockdown":     {func(r *Report) { r.Facts.Lockdown = "confidentiality" }, "lockdown", Limited, "confidentiality", "integrity"},
		"capabilities": {func(r *Report) { r.Facts.Capabilities = []string{"BPF"} }, "capabilities", Missing, "PERFMON, SYS_PTRACE, DAC_READ_SEARCH", "as root"},
		"eBPF for all": {func(r *Report) { r.Facts.UnprivilegedBPFDisabled = 0 }, "unprivileged_bpf_disabled", Limited, "any user", "sysctl"},
		"cgroups":      {func(r *Report) { r.Facts.Cgroup2 = "" }, "cgroups", Limited, "no control group", "mount"},
		"kprobes":      {func(r *Report) { r.Facts.Kprobes = false }, "kernel functions", Limited, "cannot be probed", "CONFIG_KPROBE_EVENTS"},
		"uprobe_multi": {func(r *Report) { r.Facts.UprobeMulti = false }, "uprobe_multi", Missing, "no such links", "--perf-events"},
		"perf events": {
			func(r *Report) { r.Facts.UprobeMulti, r.Facts.PerfEvents = false, true }, "uprobe_multi", Limited, "first thread", "6.6",
		},
		"6.6.53":     {func(r *Report) { r.Facts.Kernel = "6.6.53-generic" }, "uprobe_multi", Limited, "CVE-2024-47675", "6.6.54"},
		"6.6.54":     {func(r *Report) { r.Facts.Kernel = "6.6.54" }, "uprobe_multi", Good, "one link", ""},
		"6.9":        {func(r *Report) { r.Facts.Kernel = "6.9.12" }, "uprobe_multi", Limited, "CVE-2024-47675", "6.6.54"},
		"6.12.1":     {func(r *Report) { r.Facts.Kernel = "6.12.1" }, "uprobe_multi", Good, "one link", ""},
		"paranoid":   {func(r *Report) { r.Facts.UprobeMulti = false }, "perf_event_paranoid", Good, "CAP_SYS_ADMIN", ""},
		"Landlock":   {func(r *Report) { r.Facts.Landlock = 2 }, "Landlock", Missing, "version 2", "lsm="},
		"no signals": {func(r *Report) { r.Facts.Landlock = 4 }, "Landlock", Limited, "not whom it may signal", "6.12"},
		"seccomp":    {func(r *Report) { r.Facts.Seccomp = false }, "seccomp", Missing, "filter", "CONFIG_SECCOMP_FILTER"},
		"red zone":   {func(r *Report) { r.SelfTest = with(CheckNOP5, Unsafe, "overwritten") }, "NOPs of 5 bytes", Limited, "overwritten: a probe stands behind them", "July 2026"},
		"seccomp kills": {
			func(r *Report) { r.SelfTest = with(CheckReturnSeccomp, Unsafe, "it died") }, "returns under seccomp", Limited, "it died: they are refused", "6.14",
		},
		"shadow stack": {func(r *Report) { r.Facts.Kernel = "6.6.1" }, "returns with a shadow stack", Limited, "refused", "6.11"},
	} {
		r := able()
		c.change(r)
		found := slices.ContainsFunc(r.Findings(), func(f Finding) bool {
			return f.Subject == c.subject && f.State == c.state && strings.Contains(f.Text, c.text) && strings.Contains(f.Advice, c.advice)
		})
		if !found {
			t.Errorf("%s: not among %+v", name, r.Findings())
		}
	}
	if len((&Report{}).Findings()) == 0 {
		t.Error("of a node of which nothing is known nothing is said")
	}
}

// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/doctor"
)

func TestGather(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"sys/kernel/btf/vmlinux":                    "x",
		"sys/kernel/security/lockdown":              "none [integrity] confidentiality\n",
		"proc/sys/kernel/perf_event_paranoid":       "-1\n",
		"proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
		"sys/bus/event_source/devices/kprobe/type":  "8\n",
		"proc/self/mounts": "tracefs /sys/kernel/tracing tracefs rw,nosuid 0 0\nshort\nbpf /sys/fs/bpf bpf rw 0 0\n" +
			"cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := gather(root)
	if !got.BTF || got.Lockdown != "integrity" || got.PerfEventParanoid != -1 || got.UnprivilegedBPFDisabled != 2 || !got.Kprobes || got.Seccomp ||
		got.Tracefs != "/sys/kernel/tracing" || got.BPFFS != "/sys/fs/bpf" || got.Cgroup2 != "/sys/fs/cgroup/unified" || !got.Cgroup1 {
		t.Errorf("%+v", got)
	}
	if got := gather(t.TempDir()); got.BTF || got.Lockdown != "" || got.PerfEventParanoid != doctor.Unknown {
		t.Errorf("of an empty machine: %+v", got)
	}
	if own := Gather(true); own.Kernel == "" || !own.PerfEvents || own.Arch == "" {
		t.Errorf("of this machine: %+v", own)
	}
}

// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/doctor"
)

// Gather reads what the kernel says of itself and this machine; perfEvents is what the node says.
func Gather(perfEvents bool) doctor.Facts {
	f := gather("/")
	var host unix.Utsname
	if unix.Uname(&host) == nil {
		f.Kernel = unix.ByteSliceToString(host.Release[:])
	}
	f.Arch = runtime.GOARCH
	f.UprobeMulti, f.PerfEvents = loader.HasUprobeMulti(), perfEvents
	if version, err := landlock.LandlockGetABIVersion(); err == nil {
		f.Landlock = version
	}
	f.Capabilities = capabilities()
	return f
}

// gather reads the files of the machine below root.
func gather(root string) doctor.Facts {
	read := func(path string) string {
		f, err := os.Open(filepath.Join(root, path))
		if err != nil {
			return ""
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	number := func(path string) int {
		n, err := strconv.Atoi(read(path))
		if err != nil {
			return doctor.Unknown
		}
		return n
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	f := doctor.Facts{
		BTF:                     exists("sys/kernel/btf/vmlinux"),
		Lockdown:                chosen(read("sys/kernel/security/lockdown")),
		PerfEventParanoid:       number("proc/sys/kernel/perf_event_paranoid"),
		UnprivilegedBPFDisabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
		Kprobes:                 exists("sys/bus/event_source/devices/kprobe"),
		Seccomp:                 exists("proc/sys/kernel/seccomp"),
	}
	mounts(read("proc/self/mounts"), &f)
	return f
}

// chosen is the word in brackets of "none [integrity] confidentiality".
func chosen(list string) string {
	_, rest, _ := strings.Cut(list, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// mounts reads proc_pid_mounts(5).
func mounts(text string, f *doctor.Facts) {
	lines := bufio.NewScanner(bytes.NewReader([]byte(text)))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		where, options := fields[1], ","+fields[3]+","
		switch fields[2] {
		case "tracefs":
			f.Tracefs = where
		case "bpf":
			f.BPFFS = where
		case "cgroup2":
			f.Cgroup2 = where
		case "cgroup":
			f.Cgroup1 = f.Cgroup1 || strings.Contains(options, ",memory,")
		}
	}
}

// capabilities are those of the four that a monitor needs which this process could have: its bounding set, and root.
func capabilities() []string {
	list := []string{}
	for _, c := range []struct {
		number uintptr
		name   string
	}{{unix.CAP_BPF, "BPF"}, {unix.CAP_PERFMON, "PERFMON"}, {unix.CAP_SYS_PTRACE, "SYS_PTRACE"}, {unix.CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH"}} {
		if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c.number, 0, 0, 0); err == nil && n == 1 && os.Geteuid() == 0 {
			list = append(list, c.name)
		}
	}
	return list
}

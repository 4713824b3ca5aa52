// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// A syscallPolicy is what a process may ask of the kernel. Where it lists what is allowed all else answers EPERM, because libraries try
// things that they can do without; a death would turn each such try into a lost session. What no honest path ever
// tries kills. Filters add up: a child has its parent's as well as its own, and the stricter answer counts.
type syscallPolicy struct {
	others seccomp.Action // on what is not named; 0: EPERM
	allow  []string
	refuse []seccomp.NameWithConditions // allowed, but not with these arguments
	kill   []string
}

// Each name must be a system call of amd64 or of arm64; those that the other one lacks are left out there.

// runtimeCalls are what Go's runtime does at any time, and the C library's threads where it is linked in.
var runtimeCalls = []string{
	"arch_prctl", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "getcpu", "getpid", "getppid",
	"getrandom", "gettid", "getrlimit", "gettimeofday", "getuid", "geteuid", "getgid", "getegid", "madvise", "membarrier", "mincore", "mremap", "munmap",
	"nanosleep", "prlimit64", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield",
	"set_robust_list", "set_tid_address", "sigaltstack", "sysinfo", "tgkill", "uname",
}

// fileCalls are reading and writing what is open, and waiting for it.
var fileCalls = []string{
	"close", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "fcntl", "fstat", "lseek", "poll", "ppoll",
	"pread64", "read", "readv", "timerfd_create", "timerfd_gettime", "timerfd_settime", "write", "writev",
}

// escapes are what lets a process become another one, look into one, or reach parts of the kernel that none of ours needs.
var escapes = []string{
	"execve", "execveat", "finit_module", "fork", "init_module", "io_uring_setup", "kexec_load", "mount", "move_mount", "open_by_handle_at",
	"perf_event_open", "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "setns", "unshare", "userfaultfd", "vfork",
}

// sockets are what reaches other processes and machines.
var sockets = []string{"accept", "accept4", "bind", "connect", "listen", "socket", "socketpair"}

// namespaces are the flags of clone that make any.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// setVMAName is PR_SET_VMA, by which Go's runtime names its memory.
const setVMAName = 0x53564d41

// openNothing are the conditions on calls of a process that has nothing but its open descriptors.
func openNothing() []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{
		refuse("clone", seccomp.BitsSet, namespaces),
		{Name: "mmap", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsSet, Value: unix.PROT_EXEC}}},
		{Name: "mprotect", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsSet, Value: unix.PROT_EXEC}}},
		refuse("prctl", seccomp.NotEqual, setVMAName, unix.PR_SET_NAME),
	}
}

// agentPolicy: what the network needs cannot be listed, but it does not need to escape.
func agentPolicy() syscallPolicy {
	return syscallPolicy{
		others: seccomp.ActionAllow,
		refuse: []seccomp.NameWithConditions{refuse("clone", seccomp.BitsSet, namespaces)},
		kill:   append([]string{"bpf"}, escapes...),
	}
}

// inspectorPolicy: compute, read what is open, answer.
func inspectorPolicy() syscallPolicy {
	return syscallPolicy{
		allow:  slices.Concat(runtimeCalls, fileCalls, []string{"clone", "mmap", "mprotect", "prctl"}),
		refuse: openNothing(),
		kill:   slices.Concat(escapes, sockets, []string{"bpf"}),
	}
}

// readerPolicy: the same, and eBPF maps that are open.
func readerPolicy() syscallPolicy {
	return syscallPolicy{
		allow:  slices.Concat(runtimeCalls, fileCalls, []string{"bpf", "clone", "mmap", "mprotect", "prctl"}),
		refuse: append(openNothing(), refuse("bpf", seccomp.NotEqual, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_OBJ_GET_INFO_BY_FD)),
		kill:   slices.Concat(escapes, sockets),
	}
}

// monitorPolicy: files, children, eBPF, and socket pairs with them, but no other socket. What it starts inherits this, so
// it includes what an executable does when it starts.
func monitorPolicy() syscallPolicy {
	return syscallPolicy{
		allow: slices.Concat(runtimeCalls, fileCalls, []string{
			"access", "bpf", "capget", "capset", "clone", "clone3", "close_range", "dup", "dup2", "dup3", "execve", "faccessat", "faccessat2", "fadvise64",
			"fstatat", "fstatfs", "getcwd", "getdents64", "getpgid", "getsockopt", "ioctl", "lstat", "memfd_create", "mlock", "mmap", "mprotect", "newfstatat",
			"open", "openat", "openat2", "personality", "pidfd_open", "pidfd_send_signal", "pipe2", "prctl", "readlink", "readlinkat", "recvmsg", "seccomp", "sendmsg",
			"setpgid", "setrlimit", "shutdown", "socketpair", "stat", "statfs", "statx", "vfork", "wait4", "waitid",
		}),
		refuse: []seccomp.NameWithConditions{
			refuse("clone", seccomp.BitsSet, namespaces),
			refuse("socketpair", seccomp.NotEqual, unix.AF_UNIX),
		},
	}
}

// refuse refuses a call whose first argument compares so with each of the values.
func refuse(name string, operation seccomp.Operation, values ...uint64) seccomp.NameWithConditions {
	var all seccomp.ArgumentConditions
	for _, v := range values {
		all = append(all, seccomp.Condition{Argument: 0, Operation: operation, Value: v})
	}
	return seccomp.NameWithConditions{Name: name, Conditions: all}
}

// install filters the system calls of all threads of this process, and of what it starts, for good. The process must
// have no_new_privs.
func (p syscallPolicy) install() error {
	filters, err := p.compile("")
	if err != nil {
		return err
	}
	for _, f := range filters {
		if err := seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: f}); err != nil {
			return fmt.Errorf("filter system calls: %w", err)
		}
	}
	return nil
}

// compile makes two filters, of both of which a call must pass: one knows only arguments, one only names. In one program the library
// would go on comparing names with an argument once a condition has loaded it. In the filter of arguments, where what
// matches is refused, that can only refuse too much.
// The architecture "" is the one that we run on.
func (p syscallPolicy) compile(architecture string) ([]seccomp.Policy, error) {
	info, err := arch.GetInfo(architecture)
	if err != nil {
		return nil, fmt.Errorf("filter system calls: %w", err)
	}
	known := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			_, ok := info.SyscallNames[name]
			return !ok
		})
	}
	others := p.others
	if others == 0 {
		others = seccomp.ActionErrno // EPERM
	}
	names := []seccomp.SyscallGroup{
		{Names: known(p.allow), Action: seccomp.ActionAllow},
		{Names: known(p.kill), Action: seccomp.ActionKillProcess},
	}
	if !slices.Contains(p.allow, "clone3") {
		// Its flags are in memory, where a filter cannot look. ENOSYS makes the C library take clone.
		names = append(names, seccomp.SyscallGroup{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)})
	}
	return []seccomp.Policy{
		{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{NamesWithCondtions: p.refuse, Action: seccomp.ActionErrno}}},
		{DefaultAction: others, Syscalls: names},
	}, nil
}

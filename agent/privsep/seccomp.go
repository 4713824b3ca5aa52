// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A syscallPolicy is what a process may ask of the kernel. Where it lists what is allowed all else answers EPERM, because libraries try
// things that they can do without; a death would turn each such try into a lost session. What no honest path ever
// tries kills. Filters add up: a child has its parent's as well as its own, and the stricter answer counts.
type syscallPolicy struct {
	others seccomp.Action // on what is not named; 0: EPERM
	allow  []string
	refuse []seccomp.NameWithConditions // allowed, but not with these arguments
	deny   []string                     // EPERM
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

// strangers are what changes other processes of the same user: all of ours are user 0, and so is most of a node. Their limits are what
// ownLimits is about, their signals what ownSignals is.
var strangers = []string{
	"ioprio_set", "kill", "move_pages", "migrate_pages", "pidfd_send_signal", "process_madvise", "process_mrelease", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
	"sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "setpgid", "setpriority", "tkill",
}

// attributes are what changes whose a file is and what others may do with it. Landlock lets everybody do so who owns the file, and root's
// files are the agent's: a shell that anybody runs as root would be one call away.
var attributes = []string{
	"chmod", "chown", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fremovexattr", "fsetxattr", "futimesat", "lchown", "lremovexattr", "lsetxattr",
	"removexattr", "removexattrat", "setxattr", "setxattrat", "utime", "utimensat", "utimes",
}

// ownLimits refuses to look at or set limits but the process's own.
func ownLimits() seccomp.NameWithConditions { return refuse("prlimit64", seccomp.NotEqual, 0) }

// ownSignals refuses to signal another process's threads: Go's runtime signals its own. It holds for the calling process only, not for what that starts.
func ownSignals() seccomp.NameWithConditions {
	return refuse("tgkill", seccomp.NotEqual, uint64(os.Getpid()))
}

// openNothing are the conditions on calls of a process that has nothing but its open descriptors.
func openNothing() []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{
		ownLimits(), ownSignals(),
		refuse("clone", seccomp.BitsSet, namespaces),
		{Name: "mmap", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsSet, Value: unix.PROT_EXEC}}},
		{Name: "mprotect", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsSet, Value: unix.PROT_EXEC}}},
		refuse("prctl", seccomp.NotEqual, setVMAName, unix.PR_SET_NAME),
	}
}

// agentPolicy: what the network needs cannot be listed, but it does not need to escape. Of sockets it needs those of the Internet and, to learn of
// interfaces, netlink: a Unix socket of the node (a container engine's, the message bus) would take its word for root's.
func agentPolicy(landlock int) syscallPolicy {
	p := syscallPolicy{
		others: seccomp.ActionAllow,
		refuse: []seccomp.NameWithConditions{
			refuse("clone", seccomp.BitsSet, namespaces),
			refuse("socket", seccomp.NotEqual, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK),
			ownLimits(), ownSignals(), notify(unix.F_SETOWN), notify(unix.F_SETSIG), notify(unix.F_SETOWN_EX),
		},
		deny: slices.Concat([]string{"socketpair"}, strangers, attributes),
		kill: append([]string{"bpf"}, escapes...),
	}
	if landlock < truncationLandlock {
		p.deny = append(p.deny, "truncate", "creat", "openat2")
		p.refuse = slices.Concat(p.refuse, truncates("open", 1), truncates("openat", 2))
	}
	return p
}

// notify refuses a command of fcntl by which a file's news become signals to another process: kernels before 6.12 do not ask Landlock.
func notify(command uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: "fcntl", Conditions: seccomp.ArgumentConditions{{Argument: 1, Operation: seccomp.Equal, Value: command}}}
}

// truncates refuses to open a file and to truncate it by that, unless the file is opened to write: that is for Landlock to refuse. The fourth
// way to open a file, O_WRONLY|O_RDWR, is neither to read nor to write (open(2)), and Landlock lets it through; yet it truncates.
func truncates(name string, flags uint32) []seccomp.NameWithConditions {
	truncate := seccomp.Condition{Argument: flags, Operation: seccomp.BitsSet, Value: unix.O_TRUNC}
	return []seccomp.NameWithConditions{
		{Name: name, Conditions: seccomp.ArgumentConditions{
			truncate, {Argument: flags, Operation: seccomp.BitsNotSet, Value: unix.O_WRONLY | unix.O_RDWR},
		}},
		{Name: name, Conditions: seccomp.ArgumentConditions{
			truncate, {Argument: flags, Operation: seccomp.BitsSet, Value: unix.O_WRONLY}, {Argument: flags, Operation: seccomp.BitsSet, Value: unix.O_RDWR},
		}},
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

// readerPolicy: the same, and eBPF maps that are open. One that pauses receives descriptors.
func readerPolicy(pauses bool) syscallPolicy {
	p := syscallPolicy{
		allow:  slices.Concat(runtimeCalls, fileCalls, []string{"bpf", "clone", "mmap", "mprotect", "prctl"}),
		refuse: append(openNothing(), refuse("bpf", seccomp.NotEqual, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_GET_NEXT_KEY, unix.BPF_OBJ_GET_INFO_BY_FD)),
		kill:   slices.Concat(escapes, sockets),
	}
	if pauses {
		p.allow = append(p.allow, "recvmsg")
	}
	return p
}

// monitorPolicy: files, children, eBPF, and socket pairs with them, but no other socket. What it starts inherits this, so
// it includes what an executable does when it starts.
func monitorPolicy(perfEvents bool) syscallPolicy {
	p := syscallPolicy{
		allow: slices.Concat(runtimeCalls, fileCalls, []string{
			"access", "bpf", "capget", "capset", "clone", "clone3", "close_range", "dup", "dup2", "dup3", "execve", "faccessat", "faccessat2", "fadvise64",
			"fstatat", "fstatfs", "getcwd", "getdents64", "getpgid", "getsockopt", "ioctl", "lstat", "memfd_create", "mlock", "mmap", "mprotect", "newfstatat",
			"open", "openat", "openat2", "perf_event_open", "personality", "pidfd_open", "pidfd_send_signal", "pipe2", "prctl", "readlink", "readlinkat", "recvmsg", "seccomp", "sendmsg",
			"setpgid", "setrlimit", "shutdown", "socketpair", "stat", "statfs", "statx", "vfork", "wait4", "waitid",
		}),
		refuse: []seccomp.NameWithConditions{
			refuse("clone", seccomp.BitsSet, namespaces),
			refuse("socketpair", seccomp.NotEqual, unix.AF_UNIX),
			ownLimits(),
		},
	}
	if !perfEvents {
		p.refuse = append(p.refuse, noProcess())
	}
	return p
}

// noProcess refuses perf events of one process: kprobes, which are events of all, are what these are opened for.
func noProcess() seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: "perf_event_open", Conditions: seccomp.ArgumentConditions{
		{Argument: 1, Operation: seccomp.NotEqual, Value: math.MaxUint64},
	}}
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
	if err := nativeOnly(); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	for _, f := range filters {
		if err := seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: f}); err != nil {
			return fmt.Errorf("filter system calls: %w", err)
		}
	}
	return nil
}

// nativeOnly kills a process that enters the kernel by another architecture's door (int 0x80 on amd64), where the names of the other filters mean
// nothing: they let such calls through if they let through what they do not name.
func nativeOnly() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	program, err := bpf.Assemble(nativeFilter(info))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}

// nativeFilter looks at struct seccomp_data.arch (include/uapi/linux/seccomp.h).
func nativeFilter(info *arch.Info) []bpf.Instruction {
	const archOffset = 4
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionKillProcess)},
		bpf.RetConstant{Val: uint32(seccomp.ActionAllow)},
	}
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
		{Names: known(p.deny), Action: seccomp.ActionErrno},
		{Names: known(p.kill), Action: seccomp.ActionKillProcess},
	}
	if !slices.Contains(p.allow, "clone3") {
		// Its flags are in memory, where a filter cannot look. ENOSYS makes the C library take clone.
		names = append(names, seccomp.SyscallGroup{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)})
	}
	refuse := slices.DeleteFunc(slices.Clone(p.refuse), func(r seccomp.NameWithConditions) bool { return len(known([]string{r.Name})) == 0 })
	return []seccomp.Policy{
		{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{NamesWithCondtions: refuse, Action: seccomp.ActionErrno}}},
		{DefaultAction: others, Syscalls: names},
	}, nil
}

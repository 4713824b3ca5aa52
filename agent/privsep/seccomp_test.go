// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var policies = map[string]func() syscallPolicy{
	"agent":              func() syscallPolicy { return agentPolicy(truncationLandlock) },
	"agent, Linux 6.1":   func() syscallPolicy { return agentPolicy(oldLandlock) },
	"inspector":          inspectorPolicy,
	"reader":             func() syscallPolicy { return readerPolicy(false) },
	"reader that pauses": func() syscallPolicy { return readerPolicy(true) },
	"monitor":            func() syscallPolicy { return monitorPolicy(false) },
	"monitor, Linux 6.1": func() syscallPolicy { return monitorPolicy(true) },
}

// TestPolicyNames catches a misspelt system call, which would silently be left out.
func TestPolicyNames(t *testing.T) {
	for name, policy := range policies {
		p := policy()
		names := slices.Concat(p.allow, p.deny, p.kill)
		for _, r := range p.refuse {
			names = append(names, r.Name)
		}
		for _, n := range names {
			_, amd64 := arch.X86_64.SyscallNames[n]
			_, arm64 := arch.AARCH64.SyscallNames[n]
			if !amd64 && !arm64 {
				t.Errorf("%s: no system call is named %s", name, n)
			}
		}
	}
}

// A verdict runs a policy's filters on one call, as the kernel would: the strictest answer counts.
func verdict(t *testing.T, filters []seccomp.Policy, info *arch.Info, number int, args ...uint64) seccomp.Action {
	t.Helper()
	strictness := func(a seccomp.Action) int {
		switch a & 0xffff0000 {
		case seccomp.ActionKillProcess:
			return 2
		case seccomp.ActionErrno:
			return 1
		default:
			return 0
		}
	}
	worst := seccomp.ActionAllow
	for _, f := range filters {
		instructions, err := f.Assemble()
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(instructions)
		if err != nil {
			t.Fatal(err)
		}
		// struct seccomp_data, each word as the machine's loads would find it; the virtual machine loads big-endian.
		data := make([]byte, 64)
		put := func(offset int, v uint32) {
			data[offset], data[offset+1], data[offset+2], data[offset+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
		}
		put(0, uint32(number))
		put(4, uint32(info.ID))
		for i, a := range args {
			put(16+8*i, uint32(a)) // little-endian: the lower half first
			put(20+8*i, uint32(a>>32))
		}
		got, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		if a := seccomp.Action(got); strictness(a) > strictness(worst) {
			worst = a
		}
	}
	return worst
}

// TestPolicies runs the compiled filters for every system call of this architecture, which is the one that the library assembles for.
func TestPolicies(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	const refused = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	compiled := make(map[string][]seccomp.Policy)
	for name, policy := range policies {
		p := policy()
		filters, err := p.compile("")
		if err != nil {
			t.Fatal(err)
		}
		compiled[name] = filters
		byArgument := func(call string) bool {
			return slices.ContainsFunc(p.refuse, func(r seccomp.NameWithConditions) bool { return r.Name == call })
		}
		for call, number := range info.SyscallNames {
			want := refused
			if strings.HasPrefix(name, "agent") {
				want = seccomp.ActionAllow
			}
			switch {
			case byArgument(call):
				continue // below
			case slices.Contains(p.allow, call):
				want = seccomp.ActionAllow
			case slices.Contains(p.deny, call):
				want = refused
			case slices.Contains(p.kill, call):
				want = seccomp.ActionKillProcess
			case call == "clone3":
				want = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
			}
			if got := verdict(t, filters, info, number); got != want {
				t.Errorf("%s: %s is answered %#x; want %#x", name, call, uint32(got), uint32(want))
			}
		}
	}
	for _, c := range []struct {
		policy, call string
		args         []uint64
		want         seccomp.Action
	}{
		{"reader", "bpf", []uint64{unix.BPF_MAP_LOOKUP_ELEM}, seccomp.ActionAllow},
		{"agent", "fcntl", []uint64{3, unix.F_SETOWN, 1}, refused},
		{"agent", "fcntl", []uint64{3, 10, 9}, refused}, // F_SETSIG
		{"agent", "fcntl", []uint64{3, 15, 0}, refused}, // F_SETOWN_EX
		{"agent", "fcntl", []uint64{3, unix.F_GETFL}, seccomp.ActionAllow},
		{"agent", "openat", []uint64{0, 0, unix.O_TRUNC}, seccomp.ActionAllow}, // for Landlock to refuse
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_TRUNC}, refused},
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_TRUNC | unix.O_CLOEXEC}, refused},
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_TRUNC | unix.O_ACCMODE}, refused},
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_TRUNC | unix.O_RDWR}, seccomp.ActionAllow},
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_ACCMODE}, seccomp.ActionAllow},
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_TRUNC | unix.O_WRONLY}, seccomp.ActionAllow}, // likewise
		{"agent, Linux 6.1", "openat", []uint64{0, 0, unix.O_RDONLY}, seccomp.ActionAllow},
		{"monitor", "perf_event_open", []uint64{0, 4711}, refused},
		{"monitor, Linux 6.1", "perf_event_open", []uint64{0, 4711}, seccomp.ActionAllow},
		{"reader", "bpf", []uint64{unix.BPF_MAP_UPDATE_ELEM}, seccomp.ActionAllow},
		{"reader", "bpf", []uint64{unix.BPF_OBJ_GET_INFO_BY_FD}, seccomp.ActionAllow},
		{"reader", "bpf", []uint64{unix.BPF_MAP_CREATE}, refused},
		{"reader", "bpf", []uint64{unix.BPF_PROG_LOAD}, refused},
		{"reader", "bpf", []uint64{unix.BPF_MAP_GET_FD_BY_ID}, refused},
		{"reader", "bpf", []uint64{1<<32 | unix.BPF_MAP_LOOKUP_ELEM}, refused},
		{"inspector", "bpf", []uint64{unix.BPF_MAP_LOOKUP_ELEM}, seccomp.ActionKillProcess},
		{"reader", "mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refused},
		{"reader", "mprotect", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refused},
		{"inspector", "mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, seccomp.ActionAllow},
		{"reader", "clone", []uint64{unix.CLONE_NEWUSER}, refused},
		{"monitor", "clone", []uint64{unix.CLONE_NEWNET}, refused},
		{"monitor", "clone", []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, seccomp.ActionAllow},
		{"reader", "prctl", []uint64{setVMAName}, seccomp.ActionAllow},
		{"reader", "prctl", []uint64{unix.PR_SET_NAME}, seccomp.ActionAllow},
		{"reader", "prctl", []uint64{unix.PR_SET_DUMPABLE}, refused},
		{"monitor", "socketpair", []uint64{unix.AF_UNIX}, seccomp.ActionAllow},
		{"monitor", "socketpair", []uint64{unix.AF_INET}, refused},
		{"monitor", "perf_event_open", []uint64{0x1000, math.MaxUint64}, seccomp.ActionAllow},
		{"monitor", "perf_event_open", []uint64{0x1000, 4711}, refused},
		{"monitor", "perf_event_open", []uint64{0x1000, 0}, refused},
		{"reader", "perf_event_open", []uint64{0x1000, math.MaxUint64}, seccomp.ActionKillProcess},
		{"agent", "clone", []uint64{unix.CLONE_NEWUSER}, refused},
		{"agent", "socket", []uint64{unix.AF_INET6}, seccomp.ActionAllow},
		{"agent", "socket", []uint64{unix.AF_NETLINK}, seccomp.ActionAllow},
		{"agent", "socket", []uint64{unix.AF_UNIX}, refused},
		{"agent", "socket", []uint64{unix.AF_ALG}, refused},
		{"agent", "tgkill", []uint64{uint64(os.Getpid())}, seccomp.ActionAllow},
		{"agent", "tgkill", []uint64{uint64(os.Getppid())}, refused},
		{"inspector", "tgkill", []uint64{uint64(os.Getpid())}, seccomp.ActionAllow},
		{"inspector", "tgkill", []uint64{uint64(os.Getppid())}, refused},
		{"reader", "tgkill", []uint64{1}, refused},
		{"reader", "prlimit64", []uint64{0}, seccomp.ActionAllow},
		{"reader", "prlimit64", []uint64{1}, refused},
		{"monitor", "prlimit64", []uint64{1}, refused},
	} {
		if got := verdict(t, compiled[c.policy], info, info.SyscallNames[c.call], c.args...); got != c.want {
			t.Errorf("%s: %s%v is answered %#x; want %#x", c.policy, c.call, c.args, uint32(got), uint32(c.want))
		}
	}
}

// filteredEnvironment makes this test binary a process that filters itself and then does one thing: "reader/panic".
const filteredEnvironment = "PRIVSEP_TEST_FILTERED"

func filteredMain(name string) {
	policy, act, _ := strings.Cut(name, "/")
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fatal(err)
	}
	if err := policies[policy]().install(); err != nil {
		fatal(err)
	}
	acts := filteredActs
	if policy == "agent" {
		acts = agentActs
	}
	if err := acts[act](); err != nil {
		fatal(err)
	}
	fmt.Println("ok")
	os.Exit(0)
}

// filteredActs are what a process may do, or not, once its system calls are filtered.
var filteredActs = map[string]func() error{
	"run": func() error { // what Go's runtime does: threads, stacks that grow, collections, timers, pollers
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				runtime.LockOSThread()
				grow(2000)
				time.Sleep(time.Millisecond)
			})
		}
		wg.Wait()
		var keep [][]byte
		for range 200 {
			keep = append(keep, make([]byte, 1<<20))
		}
		runtime.KeepAlive(keep)
		runtime.GC()
		debug.FreeOSMemory()
		fired := make(chan struct{})
		t, err := atBootTime(1, func() { close(fired) })
		if err != nil {
			return err
		}
		<-fired
		t.stop()
		return nil
	},
	"panic": func() error { panic("as expected") },
	"open": func() error {
		return refusedAs(unix.EPERM, func() error { _, err := os.Open("/etc/passwd"); return err })
	},
	"write": func() error {
		return refusedAs(unix.EPERM, func() error { return os.WriteFile("/tmp/should-not-be", nil, 0o600) })
	},
	"kill":   func() error { return refusedAs(unix.EPERM, func() error { return unix.Kill(os.Getppid(), 0) }) },
	"exec":   func() error { return syscall.Exec("/bin/true", nil, nil) },
	"fork":   func() error { return exec.Command("/bin/true").Run() },
	"socket": func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
	"ptrace": func() error { return unix.PtraceAttach(os.Getppid()) },
	"memory": func() error { return refusedAs(unix.EPERM, makeExecutable) },
	"signal": func() error {
		return refusedAs(unix.EPERM, func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) })
	},
	"limits": func() error {
		return refusedAs(unix.EPERM, func() error { return unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)) })
	},
}

// agentActs are what the agent may do, or not, beside.
var agentActs = map[string]func() error{
	"run":    filteredActs["run"],
	"kill":   filteredActs["kill"],
	"signal": filteredActs["signal"],
	"limits": filteredActs["limits"],
	"nice": func() error {
		return refusedAs(unix.EPERM, func() error { return unix.Setpriority(unix.PRIO_PROCESS, os.Getppid(), 19) })
	},
	"unix": func() error {
		return refusedAs(unix.EPERM, func() error { _, err := net.Dial("unix", "/run/keyhole-test-no-such-socket"); return err })
	},
	"mode": func() error {
		return refusedAs(unix.EPERM, func() error { return os.Chmod("/proc/self/exe", 0o755) })
	},
	"owner": func() error {
		return refusedAs(unix.EPERM, func() error { return os.Lchown("/proc/self/exe", 0, 0) })
	},
	"dial": func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c, err := net.Dial("tcp", l.Addr().String())
		return errors.Join(err, c.Close(), l.Close())
	},
	"door": otherDoor,
}

// otherDoor asks for the process's number by int 0x80, the door of 32-bit programs, where the kernel has one.
func otherDoor() error {
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	copy(code, []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}) // mov eax, 20 (getpid); int 0x80; ret
	entry := unsafe.Pointer(&code[0])
	function := unsafe.Pointer(&entry)
	(*(*func())(unsafe.Pointer(&function)))()
	return nil
}

// TestAgentFiltered does each act under the agent's filters.
func TestAgentFiltered(t *testing.T) {
	for act := range agentActs {
		t.Run(act, func(t *testing.T) {
			if act == "door" && runtime.GOARCH != "amd64" {
				t.Skip("this architecture has one door")
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(append(os.Environ(), filteredEnvironment+"=agent/"+act, "GOTRACEBACK=single"), raceEnvironment...)
			out, err := cmd.CombinedOutput()
			if act == "door" {
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
					t.Errorf("%v; want a death by SIGSYS\n%s", err, out)
				}
				return
			}
			if err != nil || string(out) != "ok\n" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func grow(depth int) byte {
	var frame [128]byte
	if depth > 0 {
		frame[depth%128] = grow(depth - 1)
	}
	return frame[depth%7]
}

func makeExecutable() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}

func refusedAs(want error, f func() error) error {
	if err := f(); !errors.Is(err, want) {
		return fmt.Errorf("it was answered %w, not %w", err, want)
	}
	return nil
}

// TestFiltered does each act under the filters of inspector and reader, in a process of its own.
func TestFiltered(t *testing.T) {
	for _, policy := range []string{"inspector", "reader"} {
		for act := range filteredActs {
			t.Run(policy+"/"+act, func(t *testing.T) {
				cmd := exec.Command("/proc/self/exe")
				cmd.Env = append(append(os.Environ(), filteredEnvironment+"="+policy+"/"+act, "GOTRACEBACK=single"), raceEnvironment...)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				errors.As(err, &exit)
				switch act {
				case "panic":
					if exit == nil || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: as expected") {
						t.Errorf("%v\n%s", err, out)
					}
				case "exec", "socket", "ptrace":
					if exit == nil || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
						t.Errorf("%v; want a death by SIGSYS\n%s", err, out)
					}
				case "fork": // the child's exec is what kills
					if err == nil {
						t.Errorf("a program was started\n%s", out)
					}
				default:
					if err != nil || string(out) != "ok\n" {
						t.Errorf("%v\n%s", err, out)
					}
				}
			})
		}
	}
}

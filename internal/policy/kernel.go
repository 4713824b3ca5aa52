// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/glob"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Kernel is what a node lets people see of its own kernel. A probe there is bound to no process and no tenant: it fires for
// whoever makes the call.
type Kernel struct {
	// Functions are names, or patterns in which `*` stands for any run of characters. None: the kernel is no target.
	Functions []string `json:"functions"`
	// ReadMemory allows to follow pointers from a function's arguments. Without it only numbers leave that are arguments themselves.
	ReadMemory bool `json:"readMemory"`
}

// defaultKernelFunctions answer what people on call ask of a kernel: who connects where, what is sent again, who deletes,
// mounts, dies or is killed, what runs out of memory. Each is called at the pace of such events, not of packets, pages or
// switches; none is given credentials, keys or the bytes that are sent or written. Kernels differ: those that one does not
// have are left out of its list.
var defaultKernelFunctions = []string{
	// Connections.
	"tcp_connect", "tcp_v4_connect", "tcp_v6_connect", "inet_csk_accept", "inet_listen", "tcp_set_state",
	"tcp_retransmit_skb", "tcp_enter_loss", "tcp_send_probe0", "tcp_reset",
	// Files and file systems.
	"do_filp_open", "do_file_open", "do_sys_openat2", "vfs_open", "vfs_truncate", "vfs_fsync_range",
	"do_unlinkat", "do_rmdir", "do_mkdirat", "do_renameat2", "filename_unlinkat", "filename_rmdir", "filename_mkdirat", "filename_renameat2",
	"path_mount", "path_umount",
	// Processes.
	"kernel_clone", "bprm_execve", "do_exit", "do_group_exit", "make_task_dead", "do_coredump", "vfs_coredump", "ptrace_attach",
	// Memory.
	"out_of_memory", "oom_kill_process", "try_to_free_mem_cgroup_pages", "try_to_compact_pages",
	// Devices.
	"register_netdevice", "__dev_change_flags",
}

func (f *ceilingFile) kernel(k *Kernel) error {
	k.ReadMemory = f.Kernel.ReadMemory
	if f.Kernel.Functions == nil {
		return nil
	}
	k.Functions = *f.Kernel.Functions
	if slices.Contains(k.Functions, "") {
		return errors.New("kernel.functions: an empty pattern")
	}
	return nil
}

// IsShippedKernelFunction says whether a function is on the list that a node has without a word of its owner's. Of these it is known
// which of their parameters point to memory of a process.
func IsShippedKernelFunction(name string) bool { return slices.Contains(defaultKernelFunctions, name) }

// Allows says whether a function is on the list.
func (k *Kernel) Allows(function string) bool { return glob.MatchAny(k.Functions, function) }

// allowKernel says whether the kernel is a target at all.
func (c *Ceiling) allowKernel() error {
	if len(c.Kernel.Functions) == 0 {
		return denied("functions of the kernel are not to be probed (kernel.functions in its ceiling file)")
	}
	return nil
}

func (c *Ceiling) allowKernelFunction(name string) error {
	if err := c.allowKernel(); err != nil {
		return err
	}
	if !c.Kernel.Allows(name) || glob.MatchAny(c.ForbiddenFunctions, name) {
		return denied("the kernel's function %.128s is not on its list (kernel.functions in its ceiling file; `keyhole functions kernel` shows the list)", name)
	}
	return nil
}

// allowKernelTarget judges what a request for the kernel was resolved to. A Target without a function stands for the list of them.
func (c *Ceiling) allowKernelTarget(t *target.Target) error {
	if t.Function.Name == "" {
		return c.allowKernel()
	}
	if err := c.allowKernelFunction(t.Function.Name); err != nil {
		return err
	}
	if c.Kernel.ReadMemory {
		return nil
	}
	values := t.Values
	if r := t.Returns; r != nil {
		values = slices.Concat(values, r.Values)
		if r.Failed != nil {
			values = append(values, *r.Failed)
		}
	}
	for i := range values {
		if v := &values[i]; v.ReadsMemory() {
			return denied("%s is in memory, and probes in the kernel may read none (kernel.readMemory in its ceiling file)", v.Path)
		}
	}
	return nil
}

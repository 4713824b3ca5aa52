//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs that every probe of the kernel is an instance of. They differ from those for processes in two things: they
 * are bound to no process, and what they follow are pointers of the kernel's.
 */
#define KH_KERNEL_MEMORY
#include "hit.h"

char __license[] SEC("license") = "Dual BSD/GPL";

/*
 * What our own processes make the kernel do is no hit: what becomes of one would be the next. The frozen pid is that of
 * the process that started all of them.
 */
static __always_inline bool kh_is_ours(struct task_struct *task)
{
	return (__u32)task->tgid == config.pid || (__u32)task->group_leader->real_parent->tgid == config.pid;
}

SEC("kprobe")
int kh_kprobe(struct pt_regs *ctx)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;

	kh_on_kernel_stack(ctx);
	if (!kh_before_deadline(now))
		return 0;
	task = bpf_get_current_task_btf();
	if (!kh_is_ours(task))
		kh_at_entry(ctx, now, task);
	return 0;
}

SEC("kretprobe")
int kh_kreturn(struct pt_regs *ctx)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;

	kh_on_kernel_stack(ctx);
	if (!config.pair || !kh_before_deadline(now))
		return 0;
	task = bpf_get_current_task_btf();
	if (!kh_is_ours(task))
		kh_at_return(ctx, now, task);
	return 0;
}

//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs that every probe of a process is an instance of. The first looks at a function's arguments where the attach
 * point is, reads what the frozen tables say, redacts it and appends it to the session's ring buffer. It never writes to
 * the target, and it returns 0. A probe of calls with their returns has the second, too: what the first has read and
 * redacted at the entry waits for it, which looks at the return and appends one record for both.
 */
#include "hit.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("uprobe.multi")
int kh_uprobe(struct pt_regs *ctx)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;

	kh_on_kernel_stack(ctx);
	if (!kh_before_deadline(now))
		return 0;
	task = bpf_get_current_task_btf();
	if (kh_in_scope(task))
		kh_at_entry(ctx, now, task);
	return 0;
}

SEC("uprobe.multi")
int kh_return(struct pt_regs *ctx)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;

	kh_on_kernel_stack(ctx);
	if (!config.pair || !kh_before_deadline(now))
		return 0;
	task = bpf_get_current_task_btf();
	if (kh_in_scope(task))
		kh_at_return(ctx, now, task);
	return 0;
}

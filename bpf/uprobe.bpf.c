//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The program that every probe of a process is an instance of. It looks at a function's arguments where the attach point
 * is, reads what the frozen tables say, redacts it and appends it to the session's ring buffer. It never writes to the
 * target, and it returns 0.
 */
#include "hit.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("uprobe.multi")
int kh_uprobe(struct pt_regs *ctx)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct task_struct *task;

	if (!kh_before_deadline(now))
		return 0;
	task = bpf_get_current_task_btf();
	if (kh_in_scope(task))
		kh_take_hit(ctx, now, task);
	return 0;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Keeps the programs on the kernel's own stack.
 *
 * Since 6.13 (arm64: 6.17) a program of this type whose frame has 64 bytes or more is given one stack for each CPU, in the belief
 * that it never runs twice on a CPU at a time (kernel/bpf/verifier.c, bpf_enable_priv_stack). Programs at uprobes do: they
 * are preempted by other threads' hits, since nothing counts who is active there (bpf_prog_run_array_uprobe,
 * uprobe_prog_run). The second hit writes over what the first has spilled, pointers of the kernel among it, and a kernel with
 * preemption (7.x: always) dies of it. A program with a tail call is given no such stack. This one is never made: the
 * verifier sees that, asks for no table of programs, and takes it out.
 */
#ifndef KH_KERNELSTACK_H
#define KH_KERNELSTACK_H

#include "tables.h"

static __always_inline void kh_on_kernel_stack(void *ctx)
{
	if (never)
		bpf_tail_call(ctx, 0, 0);
}

#endif

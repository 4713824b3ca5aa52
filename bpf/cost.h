/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a probe costs: hits by their outcome, and the program's own time. What the trap into the program costs is added by
 * the Go side, which has measured it on this node.
 */
#ifndef KH_COST_H
#define KH_COST_H

#include "pairs.h"

enum {
	KH_TIMED = 16, /* one run of so many is timed, and stands for all of them */
	/* The most that a hit is charged: more than any plan takes. One that took longer was preempted by others. */
	KH_LONGEST_NS = 1 << 18,
};

/* Is the session one that only counts until its reader has seen that it fits its budget, and has it not yet? */
static __always_inline bool kh_only_counts(void)
{
	__u32 key = 0;
	const volatile struct kh_deadline *control;

	if (!config.count_first)
		return false;
	control = bpf_map_lookup_elem(&kh_control, &key);
	return !control || !control->admitted;
}

/* Counts a run of the program and, of some, the time that it took. */
static __always_inline void kh_account(__u64 begun)
{
	__u32 key = 0;
	struct kh_outcomes *counts = bpf_map_lookup_elem(&kh_counts, &key);
	__u64 took;

	if (!counts || __sync_fetch_and_add(&counts->n[KH_TRAPS], 1) % KH_TIMED != KH_TIMED / 2) /* not the first: caches are cold */
		return;
	took = bpf_ktime_get_boot_ns() - begun;
	__sync_fetch_and_add(&counts->own_ns, KH_TIMED * (took < KH_LONGEST_NS ? took : KH_LONGEST_NS));
}

#endif

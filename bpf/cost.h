/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a probe costs: hits by their outcome, and the program's own time. What the trap into the program costs is added by
 * the Go side, which has measured it on this node.
 */
#ifndef KH_COST_H
#define KH_COST_H

#include "limits.h"

enum {
	KH_TIMED = 16, /* one hit of so many of each outcome is timed, and stands for all of them */
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

/*
 * Counts a hit and, of some, the time that it took. Atomic although the memory is the CPU's own: another hit may preempt
 * this one between load and store.
 */
static __always_inline void kh_account(struct kh_outcomes *counts, enum kh_count outcome, __u64 begun)
{
	__u64 took;

	if (__sync_fetch_and_add(&counts->n[outcome], 1) % KH_TIMED)
		return;
	took = bpf_ktime_get_boot_ns() - begun;
	__sync_fetch_and_add(&counts->own_ns, KH_TIMED * (took < KH_LONGEST_NS ? took : KH_LONGEST_NS));
}

#endif

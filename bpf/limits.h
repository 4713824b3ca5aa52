/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* When a hit is none, and which hits are let through. Words that all CPUs share change by 64-bit atomics. */
#ifndef KH_LIMITS_H
#define KH_LIMITS_H

#include "tables.h"

enum {
	KH_NS_PER_TICK = 10000000, /* of /proc/PID/stat: USER_HZ is 100 everywhere */
	KH_TRIES = 8,		   /* of a compare-and-swap before a hit gives up */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct kh_deadline);
} kh_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kh_usage);
} kh_state SEC(".maps");

/* Before the deadline in force, which is the earlier of the frozen one and the control word? */
static __always_inline bool kh_before_deadline(__u64 now)
{
	__u32 key = 0;
	const volatile struct kh_deadline *control = bpf_map_lookup_elem(&kh_control, &key);

	return control && now < control->deadline_ns && now < config.latest_deadline_ns;
}

/* Is it the granted process, not another that shares the file, nor a later one with the same number? */
static __always_inline bool kh_in_scope(struct task_struct *task)
{
	if ((__u32)task->tgid != config.pid)
		return false;
	return task->group_leader->start_boottime - config.start_ticks * KH_NS_PER_TICK < KH_NS_PER_TICK;
}

static __always_inline bool kh_sampled_out(void)
{
	return config.sample_below && bpf_get_prandom_u32() >= config.sample_below;
}

/* Takes a token by the generic cell rate algorithm. */
static __always_inline bool kh_take_token(struct kh_usage *state, __u64 now)
{
	__unroll_not
	for (int i = 0; i < KH_TRIES; i++) {
		__u64 tat = *(volatile __u64 *)&state->rate_tat_ns;

		if (tat > now + config.rate_burst_ns)
			return false;
		if (__sync_val_compare_and_swap(&state->rate_tat_ns, tat,
						(tat > now ? tat : now) + config.rate_interval_ns) == tat)
			return true;
	}
	return false;
}

static __always_inline void kh_give_back_ticket(struct kh_usage *state)
{
	if (config.max_hits)
		__sync_fetch_and_add(&state->tickets, -1);
}

/* KH_EMITTED if the hit may go on to capture; with max_hits it then has a ticket, which a lost one gives back. */
static __always_inline enum kh_count kh_admit(struct kh_usage *state, __u64 now, bool rate)
{
	if (config.max_hits && *(volatile __u64 *)&state->tickets >= config.max_hits)
		return KH_OVER_LIMIT;
	if (config.max_bytes && *(volatile __u64 *)&state->bytes >= config.max_bytes)
		return KH_OVER_LIMIT;
	if (rate && config.rate_interval_ns && !kh_take_token(state, now))
		return KH_THROTTLED;
	if (config.max_hits && __sync_fetch_and_add(&state->tickets, 1) >= config.max_hits) {
		kh_give_back_ticket(state);
		return KH_OVER_LIMIT;
	}
	return KH_EMITTED;
}

/* Is there room for n more bytes under max_bytes? They are taken; a lost record gives them back. */
static __always_inline bool kh_take_bytes(struct kh_usage *state, __u64 n)
{
	if (!config.max_bytes || __sync_fetch_and_add(&state->bytes, n) + n <= config.max_bytes)
		return true;
	__sync_fetch_and_add(&state->bytes, -n);
	return false;
}

static __always_inline void kh_give_back_bytes(struct kh_usage *state, __u64 n)
{
	if (config.max_bytes)
		__sync_fetch_and_add(&state->bytes, -n);
}

#endif

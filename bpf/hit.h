/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of one hit, from the first limit to the record in the ring: the same for every program. */
#ifndef KH_HIT_H
#define KH_HIT_H

#include "limits.h"
#include "ops.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* the loader sets it */
} kh_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kh_outcomes);
} kh_counts SEC(".maps");

/*
 * Wakes the reader for the very first record and when a quarter of the ring fills up. Between these it looks by itself
 * every few milliseconds: a wake-up for each record would cost more than all the rest.
 */
static __always_inline __u64 kh_wakeup(__u32 n)
{
	__u64 waiting = bpf_ringbuf_query(&kh_ring, BPF_RB_AVAIL_DATA);

	if (waiting < config.ring_quarter && waiting + n >= config.ring_quarter)
		return BPF_RB_FORCE_WAKEUP;
	if (!waiting && !bpf_ringbuf_query(&kh_ring, BPF_RB_PROD_POS))
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/* Captures into a slot and appends the record to the ring. */
static __always_inline enum kh_count kh_emit(struct pt_regs *ctx, __u64 now, struct task_struct *task, struct kh_hit *hit,
					     struct kh_slot *s, struct kh_usage *state)
{
	struct kh_record *r = (struct kh_record *)s->out;
	__u32 n;

	r->time_ns = now;
	r->pid = task->tgid;
	r->tid = task->pid;
	r->site = bpf_get_attach_cookie(ctx);
	*(__u64 *)r->comm = *(__u64 *)task->comm;
	*(__u64 *)(r->comm + 8) = *(__u64 *)(task->comm + 8);
	s->out_used = sizeof(*r);
	if (!kh_capture(hit, s))
		return KH_LOST;
	n = s->out_used;
	if (n > KH_MAX_OUT)
		return KH_LOST;
	r->bytes = n;
	if (!kh_take_bytes(state, n))
		return KH_OVER_LIMIT;
	if (bpf_ringbuf_output(&kh_ring, r, n, kh_wakeup(n))) {
		kh_give_back_bytes(state, n);
		return KH_LOST;
	}
	return KH_EMITTED;
}

/* What becomes of a hit: one outcome, whichever way it goes. */
static __always_inline enum kh_count kh_outcome(struct pt_regs *ctx, __u64 now, struct task_struct *task)
{
	__u32 key = 0;
	struct kh_usage *state = bpf_map_lookup_elem(&kh_state, &key);
	struct kh_slot *s = 0;
	struct kh_hit hit;
	enum kh_count outcome;

	if (!state)
		return KH_LOST;
	if (kh_sampled_out())
		return KH_SAMPLED_OUT;
	if (config.if_end) {
		if (config.if_reads && !(s = kh_claim()))
			return KH_LOST;
		kh_copy_registers(hit.registers, ctx);
		if (!kh_decide(&hit, s)) {
			outcome = KH_FILTERED;
			goto out;
		}
	}
	outcome = kh_admit(state, now);
	if (outcome != KH_EMITTED)
		goto out;
	if (!s)
		s = kh_claim();
	if (s) {
		if (!config.if_end)
			kh_copy_registers(hit.registers, ctx);
		outcome = kh_emit(ctx, now, task, &hit, s, state);
	} else {
		outcome = KH_LOST;
	}
	if (outcome != KH_EMITTED)
		kh_give_back_ticket(state);
out:
	if (s)
		kh_release(s);
	return outcome;
}

/* Counts the hit by what became of it. */
static __always_inline void kh_take_hit(struct pt_regs *ctx, __u64 now, struct task_struct *task)
{
	enum kh_count outcome = kh_outcome(ctx, now, task);
	__u32 key = 0;
	struct kh_outcomes *counts = bpf_map_lookup_elem(&kh_counts, &key);

	/* Atomic although the memory is the CPU's own: another hit may preempt this one between load and store. */
	if (counts && outcome < KH_MAX_COUNTS)
		__sync_fetch_and_add(&counts->n[outcome], 1);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of one hit, from the first limit to the record in the ring: the same for every program. */
#ifndef KH_HIT_H
#define KH_HIT_H

#include "limits.h"
#include "ops.h"
#include "pairs.h"
#include "cost.h"
#include "aggregate.h"
#include "stack.h"
#include "kernelstack.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* the loader sets it */
} kh_ring SEC(".maps");

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

/* Captures into a slot. False: the record would be too long. */
static __always_inline bool kh_record(struct pt_regs *ctx, __u64 now, struct task_struct *task, struct kh_hit *hit, struct kh_slot *s)
{
	struct kh_record *r = (struct kh_record *)s->out;

	r->time_ns = now;
	r->pid = task->tgid;
	r->tid = task->pid;
	r->site = bpf_get_attach_cookie(ctx);
	*(__u64 *)r->comm = *(__u64 *)task->comm;
	*(__u64 *)(r->comm + 8) = *(__u64 *)(task->comm + 8);
	s->out_used = sizeof(*r);
	return kh_capture(hit, s, config.if_end, config.entry_end);
}

/* What a hit works with, one after the other. */
union kh_room {
	struct kh_hit hit;
	struct kh_walk walk;
};

/* Appends a slot's record to the ring. */
static __always_inline enum kh_count kh_emit(struct pt_regs *ctx, struct kh_slot *s, struct kh_usage *state, struct kh_walk *walk)
{
	struct kh_record *r = (struct kh_record *)s->out;
	__u32 n;

	if (!kh_append_callers(ctx, s, walk))
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

/* What becomes of a hit: one outcome, whichever way it goes. KH_WAITING: that is for its return to say. */
static __always_inline enum kh_count kh_outcome(struct pt_regs *ctx, __u64 now, struct task_struct *task)
{
	__u32 key = 0;
	struct kh_usage *state = bpf_map_lookup_elem(&kh_state, &key);
	struct kh_slot *s = 0;
	struct kh_frame frame;
	union kh_room room;
	enum kh_count outcome;

	if (!state)
		return KH_LOST;
	/* Also of a call that is not let in: what waits at its place would be paired with its return. */
	if (config.pair && !kh_enter(&frame, ctx, task))
		return KH_LOST;
	if (kh_sampled_out())
		return KH_SAMPLED_OUT;
	if (config.if_end) {
		if (config.if_reads && !(s = kh_claim()))
			return KH_LOST;
		kh_begin_hit(&room.hit, ctx);
		if (!kh_decide(&room.hit, s, 0, config.if_end)) {
			outcome = KH_FILTERED;
			goto out;
		}
	}
	if (config.aggregate == KH_TOTAL) {
		outcome = KH_EMITTED;
		goto out;
	}
	if (config.aggregate && !config.pair) {
		if (!s && !(s = kh_claim()))
			return KH_LOST;
		if (!config.if_end)
			kh_begin_hit(&room.hit, ctx);
		outcome = kh_aggregate(&room.hit, s);
		goto out;
	}
	if (config.pair)
		outcome = kh_let_in(state, now);
	else
		outcome = kh_admit(state, now, true);
	if (outcome != KH_EMITTED)
		goto out;
	if (!s)
		s = kh_claim();
	outcome = KH_LOST;
	if (s) {
		if (!config.if_end)
			kh_begin_hit(&room.hit, ctx);
		if (!kh_record(ctx, now, task, &room.hit, s))
			outcome = KH_LOST;
		else if (config.pair)
			outcome = kh_wait(&frame, s);
		else
			outcome = kh_emit(ctx, s, state, &room.walk);
	}
	if (!config.pair && outcome != KH_EMITTED)
		kh_give_back_ticket(state);
out:
	if (s)
		kh_release(s);
	return outcome;
}

/* What becomes of a call that waited for its return. */
static __always_inline enum kh_count kh_returned(struct pt_regs *ctx, __u64 now, struct kh_call *call)
{
	__u32 key = 0;
	struct kh_usage *state = bpf_map_lookup_elem(&kh_state, &key);
	__u64 took = now - call->time_ns;
	struct kh_slot *s;
	union kh_room room;
	enum kh_count outcome;

	if (!state)
		return KH_LOST;
	if (took < config.slower_than_ns)
		return KH_FILTERED;
	if (config.return_if_end > config.entry_end) {
		kh_begin_hit(&room.hit, ctx);
		if (!kh_decide(&room.hit, 0, config.entry_end, config.return_if_end))
			return KH_FILTERED;
	}
	if (config.aggregate) {
		kh_count_duration(took);
		return KH_EMITTED;
	}
	outcome = kh_admit(state, now, !config.rate_at_entry);
	if (outcome != KH_EMITTED)
		return outcome;
	outcome = KH_LOST;
	s = kh_claim();
	if (s) {
		kh_begin_hit(&room.hit, ctx);
		if (kh_resume(call, s)) {
			((struct kh_record *)s->out)->duration_ns = took;
			if (kh_capture(&room.hit, s, config.return_if_end, config.n_ops))
				outcome = kh_emit(ctx, s, state, &room.walk);
		}
		kh_release(s);
	}
	if (outcome != KH_EMITTED)
		kh_give_back_ticket(state);
	return outcome;
}

/* A function's entry. */
static __always_inline void kh_at_entry(struct pt_regs *ctx, __u64 now, struct task_struct *task)
{
	kh_count(kh_only_counts() ? KH_THROTTLED : kh_outcome(ctx, now, task));
	kh_account(now);
}

/* A function's return. One whose entry does not wait is none of ours: it was not let in, or the probe was not there yet. */
static __always_inline void kh_at_return(struct pt_regs *ctx, __u64 now, struct task_struct *task)
{
	struct kh_call call;

	if (kh_leave(&call, ctx, task))
		kh_finish(&call, kh_returned(ctx, now, &call));
	kh_account(now);
}

#endif

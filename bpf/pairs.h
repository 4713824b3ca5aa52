/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A call's entry and its return. What was captured at the entry, redacted already, waits in a map for its return. It waits
 * under its frame, which no two calls that go on at the same time share, and which is known again at the return.
 *
 * Not every entry has a return: a panic that is recovered above, or a longjmp, leaves frames without one. Whoever enters or
 * leaves a function proves for its own goroutine that all frames further from the stack's base are gone, and those that
 * still wait get their outcome then. Of a thread that is not known: other stacks may be anywhere, such as a signal handler's;
 * there a frame is known to be gone when another takes its place.
 */
#ifndef KH_PAIRS_H
#define KH_PAIRS_H

#include "ops.h"
#include "limits.h"

#define KH_NO_DEPTH (~0ULL)

enum { KH_STACK_HI = 8 }; /* runtime.g.stack.hi: the first two words of a g are its stack's bounds, and assembly relies on it */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kh_outcomes);
} kh_counts SEC(".maps");

struct kh_frame {
	__u64 stack; /* the goroutine's runtime.g, or the thread's number */
	__u64 depth; /* grows with each call: how far the canonical frame address is from the stack's base, or from 2^64 */
};

/* The innermost frame of a goroutine that waits. */
struct kh_top {
	__u64 depth;
	__u64 goid;
};

/* A call at its return, while it still waits. */
struct kh_call {
	struct kh_frame frame;
	struct kh_waiting *waiting;
	__u64 time_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KH_MAX_WAITING);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_WRONLY);
	__uint(key_size, sizeof(struct kh_frame));
	__uint(value_size, sizeof(struct kh_waiting) + sizeof(struct kh_record)); /* the loader sets it: as the plan needs it */
} kh_calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KH_MAX_WAITING);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_WRONLY);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(struct kh_top));
} kh_tops SEC(".maps");

/* Atomic although the memory is the CPU's own: another hit may preempt this one between load and store. */
static __always_inline void kh_count(enum kh_count what)
{
	__u32 key = 0;
	struct kh_outcomes *counts = bpf_map_lookup_elem(&kh_counts, &key);

	if (counts && what < KH_MAX_COUNTS)
		__sync_fetch_and_add(&counts->n[what], 1);
}

/* Gives a call that waits its outcome, once: whoever takes it out of the map. */
static __always_inline bool kh_take_out(const struct kh_frame *frame)
{
	if (bpf_map_delete_elem(&kh_calls, frame))
		return false;
	kh_count(KH_WAITED);
	return true;
}

struct kh_unwinding {
	struct kh_top *top;
	__u64 stack;
	__u64 keep; /* frames of at most this depth */
	enum kh_count outcome;
};

static long kh_unwind_one(__u32 turn, struct kh_unwinding *u)
{
	struct kh_frame frame = { .stack = u->stack, .depth = u->top->depth };
	struct kh_waiting *waiting;
	__u64 outer = KH_NO_DEPTH;

	(void)turn;
	if (frame.depth == KH_NO_DEPTH || (u->outcome == KH_UNWOUND && frame.depth <= u->keep))
		return 1;
	waiting = bpf_map_lookup_elem(&kh_calls, &frame);
	if (waiting)
		outer = waiting->outer;
	if (kh_take_out(&frame))
		kh_count(u->outcome);
	u->top->depth = outer;
	return 0;
}

/*
 * Gives an outcome to each call of a goroutine that is deeper than a depth, and to all of them if the goroutine is another
 * one by now. What remains, if anything, is in *top.
 */
static __always_inline void kh_unwind(__u64 stack, __u64 keep, __u64 goid, struct kh_top *top)
{
	struct kh_unwinding u = { .top = top, .stack = stack, .keep = keep, .outcome = KH_UNWOUND };

	if (top->goid != goid)
		u.outcome = KH_GOROUTINE;
	else if (top->depth <= keep)
		return;
	bpf_loop(KH_MAX_WAITING, kh_unwind_one, &u, 0);
	top->goid = goid;
}

/* Finds a function's frame, at its entry or at a return instruction, where the stack is the same, or behind its return. */
static __always_inline bool kh_find(struct kh_frame *frame, __u64 *goid, struct pt_regs *ctx, struct task_struct *task, bool behind)
{
	__u64 cfa = kh_stack(ctx) + (behind ? 0 : KH_RETURN_ADDRESS), base;

	*goid = 0;
	if (config.pair == KH_PAIR_THREAD) {
		frame->stack = task->pid;
		frame->depth = -cfa;
		return true;
	}
	frame->stack = kh_g(ctx);
	if (bpf_probe_read_user(&base, sizeof(base), (const void *)(frame->stack + KH_STACK_HI)))
		return false;
	if (config.goid && bpf_probe_read_user(goid, sizeof(*goid), (const void *)(frame->stack + config.goid)))
		return false;
	frame->depth = base - cfa;
	return true;
}

/* At an entry: finds the frame, and gives an outcome to calls that this one proves to be over. */
static __always_inline bool kh_enter(struct kh_frame *frame, struct pt_regs *ctx, struct task_struct *task)
{
	struct kh_top *top;
	__u64 goid;

	if (!kh_find(frame, &goid, ctx, task, false))
		return false;
	if (config.pair == KH_PAIR_THREAD) {
		if (kh_take_out(frame))
			kh_count(KH_UNWOUND);
		return true;
	}
	top = bpf_map_lookup_elem(&kh_tops, &frame->stack);
	if (!top)
		return true;
	kh_unwind(frame->stack, frame->depth - 1, goid, top);
	if (top->depth == KH_NO_DEPTH)
		bpf_map_delete_elem(&kh_tops, &frame->stack);
	return true;
}

/* Is a call let in? A token is taken here if its return cannot decide against it: what is not shown need not be read. */
static __always_inline enum kh_count kh_let_in(struct kh_usage *state, __u64 now)
{
	if (config.rate_at_entry && config.rate_interval_ns && !kh_take_token(state, now))
		return KH_THROTTLED;
	return KH_EMITTED;
}

/* Lets a record wait for its return. */
static __always_inline enum kh_count kh_wait(const struct kh_frame *frame, struct kh_slot *s)
{
	struct kh_top *top = 0, new = { .depth = frame->depth };

	s->waiting.outer = KH_NO_DEPTH;
	s->waiting.used = s->out_used;
	if (config.pair == KH_PAIR_GOROUTINE) {
		top = bpf_map_lookup_elem(&kh_tops, &frame->stack);
		if (top)
			s->waiting.outer = top->depth;
	}
	if (bpf_map_update_elem(&kh_calls, frame, &s->waiting, BPF_NOEXIST))
		return KH_NO_ROOM;
	if (top) {
		top->depth = frame->depth;
	} else if (config.pair == KH_PAIR_GOROUTINE) {
		if (config.goid && bpf_probe_read_user(&new.goid, sizeof(new.goid), (const void *)(frame->stack + config.goid)))
			new.goid = 0;
		if (bpf_map_update_elem(&kh_tops, &frame->stack, &new, 0)) {
			bpf_map_delete_elem(&kh_calls, frame);
			return KH_NO_ROOM;
		}
	}
	return KH_WAITING;
}

/* At a return: finds the call that waits for it. */
static __always_inline bool kh_leave(struct kh_call *call, struct pt_regs *ctx, struct task_struct *task)
{
	struct kh_top *top;
	__u64 goid;

	if (!kh_find(&call->frame, &goid, ctx, task, config.popped))
		return false;
	if (config.pair == KH_PAIR_GOROUTINE) {
		top = bpf_map_lookup_elem(&kh_tops, &call->frame.stack);
		if (!top)
			return false;
		kh_unwind(call->frame.stack, call->frame.depth, goid, top);
		if (top->depth == KH_NO_DEPTH)
			bpf_map_delete_elem(&kh_tops, &call->frame.stack);
	}
	call->waiting = bpf_map_lookup_elem(&kh_calls, &call->frame);
	if (!call->waiting)
		return false;
	call->time_ns = ((struct kh_record *)(call->waiting + 1))->time_ns;
	return true;
}

/* Copies a call's record into a slot, to be continued. False: it is none. */
static __always_inline bool kh_resume(const struct kh_call *call, struct kh_slot *s)
{
	const __u64 *from = (const __u64 *)(call->waiting + 1);
	__u32 used = call->waiting->used;

	if (used > KH_MAX_OUT)
		return false;
	/* All words that there may be, of which the last are zeros: the verifier is spared a branch for each length. */
	__unroll_not
	for (__u32 i = 0; i < KH_MAX_OUT / 8 && i < config.waiting_words; i++)
		((__u64 *)s->out)[i] = from[i];
	s->out_used = used;
	return true;
}

/* The call waits no longer. */
static __always_inline void kh_finish(const struct kh_call *call, enum kh_count outcome)
{
	__u64 outer = call->waiting->outer;
	struct kh_top *top;

	if (!kh_take_out(&call->frame))
		return;
	kh_count(outcome);
	if (config.pair != KH_PAIR_GOROUTINE)
		return;
	top = bpf_map_lookup_elem(&kh_tops, &call->frame.stack);
	if (!top)
		return;
	if (outer == KH_NO_DEPTH)
		bpf_map_delete_elem(&kh_tops, &call->frame.stack);
	else
		top->depth = outer;
}

#endif

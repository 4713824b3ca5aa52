/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The callers of the function that is hit, by frame pointers: the addresses that each returns to, the innermost first. The program
 * walks by itself. The kernel's own walk (bpf_get_stack) does not say where it begins: before Linux 6.12 it misses the immediate
 * caller at a first instruction, since then only at some; and it gives up when another hit of the same CPU preempts it.
 */
#ifndef KH_STACK_H
#define KH_STACK_H

#include "scratch.h"

struct kh_walk {
	struct kh_slot *s;
	__u64 address; /* that a caller returns to */
	__u64 frame;   /* where the next one has the frame pointer of its own caller, and behind it its address */
	__u32 at;      /* the next one's place in the record */
	__u32 left;    /* so many more are let out */
	bool more;
};

#ifdef KH_KERNEL_MEMORY

static __always_inline bool kh_append_callers([[maybe_unused]] struct pt_regs *ctx, [[maybe_unused]] struct kh_slot *s,
					      [[maybe_unused]] struct kh_walk *w)
{
	return true;
}

#else

static __always_inline bool kh_put_caller(struct kh_walk *w, __u64 address)
{
	__u32 at = w->at;

	if (!w->left) {
		w->more = true;
		return false;
	}
	kh_opaque(at);
	if (at > KH_MAX_OUT - sizeof(address))
		return false;
	*(__u64 *)(w->s->out + at) = kh_code_address(address);
	w->at = at + sizeof(address);
	w->left--;
	return true;
}

static long kh_next_caller([[maybe_unused]] __u32 turn, struct kh_walk *w)
{
	struct {
		__u64 outer, address;
	} frame;

	if (w->frame % sizeof(__u64) || bpf_probe_read_user(&frame, sizeof(frame), (const void *)w->frame) || !frame.address ||
	    !kh_put_caller(w, frame.address))
		return 1;
	/* Each lies above the one before. What does not is no frame, and could lead in a circle. */
	if (frame.outer <= w->frame)
		return 1;
	w->frame = frame.outer;
	return 0;
}

/*
 * Appends the callers to a record as one value. At an attach point, an entry or a return instruction, the function has no frame
 * of its own: the frame pointer is still, or again, its caller's.
 */
static __always_inline bool kh_append_callers(struct pt_regs *ctx, struct kh_slot *s, struct kh_walk *w)
{
	__u32 at = s->out_used;
	struct kh_value *v;

	if (!config.callers)
		return true;
	kh_opaque(at);
	if (at > KH_MAX_OUT - KH_MAX_VALUE)
		return false;
	v = (struct kh_value *)(s->out + at);
	*w = (struct kh_walk){ .s = s, .frame = kh_frame_pointer(ctx), .at = at + sizeof(*v), .left = config.callers };
	if (kh_return_address(ctx, &w->address) && kh_put_caller(w, w->address) && w->frame >= kh_stack(ctx) - KH_BELOW_STACK)
		bpf_loop(KH_MAX_CALLERS, kh_next_caller, w, 0);
	v->flags = w->more ? KH_TRUNCATED : 0;
	v->length = config.callers - w->left;
	v->n = v->length * sizeof(w->address);
	s->out_used = w->at;
	return true;
}

#endif

#endif

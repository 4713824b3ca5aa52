/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Memory of one hit. A program may be preempted by another hit of itself on the same CPU (it runs with migration
 * disabled, but preemptible), so memory of the CPU is not private: a hit claims one of a few slots.
 *
 * What a slot holds while nobody claims it: zeros. Whoever claims it keeps to that.
 */
#ifndef KH_SCRATCH_H
#define KH_SCRATCH_H

#include "tables.h"

/* Bytes of the target that are not allowed to leave. Room for a string's NUL and one byte that shows it was cut. */
struct kh_input {
	__u8 bytes[KH_MAX_VALUE + sizeof(__u64)];
};

/* What a call that waits for its return has in front of its record. */
struct kh_waiting {
	__u64 outer; /* the depth of the frame that waits next around this one, or KH_NO_DEPTH */
	__u32 used;  /* bytes of the record */
	__u32 pad;
};

struct kh_slot {
	__u64 claimed;
	struct kh_input in;
	struct kh_waiting waiting; /* right before the record: they are stored as one */
	__u8 out[KH_MAX_OUT + sizeof(__u64)]; /* a record: what is allowed to leave, and nothing else */
	__u8 text[KH_MAX_VALUE];	      /* the input as the machines read it */
	__u16 marks[KH_MAX_VALUE + 4];	      /* what was found: see detect.h */
	struct kh_scan scan;
	__u32 in_used;
	__u32 out_used;
	__u32 text_used;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KH_SLOTS_PER_CPU); /* the loader sets it: so many for each possible CPU */
	__uint(map_flags, BPF_F_WRONLY);
	__type(key, __u32);
	__type(value, struct kh_slot);
} kh_scratch SEC(".maps");

static __always_inline struct kh_slot *kh_claim(void)
{
	__u32 index = bpf_get_smp_processor_id() * KH_SLOTS_PER_CPU;

	__unroll_not
	for (int i = 0; i < KH_SLOTS_PER_CPU; i++, index++) {
		struct kh_slot *s = bpf_map_lookup_elem(&kh_scratch, &index);

		if (s && __sync_val_compare_and_swap(&s->claimed, 0, 1) == 0)
			return s;
	}
	return 0;
}

/* Notes that the first n bytes of the input part are to be zeroed. */
static __always_inline void kh_used(struct kh_slot *s, __u32 n)
{
	if (s->in_used < n)
		s->in_used = n;
}

/*
 * Zeros n bytes, if they are no more than most, by a read that cannot succeed: the helper clears its destination when
 * the source is no user address (kernel/trace/bpf_trace.c, bpf_probe_read_user_common). A loop over a variable number
 * of words would cost the verifier an iteration for each.
 */
static __always_inline void kh_zero(void *p, __u32 n, __u32 most)
{
	if (!n)
		return;
	kh_opaque(n); /* both comparisons in one, of n - 1, would tell the verifier of 6.12 nothing about n */
	if (n <= most)
		bpf_probe_read_user(p, n, (const void *)-1UL);
}

static __always_inline void kh_release(struct kh_slot *s)
{
	kh_zero(s->in.bytes, s->in_used, sizeof(s->in.bytes));
	kh_zero(s->out, s->out_used, sizeof(s->out));
	s->waiting.outer = 0;
	s->waiting.used = 0;
	if (s->text_used) {
		kh_zero(s->text, s->text_used, sizeof(s->text));
		kh_zero(s->marks, 2 * s->text_used + 2, sizeof(s->marks));
		kh_zero(&s->scan, sizeof(s->scan), sizeof(s->scan));
	}
	s->in_used = 0;
	s->out_used = 0;
	s->text_used = 0;
	/* A plain store: only hits on this very CPU look at the slot. But the last one: clang would put those above behind it. */
	__asm__ volatile("" ::: "memory");
	*(volatile __u64 *)&s->claimed = 0;
}

#endif

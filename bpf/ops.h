/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The ops. Each switch below is walked by one loop over a frozen table, of which the verifier reads the entries as
 * constants: it proves the very plan that is loaded, offset by offset, and refuses one that would leave its bounds.
 */
#ifndef KH_OPS_H
#define KH_OPS_H

#include "detect.h"
#include "numbers.h"
#include "reads.h"
#include "scratch.h"
#include "siphash.h"

/* What the ops of one hit share. It is on the stack, of whose 512 bytes the programs have some 380: detect.h has the rest. */
struct kh_hit {
	const struct pt_regs *ctx;
	__u64 unknown; /* to the verifier */
	__u64 slot[KH_MAX_SLOTS];
	enum kh_reason reason[KH_MAX_SLOTS];
};

static __always_inline void kh_begin_hit(struct kh_hit *hit, const struct pt_regs *ctx)
{
	hit->ctx = ctx;
	hit->unknown = kh_stack(ctx);
}

/* What may leave of n bytes as a prefix or a suffix: nothing if that would be all of them. */
static __always_inline __u32 kh_part(__u32 n, __u32 part)
{
	return part < n ? part : 0;
}

/*
 * The same x, of which the verifier knows nothing: where it remembers what it found out about a slot in one branch, it
 * keeps that branch apart from the others for as long as the slot lives, and a plan of 18 ops took more than its
 * million instructions.
 */
static __always_inline __u64 kh_veil(const struct kh_hit *hit, __u64 x)
{
	x ^= hit->unknown;
	kh_opaque(x);
	return x ^ hit->unknown;
}

static __always_inline void kh_set(struct kh_hit *hit, __u8 slot, __u64 value, enum kh_reason reason)
{
	hit->slot[slot] = kh_veil(hit, value);
	hit->reason[slot] = kh_veil(hit, reason);
}

static __always_inline __u64 kh_get(const struct kh_hit *hit, __u8 slot)
{
	return kh_veil(hit, hit->slot[slot]);
}

static __always_inline enum kh_reason kh_why(const struct kh_hit *hit, __u8 slot)
{
	return (enum kh_reason)kh_veil(hit, hit->reason[slot]);
}

static __always_inline void kh_op_reg(struct kh_hit *hit, const volatile struct kh_op *op)
{
	__u64 x;

	if (kh_register(hit->ctx, op->arg, &x))
		kh_set(hit, op->dst, x >> (8 * op->n), KH_OK);
	else
		kh_set(hit, op->dst, 0, KH_FAULT);
}

static __always_inline void kh_op_load(struct kh_hit *hit, const volatile struct kh_op *op)
{
	enum kh_reason reason = kh_why(hit, op->src);
	__u64 base = kh_get(hit, op->src), value = 0;

	if (reason == KH_OK) {
		if (!base)
			reason = KH_NIL;
		else if (kh_read(op, &value, op->arg, base + op->off))
			reason = KH_FAULT;
	}
	kh_set(hit, op->dst, value, reason);
}

/* Reads a string of at most cap bytes and says in *n how many there were, cap + 1 if there were more. */
static __always_inline enum kh_reason kh_read_cstr(void *to, __u32 cap, const struct kh_hit *hit,
						   const volatile struct kh_op *op, __u32 *n)
{
	enum kh_reason reason = kh_why(hit, op->src);
	__u64 base = kh_get(hit, op->src);
	long got;

	if (reason != KH_OK)
		return reason;
	if (!base)
		return KH_NIL;
	got = kh_read_str(op, to, cap + 2, base + op->off);
	if (got < 0)
		return KH_FAULT;
	*n = got ? got - 1 : 0; /* 6.12 leaves the end of an empty one out (strncpy_from_user_nofault) */
	return KH_OK;
}

/* What remains of a word of which only the first n bytes, 1 to 7, count. */
static __always_inline __u64 kh_first(__u64 word, __u32 n)
{
	return word & (~0ULL >> (64 - 8 * n));
}

/*
 * Do the first n bytes of in equal those of the pool from offset? Word by word, the last bytes apart: a mask that is
 * chosen inside of the loop doubles what the verifier keeps apart with each turn. Global for the same reason as kh_siphash.
 */
__noinline int kh_equal(const struct kh_input *in, __u32 offset, __u32 n)
{
	__u32 i, at = offset;

	if (!in || n > KH_POOL_BYTES)
		return 0;
	__unroll_not
	for (i = 0; i + 8 <= n; i += 8, at += 8) {
		kh_opaque(at);
		kh_opaque(i);
		if (i > KH_POOL_BYTES || at > KH_POOL_BYTES || *(const __u64 *)(in->bytes + i) != *(const volatile __u64 *)(pool + at))
			return 0;
	}
	if (!(n & 7))
		return 1;
	kh_opaque(at);
	kh_opaque(i);
	return i <= KH_POOL_BYTES && at <= KH_POOL_BYTES &&
	       !kh_first(*(const __u64 *)(in->bytes + i) ^ *(const volatile __u64 *)(pool + at), n & 7);
}

/* A condition on a value that cannot be read does not hold, whatever it asks for. */
static __always_inline bool kh_op_if_int(const struct kh_hit *hit, const volatile struct kh_op *op)
{
	return kh_why(hit, op->src) == KH_OK && !kh_is_address(kh_low(kh_get(hit, op->src), op->arg)) &&
	       kh_compare_int(kh_get(hit, op->src), op->arg, op->n, *(const volatile __u64 *)(pool + op->aux));
}

static __always_inline bool kh_op_if_string(const struct kh_hit *hit, struct kh_slot *s, const volatile struct kh_op *op)
{
	__u32 n = op->n, got = 0;
	bool equal;

	if (kh_why(hit, op->src) != KH_OK || n > KH_POOL_BYTES)
		return false;
	if (op->code == KH_OP_IF_CSTR) {
		if (kh_read_cstr(s->in.bytes, n, hit, op, &got) != KH_OK)
			return false;
		kh_used(s, got);
		equal = got == n;
	} else {
		if (kh_why(hit, op->dst) != KH_OK)
			return false;
		equal = kh_get(hit, op->dst) == n;
		if (equal && n) {
			kh_used(s, n);
			if (kh_read_some(op, s->in.bytes, n, kh_get(hit, op->src) + op->off))
				return false;
		}
	}
	equal = equal && kh_equal(&s->in, op->aux, n);
	return equal == (op->arg == KH_EQ);
}

/* Walks the conditions, the ops [from, to). False: the hit is filtered. */
static __always_inline bool kh_decide(struct kh_hit *hit, struct kh_slot *s, __u32 from, __u32 to)
{
	__unroll_not
	for (__u32 i = from; i < KH_MAX_OPS && i < to; i++) {
		const volatile struct kh_op *op = &ops[i];

		switch (op->code) {
		case KH_OP_REG:
			kh_op_reg(hit, op);
			break;
		case KH_OP_LOAD:
			kh_op_load(hit, op);
			break;
		case KH_OP_IF_INT:
			if (!kh_op_if_int(hit, op))
				return false;
			break;
		case KH_OP_IF_BYTES:
		case KH_OP_IF_CSTR:
			if (!s || !kh_op_if_string(hit, s, op))
				return false;
			break;
		default:
			return false;
		}
	}
	return true;
}

/* A value on its way out: what its header will say. Its bytes are, or will be, right behind the header. */
struct kh_leaving {
	enum kh_reason reason;
	bool truncated;
	bool withheld;
	__u32 n;
	__u64 length;
};

static __always_inline struct kh_leaving kh_missing(enum kh_reason reason)
{
	return (struct kh_leaving){ .reason = reason };
}

/* Of the first n bytes of the input part, their digest leaves. */
static __always_inline void kh_leave_digest(struct kh_slot *s, __u8 *to, __u32 n)
{
	*(__u64 *)to = kh_siphash(&s->in, n);
}

static __always_inline struct kh_leaving kh_op_emit(const struct kh_hit *hit, struct kh_slot *s,
						    const volatile struct kh_op *op, __u8 *to)
{
	struct kh_leaving v = { .reason = kh_why(hit, op->src), .length = op->arg };
	__u64 value = kh_low(kh_get(hit, op->src), op->arg);

	if (v.reason == KH_OK && kh_is_address(value))
		v.reason = KH_ADDRESS;
	if (v.reason != KH_OK)
		return kh_missing(v.reason);
	switch (op->action) {
	case KH_KEEP:
	case KH_BUCKET:
		*(__u64 *)to = op->action == KH_BUCKET ? kh_coarse(op, value, &v.withheld) : value;
		v.n = op->arg;
		break;
	case KH_DIGEST:
		*(__u64 *)s->in.bytes = value;
		kh_used(s, sizeof(value));
		kh_leave_digest(s, to, op->arg);
		v.n = sizeof(__u64);
		break;
	default: /* of a number no part leaves */
		break;
	}
	return v;
}

/*
 * Copies n bytes of the input part to the output part, where there are zeros, by words. Global for the same reason as
 * kh_siphash.
 */
__noinline int kh_copy(struct kh_slot *s, __u32 to, __u32 from, __u32 n)
{
	__u32 i, at = from;

	if (!s || n > KH_MAX_VALUE || to > KH_MAX_OUT - KH_MAX_VALUE)
		return 0;
	__unroll_not
	for (i = 0; i + 8 <= n; i += 8, at += 8) {
		kh_opaque(at);
		kh_opaque(i);
		if (i > KH_MAX_VALUE || at > KH_MAX_VALUE)
			return 0;
		*(__u64 *)(s->out + to + i) = *(const __u64 *)(s->in.bytes + at);
	}
	kh_opaque(at);
	kh_opaque(i);
	if (n & 7 && i <= KH_MAX_VALUE - 8 && at <= KH_MAX_VALUE)
		*(__u64 *)(s->out + to + i) = kh_first(*(const __u64 *)(s->in.bytes + at), n & 7);
	return 0;
}

/*
 * Of the first n bytes of the input part leaves what no pattern of the op's set finds, the rest overwritten; or all of them, if a
 * pattern finds them as a whole. cut: the value has more bytes than these. Not KH_OK: nothing leaves.
 */
static __always_inline enum kh_reason kh_leave_text(struct kh_slot *s, const volatile struct kh_op *op, __u32 at, __u32 n,
						    bool cut)
{
	__u32 wanted = config.wanted[op->aux & (KH_MAX_SETS - 1)];

	if (op->action == KH_ALLOW) {
		if (cut || kh_allow(s, n, wanted) != 1)
			return KH_NOT_ALLOWED;
	} else if (kh_detect(s, n, wanted, cut)) {
		return KH_UNFINISHED;
	}
	kh_copy(s, at, 0, n);
	return KH_OK;
}

/* What may leave is read into the output part at once, exactly as long as it is; what may not is not read. */
static __always_inline struct kh_leaving kh_op_bytes(const struct kh_hit *hit, struct kh_slot *s,
						     const volatile struct kh_op *op, __u8 *to, __u32 at)
{
	struct kh_leaving v = { .reason = kh_why(hit, op->src), .length = kh_get(hit, op->dst) };
	__u64 from = kh_get(hit, op->src);
	__u32 cap = op->n, n, part = op->aux;

	if (v.reason == KH_OK)
		v.reason = kh_why(hit, op->dst);
	if (v.reason == KH_OK && v.length >> KH_LENGTH_BITS)
		v.reason = KH_BAD_LENGTH;
	if (v.reason == KH_OK && v.length && !from)
		v.reason = KH_NIL;
	if (v.reason != KH_OK)
		return kh_missing(v.reason);

	v.truncated = v.length > cap;
	n = v.truncated ? cap : v.length;
	from += op->off;
	switch (op->action) {
	case KH_DIGEST:
	case KH_DETECT:
	case KH_ALLOW:
		if (n) {
			kh_used(s, n);
			if (kh_read_some(op, s->in.bytes, n, from))
				return kh_missing(KH_FAULT);
		}
		if (op->action == KH_DIGEST) {
			kh_leave_digest(s, to, n);
			v.n = sizeof(__u64);
			return v;
		}
		v.n = n;
		v.reason = kh_leave_text(s, op, at, n, v.truncated);
		v.withheld = n && op->action == KH_DETECT && s->scan.covered;
		return v.reason == KH_OK ? v : kh_missing(v.reason);
	case KH_KEEP:
		break;
	case KH_PREFIX:
		n = kh_part(n, part);
		break;
	case KH_SUFFIX:
		part = kh_part(n, part);
		from += n - part;
		n = v.truncated ? 0 : part;
		break;
	default: /* KH_LENGTH */
		return v;
	}
	if (n && kh_read_some(op, to, n, from))
		return kh_missing(KH_FAULT);
	v.n = n;
	return v;
}

/* A string's length is known only when it was read: to the output part if all of it may leave, else to the input part. */
static __always_inline struct kh_leaving kh_op_cstr(const struct kh_hit *hit, struct kh_slot *s,
						    const volatile struct kh_op *op, __u8 *to, __u32 at)
{
	struct kh_leaving v = {};
	__u32 cap = op->n, got = 0, part = op->aux;
	bool keep = op->action == KH_KEEP;

	v.reason = kh_read_cstr(keep ? to : s->in.bytes, cap, hit, op, &got);
	if (v.reason != KH_OK)
		return v;
	v.truncated = got > cap;
	if (!keep)
		kh_used(s, got);
	if (v.truncated) {
		if (keep)
			to[cap] = 0;
		got = cap;
	}
	v.length = got;
	part = kh_part(got, part);
	switch (op->action) {
	case KH_KEEP:
		v.n = got;
		break;
	case KH_DIGEST:
		kh_leave_digest(s, to, got);
		v.n = sizeof(__u64);
		break;
	case KH_PREFIX:
		kh_copy(s, at, 0, part);
		v.n = part;
		break;
	case KH_SUFFIX:
		if (!v.truncated) {
			kh_copy(s, at, got - part, part);
			v.n = part;
		}
		break;
	case KH_DETECT:
	case KH_ALLOW:
		v.n = got;
		v.reason = kh_leave_text(s, op, at, got, v.truncated);
		v.withheld = got && op->action == KH_DETECT && s->scan.covered;
		return v.reason == KH_OK ? v : kh_missing(v.reason);
	default: /* KH_LENGTH */
		break;
	}
	return v;
}

/* Walks the captures, the ops [from, to), and appends a value for each that emits. False: the record would be too long. */
static __always_inline bool kh_capture(struct kh_hit *hit, struct kh_slot *s, __u32 from, __u32 to)
{
	__unroll_not
	for (__u32 i = from; i < KH_MAX_OPS && i < to; i++) {
		const volatile struct kh_op *op = &ops[i];
		struct kh_leaving v;
		__u32 at;

		if (op->code == KH_OP_REG) {
			kh_op_reg(hit, op);
			continue;
		}
		if (op->code == KH_OP_LOAD) {
			kh_op_load(hit, op);
			continue;
		}
		if (op->code == KH_OP_TEST) {
			kh_set(hit, op->dst, kh_get(hit, op->src) != 0, kh_why(hit, op->src));
			continue;
		}
		/*
		 * Through memory, of which the verifier knows nothing: were the offset in a register, it would keep apart
		 * what it had proved for each length of the values before, and the plan would cost it exponentially.
		 */
		at = *(volatile __u32 *)&s->out_used + sizeof(struct kh_value);
		if (op->n > KH_MAX_VALUE || at > KH_MAX_OUT - KH_MAX_VALUE)
			return false;
		switch (op->code) {
		case KH_OP_EMIT:
			v = kh_op_emit(hit, s, op, s->out + at);
			break;
		case KH_OP_BYTES:
			v = kh_op_bytes(hit, s, op, s->out + at, at);
			break;
		case KH_OP_CSTR:
			v = kh_op_cstr(hit, s, op, s->out + at, at);
			break;
		default:
			return false;
		}
		*(__u64 *)(s->out + at - sizeof(struct kh_value)) =
			v.reason | (__u64)v.truncated << 8 | (__u64)v.withheld << 9 | (__u64)v.n << 16 |
			(v.length > ~0U ? ~0U : v.length) << 32;
		*(volatile __u32 *)&s->out_used = at + ((v.n + 7) & ~7U);
	}
	return true;
}

#endif

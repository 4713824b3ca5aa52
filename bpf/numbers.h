/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is done with numbers of 1 to 8 bytes, each in a word. */
#ifndef KH_NUMBERS_H
#define KH_NUMBERS_H

#include "tables.h"

/* The low width bytes. */
static __always_inline __u64 kh_low(__u64 x, __u8 width)
{
	return width < 8 ? x & (~0ULL >> (64 - 8 * width)) : x;
}

static __always_inline bool kh_compare_int(__u64 a, __u8 width, __u32 how, __u64 b)
{
	__u32 unused = 64 - 8 * width;
	bool less;

	a <<= unused;
	b <<= unused;
	less = how & KH_SIGNED ? (__s64)a < (__s64)b : a < b;
	switch (how & ~KH_SIGNED) {
	case KH_EQ:
		return a == b;
	case KH_NE:
		return a != b;
	case KH_LT:
		return less;
	case KH_LE:
		return less || a == b;
	case KH_GT:
		return !less && a != b;
	default:
		return !less;
	}
}

/* The power of two at or below x. */
static __always_inline __u64 kh_power(__u64 x)
{
	x |= x >> 1;
	x |= x >> 2;
	x |= x >> 4;
	x |= x >> 8;
	x |= x >> 16;
	x |= x >> 32;
	return x - (x >> 1);
}

/* The power of two of a number, with its sign, if its magnitude is op.off or more: then it is withheld. */
static __always_inline __u64 kh_coarse(const volatile struct kh_op *op, __u64 value, bool *withheld)
{
	__u32 unused = 64 - 8 * op->arg;
	bool negative = op->n & KH_SIGNED && (__s64)(value << unused) < 0;
	__u64 magnitude = negative ? -(__u64)((__s64)(value << unused) >> unused) : value;

	if (!magnitude || magnitude < (__u64)op->off)
		return value;
	*withheld = true;
	magnitude = kh_power(magnitude);
	return kh_low(negative ? -magnitude : magnitude, op->arg);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* SipHash-2-4 (Aumasson and Bernstein, 2012) under the session's key. */
#ifndef KH_SIPHASH_H
#define KH_SIPHASH_H

#include "scratch.h"

#define KH_ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))

#define KH_SIPROUND(v0, v1, v2, v3)                                                  \
	do {                                                                         \
		v0 += v1, v2 += v3;                                                  \
		v1 = KH_ROTL(v1, 13) ^ v0, v3 = KH_ROTL(v3, 16) ^ v2;                \
		v0 = KH_ROTL(v0, 32);                                                \
		v2 += v1, v0 += v3;                                                  \
		v1 = KH_ROTL(v1, 17) ^ v2, v3 = KH_ROTL(v3, 21) ^ v0;                \
		v2 = KH_ROTL(v2, 32);                                                \
	} while (0)

/*
 * The digest of the first n bytes of in. A global function: the verifier proves it once for any argument, while a
 * static one is proved again at each call, and 16 digests took more than its million instructions.
 */
__noinline __u64 kh_siphash(const struct kh_input *in, __u32 n)
{
	__u64 k0 = config.key[0], k1 = config.key[1];
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
	__u64 m;
	__u32 i;

	if (!in || n > KH_MAX_VALUE)
		return 0;
	/* The comparisons with a constant are for verifiers that follow no comparison of a known number with an unknown one: 6.1. */
	__unroll_not
	for (i = 0; i + 8 <= n; i += 8) {
		kh_opaque(i);
		if (i > KH_MAX_VALUE)
			return 0;
		m = *(const __u64 *)(in->bytes + i);
		v3 ^= m;
		KH_SIPROUND(v0, v1, v2, v3);
		KH_SIPROUND(v0, v1, v2, v3);
		v0 ^= m;
	}
	m = (__u64)n << 56;
	kh_opaque(i);
	if (n & 7 && i <= KH_MAX_VALUE)
		m |= *(const __u64 *)(in->bytes + i) & (~0ULL >> (64 - 8 * (n & 7)));
	v3 ^= m;
	KH_SIPROUND(v0, v1, v2, v3);
	KH_SIPROUND(v0, v1, v2, v3);
	v0 ^= m;
	v2 ^= 0xff;
	__unroll_not
	for (i = 0; i < 4; i++)
		KH_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif

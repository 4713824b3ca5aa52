// SPDX-License-Identifier: Apache-2.0

// Loops that a compiler turns into vector instructions of every width, with masks, conversions, gathers, shuffles and immediates.

#include <stdint.h>

#define N 4096

#define LOOPS(name, type)                                                                                     \
	void name##_add(type *a, const type *b, const type *c) { for (int i = 0; i < N; i++) a[i] = b[i] + c[i]; }    \
	void name##_mul(type *a, const type *b, int n) { for (int i = 0; i < n; i++) a[i] = b[i] * a[i] + (type)3; } \
	void name##_if(type *a, const type *b, int n) { for (int i = 0; i < n; i++) if (b[i] > a[i]) a[i] = b[i]; }  \
	void name##_far(type *a, const int *at, int n) { for (int i = 0; i < n; i++) a[i] += a[at[i]]; }             \
	void name##_put(type *a, const int *at, int n) { for (int i = 0; i < n; i++) a[at[i]] = (type)i; }           \
	void name##_back(type *a, const type *b) { for (int i = 0; i < N; i++) a[i] = b[N - 1 - i]; }                \
	void name##_third(type *a, const type *b, int n) { for (int i = 0; i < n; i++) a[i] = b[3 * i] + b[3 * i + 2]; } \
	type name##_sum(const type *b, int n) { type s = 0; for (int i = 0; i < n; i++) s += b[i]; return s; }       \
	type name##_max(const type *b, int n) { type s = b[0]; for (int i = 1; i < n; i++) s = b[i] > s ? b[i] : s; return s; } \
	void name##_u8(uint8_t *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (uint8_t)b[i]; }              \
	void name##_f32(float *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (float)b[i]; }                 \
	void name##_f64(double *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (double)b[i]; }               \
	void name##_i64(int64_t *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (int64_t)b[i]; }

#define BITS(name, type)                                                                                     \
	void name##_and(type *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (a[i] & ~b[i]) ^ (type)0x5a; }  \
	void name##_shift(type *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (type)(b[i] >> 3 | a[i] << 2); } \
	void name##_by(type *a, const type *b) { for (int i = 0; i < N; i++) a[i] = (type)(a[i] << (b[i] & 7)); }    \
	void name##_ones(type *a) { for (int i = 0; i < N; i++) a[i] = (type)__builtin_popcountll((uint64_t)a[i]); } \
	type name##_turn(type a, int n) { return (type)(a << (n & 7) | a >> ((-n) & 7)); }

LOOPS(f32, float)
LOOPS(f64, double)
LOOPS(i8, int8_t)
LOOPS(i16, int16_t)
LOOPS(i32, int32_t)
LOOPS(i64, int64_t)
LOOPS(u16, uint16_t)
LOOPS(u32, uint32_t)
LOOPS(u64, uint64_t)
BITS(b8, uint8_t)
BITS(b16, uint16_t)
BITS(b32, uint32_t)
BITS(b64, uint64_t)

void mix(uint32_t *s, const uint32_t *k) {
	for (int i = 0; i < N; i += 4) {
		uint32_t a = s[i], b = s[i + 1], c = s[i + 2], d = s[i + 3];
		a += b, d ^= a, d = d << 16 | d >> 16;
		c += d, b ^= c, b = b << 12 | b >> 20;
		s[i] = a ^ k[i], s[i + 1] = b, s[i + 2] = c, s[i + 3] = d;
	}
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The C of bpf/detect.h compiled for user space, where it runs millions of values in a minute. Reads requests on standard input and
 * answers each on standard output; see user_test.go for both.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What bpf/kernel.h has, for user space. */
#define KH_KERNEL_H
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef unsigned long long __u64;
typedef int32_t __s32;
typedef long long __s64;
#define SEC(name)
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __unused __attribute__((unused))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) __typeof__(value) *name
#define __unroll_not
#define kh_opaque(variable) __asm__ volatile("" : "+r"(variable))
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_F_WRONLY = 1 << 4, BPF_F_RDONLY_PROG = 1 << 7 };
struct pt_regs;
struct task_struct;

static void *bpf_map_lookup_elem(void *map, const void *key);
static __u32 bpf_get_smp_processor_id(void) { return 0; }
static long bpf_probe_read_user(void *to, __u32 n, const void *from)
{
	(void)from; /* nothing can be read there: the destination is cleared */
	memset(to, 0, n);
	return -1;
}

static long bpf_loop(__u32 times, void *body, void *context, __u64 flags)
{
	long (*turn)(__u32, void *) = (long (*)(__u32, void *))body;

	(void)flags;
	for (__u32 i = 0; i < times; i++)
		if (turn(i, context))
			return i + 1;
	return times;
}

#define const /* the tables are written once for each pattern, here */
#include "../../../../bpf/detect.h"
#undef const

static struct kh_slot slot;
static struct kh_tables tables;

static void *bpf_map_lookup_elem(void *map, const void *key)
{
	(void)key;
	return map == (void *)&kh_patterns ? (void *)&tables : (void *)&slot;
}

static void get(void *to, size_t n)
{
	if (n && fread(to, 1, n, stdin) != n)
		exit(feof(stdin) ? 0 : 1);
}

static void put(const void *from, size_t n)
{
	if (n && fwrite(from, 1, n, stdout) != n)
		exit(1);
}

int main(void)
{
	static struct kh_slot zero;
	struct {
		__u32 what, n, cut, more; /* what: 0: tables of n bytes, of more machines; 2: detect, 3: allow */
	} request;

	for (;;) {
		__s32 answer;

		get(&request, sizeof(request));
		if (request.what == 0) {
			if (request.n > sizeof(tables))
				return 2;
			get(&tables, request.n);
			*(__u32 *)&config.words_mask = (request.n - offsetof(struct kh_tables, words)) / 2 - 1;
			*(__u32 *)&config.n_machines = request.more;
			continue;
		}
		if (request.n > KH_MAX_VALUE)
			return 3;
		get(slot.in.bytes, request.n);
		kh_used(&slot, request.n);
		answer = request.what == 2 ? kh_detect(&slot, request.n, ~0U, request.cut) : kh_allow(&slot, request.n, ~0U);
		put(&answer, sizeof(answer));
		put(slot.in.bytes, request.n);
		kh_release(&slot);
		if (memcmp(&slot, &zero, sizeof(slot)))
			return 4; /* something stayed */
		if (request.more)
			fflush(stdout);
	}
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * How the ops read memory. A program for processes reads theirs. A program for the kernel reads the kernel's own, except
 * where an op says that its address is one that a process gave: followed as the kernel's, it would be that process's choice
 * what is read.
 */
#ifndef KH_READS_H
#define KH_READS_H

#include "tables.h"

#ifdef KH_KERNEL_MEMORY

/*
 * Is a number an address of the kernel's, or may it be one? Those are in the upper half, whatever their type says: a saved
 * stack pointer is an unsigned long, a tree's parent has a colour in its lowest bit. Small negative numbers are none: the
 * last pages are never mapped, so that errors can be told from pointers.
 */
static __always_inline bool kh_is_address(__u64 x)
{
	return x >= 0xfff0ULL << 48 && x < -(1ULL << 24);
}

static __always_inline long kh_read(const volatile struct kh_op *op, void *to, __u32 n, __u64 from)
{
	if (op->user)
		return bpf_probe_read_user(to, n, (const void *)from);
	return bpf_probe_read_kernel(to, n, (const void *)from);
}

static __always_inline long kh_read_str(const volatile struct kh_op *op, void *to, __u32 n, __u64 from)
{
	if (op->user)
		return bpf_probe_read_user_str(to, n, (const void *)from);
	return bpf_probe_read_kernel_str(to, n, (const void *)from);
}

#else

static __always_inline bool kh_is_address([[maybe_unused]] __u64 x)
{
	return false;
}

static __always_inline long kh_read([[maybe_unused]] const volatile struct kh_op *op, void *to, __u32 n, __u64 from)
{
	return bpf_probe_read_user(to, n, (const void *)from);
}

static __always_inline long kh_read_str([[maybe_unused]] const volatile struct kh_op *op, void *to, __u32 n, __u64 from)
{
	return bpf_probe_read_user_str(to, n, (const void *)from);
}

#endif

/*
 * Reads n bytes, at most KH_MAX_VALUE. The comparison stands right before the call, and is one of 64 bits: of a number that went through
 * the stack, or was compared by its lower half, verifiers before Linux 6.6 know no bound.
 */
static __always_inline long kh_read_some(const volatile struct kh_op *op, void *to, __u64 n, __u64 from)
{
	kh_opaque(n);
	if (n > KH_MAX_VALUE)
		return -1;
	return kh_read(op, to, n, from);
}

#endif

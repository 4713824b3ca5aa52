/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Counting without events: hits in groups by a value that may leave as it is, or numbers in the buckets of a histogram. The
 * value is read by the plan's ops into a slot, as for a record, and nothing goes to the ring.
 */
#ifndef KH_AGGREGATE_H
#define KH_AGGREGATE_H

#include "ops.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KH_MAX_GROUPS); /* the loader sets it: one where nothing is grouped */
	__type(key, struct kh_group);
	__type(value, __u64);
} kh_groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kh_buckets);
} kh_histogram SEC(".maps");

/* Counts a hit in its group; in none if there are as many as can be: what is missing in the sum of all is the others'. */
static __always_inline void kh_count_group(struct kh_group *group)
{
	__u64 none = 0, *n;

	group->value.length = 0; /* values that are cut alike are one group */
	n = bpf_map_lookup_elem(&kh_groups, group);
	if (!n) {
		bpf_map_update_elem(&kh_groups, group, &none, BPF_NOEXIST); /* another CPU may have been faster */
		n = bpf_map_lookup_elem(&kh_groups, group);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
}

/*
 * The bucket of a number above 0: those of OpenTelemetry's exponential histograms of scale 3, eight for each power of two,
 * each without its lower bound and with its upper one. Bucket n here is number n - 1 there, 1 being in number -1.
 */
static __always_inline __u32 kh_bucket(__u64 x)
{
	__u32 exponent = 0, above;
	__u64 rest = x, fraction;

	if (rest >> 32) {
		exponent += 32;
		rest >>= 32;
	}
	if (rest >> 16) {
		exponent += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		exponent += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		exponent += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		exponent += 2;
		rest >>= 2;
	}
	exponent += rest >> 1;
	fraction = x << (63 - exponent) << 1; /* behind the leading bit, of 2^64 */
	above = fraction > 0;
	fraction >>= 32;
	above += fraction > 0x172b83c7; /* 2^(1/8) - 1, of 2^32, and so on */
	above += fraction > 0x306fe0a3;
	above += fraction > 0x4bfdad53;
	above += fraction > 0x6a09e667;
	above += fraction > 0x8ace5422;
	above += fraction > 0xae89f995;
	above += fraction > 0xd5818dcf;
	return 8 * exponent + above;
}

/* Counts a number in its bucket. */
static __always_inline void kh_count_number(const struct kh_group *group)
{
	__u32 key = 0, n;
	struct kh_buckets *h = bpf_map_lookup_elem(&kh_histogram, &key);
	__u64 word = *(const __u64 *)group->bytes;
	__s64 x = config.unused_bits ? (__s64)(word << config.unused_bits) >> config.unused_bits : (__s64)word;
	bool negative = config.is_signed && x < 0;

	if (!h)
		return;
	if (group->value.reason != KH_OK) {
		__sync_fetch_and_add(&h->missing, 1);
		return;
	}
	__sync_fetch_and_add(&h->sum, x);
	if (!x) {
		__sync_fetch_and_add(&h->zero, 1);
		return;
	}
	n = kh_bucket(negative ? -(__u64)x : (__u64)x);
	if (n < KH_BUCKETS)
		__sync_fetch_and_add(negative ? &h->negative[n] : &h->positive[n], 1);
}

/* Counts in its bucket how long a call took. */
static __always_inline void kh_count_duration(__u64 ns)
{
	__u32 key = 0, n;
	struct kh_buckets *h = bpf_map_lookup_elem(&kh_histogram, &key);

	if (!h)
		return;
	__sync_fetch_and_add(&h->sum, ns);
	if (!ns) {
		__sync_fetch_and_add(&h->zero, 1);
		return;
	}
	n = kh_bucket(ns);
	if (n < KH_BUCKETS)
		__sync_fetch_and_add(&h->positive[n], 1);
}

/* Reads the plan's one value and counts the hit by it. */
static __always_inline enum kh_count kh_aggregate(struct kh_hit *hit, struct kh_slot *s)
{
	struct kh_group *group = (struct kh_group *)(s->out + sizeof(struct kh_record));

	s->out_used = sizeof(struct kh_record);
	if (!kh_capture(hit, s, config.if_end, config.entry_end))
		return KH_LOST;
	if (config.aggregate == KH_GROUPS)
		kh_count_group(group);
	else
		kh_count_number(group);
	return KH_EMITTED;
}

#endif

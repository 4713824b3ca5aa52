//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the programs do with one value once it is read, to be run by a test on values of its own: the same code, without a probe
 * around it.
 */
#include "../../../bpf/detect.h"
#include "../../../bpf/siphash.h"

enum kh_scan_what {
	KH_SCAN_COPY = 0, /* nothing: what it costs to have the value there */
	KH_SCAN_DIGEST = 1,
	KH_SCAN_DETECT = 2,
	KH_SCAN_ALLOW = 3,
};

struct kh_scan_request {
	__u32 what; /* enum kh_scan_what */
	__u32 n;    /* bytes of the value, which is in the output part of slot 0 */
	__u32 wanted;
	__u32 cut;
	__u32 times;
	__s32 answer;
	__u64 ns; /* of all times together */
	__u64 digest;
};

const volatile struct {
	struct kh_scan_request request;
	enum kh_scan_what what;
} scan_types;

struct kh_scan_job {
	struct kh_scan_request *request;
	struct kh_slot *slot;
};

static long kh_scan_once(__u32 turn __unused, struct kh_scan_job *job)
{
	struct kh_scan_request *r = job->request;
	struct kh_slot *s = job->slot;
	__u64 n = r->n;

	if (n > KH_MAX_VALUE)
		return 1;
	if (n)
		bpf_probe_read_kernel(s->in.bytes, n, s->out);
	switch (r->what) {
	case KH_SCAN_DIGEST:
		r->digest = kh_siphash(&s->in, n);
		break;
	case KH_SCAN_DETECT:
		r->answer = kh_detect(s, n, r->wanted, r->cut);
		break;
	case KH_SCAN_ALLOW:
		r->answer = kh_allow(s, n, r->wanted);
		break;
	}
	return 0;
}

SEC("syscall")
int kh_scan(struct kh_scan_request *r)
{
	struct kh_scan_request mine = { .what = r->what, .n = r->n, .wanted = r->wanted, .cut = r->cut, .answer = -1 };
	__u32 key = 0;
	struct kh_scan_job job = { .request = &mine, .slot = bpf_map_lookup_elem(&kh_scratch, &key) };
	__u64 start;

	if (!job.slot)
		return 1;
	start = bpf_ktime_get_boot_ns();
	bpf_loop(r->times, kh_scan_once, &job, 0);
	r->ns = bpf_ktime_get_boot_ns() - start;
	r->answer = mine.answer;
	r->digest = mine.digest;
	return 0;
}

char __license[] SEC("license") = "Dual BSD/GPL";

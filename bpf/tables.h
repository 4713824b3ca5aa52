/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What makes this one program a particular probe: the loader fills these and freezes them before it loads. */
#ifndef KH_TABLES_H
#define KH_TABLES_H

#include "kernel.h"
#include "types.h"

const volatile struct kh_config config;
const volatile struct kh_op ops[KH_MAX_OPS];
const volatile __u8 pool[KH_POOL_BYTES + sizeof(__u64)]; /* the last byte, too, is read as part of a word */

const volatile __u32 never; /* 0, always */

/* Never read: keeps what the program itself has no variable of in the object's BTF, from which the Go side is generated. */
const volatile struct {
	struct kh_record record;
	struct kh_value value;
	enum kh_limit limit;
	enum kh_compare compare;
	enum kh_count count;
	enum kh_pair pair;
	enum kh_aggregate aggregate;
	enum kh_detection detection;
	enum kh_value_flag value_flag;
} types;

#endif

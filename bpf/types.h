/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Everything that the kernel side and the Go side share in memory. Go's mirror is generated from this file's
 * BTF by bpf2go; whoever changes a struct or a constant here changes agent/plan (which writes the ops),
 * agent/loader (which fills the tables) and agent/decode (which reads the records).
 */
#ifndef KH_TYPES_H
#define KH_TYPES_H

enum kh_limit {
	KH_MAX_OPS = 64,	 /* ops in one plan */
	KH_MAX_SLOTS = 16,	 /* address slots that the ops share */
	KH_MAX_VALUE = 4096,	 /* bytes read for one value */
	KH_MAX_OUT = 16384,	 /* bytes of one record, header included; none of its values begins in the last KH_MAX_VALUE */
	KH_POOL_BYTES = 1024,	 /* constants that conditions compare with */
	KH_MAX_REGS = 32,	 /* registers in DWARF numbering: x86-64 has 0..16 (16 = rip), arm64 0..15 and 26..31 */
	KH_LENGTH_BITS = 47,	 /* a string of 2^47 bytes or more is a misread length */
	KH_MAX_MACHINES = 32,	 /* patterns that one plan looks for */
	KH_MAX_SETS = 8,	 /* different sets of them */
	KH_MAX_WORDS = 1 << 18,	 /* of all their tables; the loader takes as many as there are, rounded up to a power of two */
	KH_SLOTS_PER_CPU = 4,	 /* scratch slots for each possible CPU: a hit may be preempted by another */
};

/* What an op does. No op jumps, no op calls another: the table is walked once, in order. */
enum __attribute__((packed)) kh_op_code {
	KH_OP_END = 0,
	KH_OP_REG = 1,	 /* slot[dst] = register[arg] >> (8 * n) */
	KH_OP_LOAD = 2,	 /* slot[dst] = the arg (1, 2, 4, 8) bytes at slot[src] + off, zero-extended */
	KH_OP_EMIT = 3,	 /* the low arg bytes of slot[src] leave, by action */
	KH_OP_BYTES = 4, /* slot[dst] bytes (at most n) at slot[src] + off leave, by action; dst holds the length */
	KH_OP_CSTR = 5,	 /* the NUL-terminated string (at most n bytes) at slot[src] + off leaves, by action */
	KH_OP_IF_INT = 6,  /* go on only if slot[src] (arg bytes wide) compares by n with the pool's u64 at aux */
	KH_OP_IF_BYTES = 7, /* go on only if the slot[dst] bytes at slot[src] + off equal (or not) pool[aux, aux + n) */
	KH_OP_IF_CSTR = 8, /* the same for a NUL-terminated string */
};

/* How a value leaves. `drop` has no number: no op is made for a dropped value, so nothing reads it. */
enum __attribute__((packed)) kh_action {
	KH_KEEP = 0,
	KH_LENGTH = 1, /* only the length, in the value's header */
	KH_DIGEST = 2, /* 8 bytes: SipHash-2-4 under the session's key */
	KH_PREFIX = 3, /* the first aux bytes; nothing of a value that has no more */
	KH_SUFFIX = 4, /* the last aux bytes, likewise; of a truncated value nothing, since its end was not read */
	KH_DETECT = 5, /* of strings: the value, what the patterns of set aux find in it overwritten with KH_OVERWRITTEN */
};

/* Comparisons of KH_OP_IF_*, in op.n for IF_INT and in op.arg for IF_BYTES and IF_CSTR (there only EQ and NE). */
enum kh_compare {
	KH_EQ = 0,
	KH_NE = 1,
	KH_LT = 2,
	KH_LE = 3,
	KH_GT = 4,
	KH_GE = 5,
	KH_SIGNED = 0x10, /* flag: compare as signed */
};

/* Why a value is missing: kh_value.reason. */
enum __attribute__((packed)) kh_reason {
	KH_OK = 0,
	KH_NIL = 1,	   /* a nil pointer on the way */
	KH_FAULT = 2,	   /* the page was not resident or not mapped */
	KH_BAD_LENGTH = 3, /* a length that no string can have */
	KH_UNFINISHED = 4, /* what should have overwritten parts of it could not be run */
};

struct kh_op {
	enum kh_op_code code;
	__u8 dst;    /* slot */
	__u8 src;    /* slot */
	__u8 arg;    /* register, size in bytes, or comparison */
	__s32 off;   /* added to slot[src] */
	__u32 n;     /* cap in bytes, shift, or comparison */
	__u16 aux;   /* offset into the pool, or n of prefix and suffix */
	enum kh_action action;
	__u8 pad;
};

/* A record: this header, then one kh_value with its bytes (padded with zeros to 8) for each emitting op. */
struct kh_record {
	__u64 time_ns; /* CLOCK_BOOTTIME: the very reading that was compared with the deadline */
	__u32 pid;     /* thread group, as the initial PID namespace sees it */
	__u32 tid;
	__u32 site;    /* the attach point's index in the plan: the link's cookie */
	__u32 bytes;   /* the record's length, this header included */
	char comm[16];
};

struct kh_value {
	enum kh_reason reason;
	__u8 truncated;	 /* 1: there was more than n bytes */
	__u16 n;	 /* bytes that follow, before padding */
	__u32 length;	 /* the value's own length in bytes, saturated (a C string cut at n: n) */
};

/*
 * What becomes of a hit, which is a run of the program in scope and before the deadline. Each is counted once, by its
 * outcome: hits are the sum.
 */
enum kh_count {
	KH_EMITTED = 0,
	KH_FILTERED = 1,
	KH_SAMPLED_OUT = 2,
	KH_THROTTLED = 3,
	KH_OVER_LIMIT = 4,
	KH_LOST = 5, /* no room in the ring, or no free scratch slot */
	KH_MAX_COUNTS = 8,
};

struct kh_outcomes { /* of one CPU */
	__u64 n[KH_MAX_COUNTS];
};

/* Frozen before load: the verifier sees constants. */
struct kh_config {
	__u64 latest_deadline_ns; /* CLOCK_BOOTTIME; the control word may say an earlier one, never a later one */
	__u64 start_ticks;	  /* the target's start time as in /proc/PID/stat field 22 (1/100 s since boot) */
	__u64 max_hits;		  /* 0: none */
	__u64 max_bytes;	  /* 0: none */
	__u64 rate_interval_ns;	  /* one event each so many ns; 0: no limit */
	__u64 rate_burst_ns;	  /* how far ahead of that the events may run */
	__u64 key[2];		  /* SipHash */
	__u32 pid;		  /* the one thread group that is in scope */
	__u32 sample_below;	  /* keep a hit if a random u32 is below; 0: keep all */
	__u32 if_end;		  /* ops [0, if_end) decide, ops [if_end, n_ops) capture */
	__u32 n_ops;
	__u32 if_reads;		  /* not 0: an op of [0, if_end) reads memory into the scratch */
	__u32 ring_quarter;	  /* wake the reader when so many bytes wait */
	__u32 words_mask;	  /* words of kh_tables that there are, less one; they are a power of two */
	__u32 n_machines;
	__u32 wanted[KH_MAX_SETS]; /* the machines of each set, by their bits */
};

enum kh_detection {
	KH_OVERWRITTEN = '*',
	KH_INVALID = 0xff,	 /* what the machines read in place of a byte that is not part of valid UTF-8: no valid text has it */
	KH_NOT_ASCII = 1 << 15, /* of the features: a byte of 0x80 or more */
	KH_CHECK_LUHN = 1,
	KH_CHECK_MOD97 = 2,
};

/*
 * One pattern: two automata over classes of bytes. A state is the offset of its row, from the automaton's first: one word for
 * each class, the offset of the state that follows, then one that is not 0 if a match ends (begins) where the text does.
 * The rows are in such an order that comparing offsets tells what a state says of the place before the byte that led to it.
 */
struct kh_machine {
	__u32 classes;	/* in words: 256, the class of each byte */
	__u32 forward;	/* in words: the first row */
	__u32 backward; /* likewise */
	__u32 flags;	/* in a row: the last word */
	__u32 required; /* features that every match has */
	__u32 check;	/* KH_CHECK_*: what a match has to pass beside; 0: nothing */
	__u32 start[4]; /* where the forward pass begins, by the kind of the byte before: edge, newline, word, other */
	__u32 forward_dead_match; /* rows before it: a match ended, and none goes on */
	__u32 forward_dead;	  /* rows before it: none goes on */
	__u32 forward_match;	  /* rows from it on: a match ended */
	__u32 backward_start;
	__u32 backward_cut;   /* the same for a text that goes on where it was cut */
	__u32 backward_match; /* rows from it on: a match begins */
};

/* Frozen before load, with as many words as there are. */
struct kh_tables {
	struct kh_machine machines[KH_MAX_MACHINES];
	__u16 features[256]; /* of each byte */
	__u8 kinds[256];     /* of each byte: see kh_machine.start */
	__u16 words[KH_MAX_WORDS];
};

/* Where a scan is. */
struct kh_scan {
	__u32 n;	/* bytes of the value */
	__u32 cut;	/* not 0: the value has more */
	__u32 wanted;	/* machines, by their bits */
	__u32 features; /* that some byte has */
	__u32 machine;	/* that runs */
	__u32 at;
	__u32 row;
	__u32 begins;	/* not 0: there is a mark */
	__u32 begin;	/* of the match that is looked at */
	__u32 end;	/* of the longest one so far */
	__u32 finished; /* not 0: the forward pass came to the end */
	__u32 covered;	/* not 0: something was found */
	__u32 until;	/* covered are the bytes before it */
	__u32 odd, even, digits, head, rest; /* of a match that has to pass a check: the sums, the characters, an IBAN's two parts */
};

/* Words that change while the probe is on. */
struct kh_deadline {
	__u64 deadline_ns; /* written by the holder only; 0 stops at once */
};

struct kh_usage {
	__u64 rate_tat_ns; /* the generic cell rate algorithm's theoretical arrival time */
	__u64 tickets;	   /* events that took one of max_hits */
	__u64 bytes;	   /* bytes that were let through */
};

#endif

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
	KH_MAX_WAITING = 65536,	 /* calls that wait for their return at the same time */
	KH_MAX_GROUPS = 256,	 /* that hits are counted in */
	KH_GROUP_BYTES = 64,	 /* of a value that groups are made by */
	KH_BUCKETS = 8 * 64 + 8, /* of a histogram, on each side of 0 */
	KH_MAX_CALLERS = 64,	 /* of the function that is hit, in one record */
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
	KH_OP_TEST = 16,   /* slot[dst] = slot[src] != 0 */
};

/* How a value leaves. `drop` has no number: no op is made for a dropped value, so nothing reads it. */
enum __attribute__((packed)) kh_action {
	KH_KEEP = 0,
	KH_LENGTH = 1, /* only the length, in the value's header */
	KH_DIGEST = 2, /* 8 bytes: SipHash-2-4 under the session's key */
	KH_PREFIX = 3, /* the first aux bytes; nothing of a value that has no more */
	KH_SUFFIX = 4, /* the last aux bytes, likewise; of a truncated value nothing, since its end was not read */
	KH_DETECT = 5, /* of strings: the value, what the patterns of set aux find in it overwritten with KH_OVERWRITTEN */
	KH_ALLOW = 6,  /* of strings: the value, if all of it is what a pattern of set aux finds */
	KH_BUCKET = 7, /* of integers: the power of two at or below, if the magnitude is off or more; n says KH_SIGNED or 0 */
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
	KH_ADDRESS = 4,	   /* a number that is, or may be, an address of the kernel's */
	KH_UNFINISHED = 5, /* what should have overwritten parts of it could not be run */
	KH_NOT_ALLOWED = 6, /* it is none of those that may leave */
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
	__u8 user; /* 1: of a function of the kernel, and the address was given by a process */
};

/*
 * A record: this header, then one kh_value with its bytes (padded with zeros to 8) for each emitting op, then, if they are asked
 * for, one with the addresses that the function and its callers return to.
 */
struct kh_record {
	__u64 time_ns; /* CLOCK_BOOTTIME: the very reading that was compared with the deadline */
	__u32 pid;     /* thread group, as the initial PID namespace sees it */
	__u32 tid;
	__u32 site;    /* the attach point's index in the plan: the link's cookie */
	__u32 bytes;   /* the record's length, this header included */
	__u64 duration_ns; /* from entry to return; 0 where returns are not looked at */
	char comm[16];
};

enum kh_value_flag {
	KH_TRUNCATED = 1, /* there was more than n bytes */
	KH_WITHHELD = 2,  /* patterns were found and overwritten, or the number is a power of two instead of itself */
};

struct kh_value {
	enum kh_reason reason;
	__u8 flags;	 /* of kh_value_flag */
	__u16 n;	 /* bytes that follow, before padding */
	__u32 length;	 /* the value's own length in bytes, saturated (a C string cut at n: n) */
};

/* What a session does with its hits instead of emitting events. */
enum kh_aggregate {
	KH_EVENTS = 0,	  /* nothing else */
	KH_TOTAL = 1,	  /* counts them */
	KH_GROUPS = 2,	  /* counts them by a value */
	KH_HISTOGRAM = 3, /* counts a number in buckets */
	KH_DURATIONS = 4, /* counts in buckets how many nanoseconds calls took */
};

/* The key of a group: the value as in a record, with no length, and zeros behind it. */
struct kh_group {
	struct kh_value value;
	__u8 bytes[KH_GROUP_BYTES];
};

struct kh_buckets {
	__u64 zero;
	__u64 missing; /* could not be read */
	__s64 sum;
	__u64 positive[KH_BUCKETS];
	__u64 negative[KH_BUCKETS]; /* of the numbers without their sign */
};

/*
 * What becomes of a hit, which is a run of the program in scope and before the deadline. Each is counted once, by its
 * outcome: hits are the sum.
 */
enum kh_count {
	KH_EMITTED = 0, /* or it is in the aggregate */
	KH_FILTERED = 1,
	KH_SAMPLED_OUT = 2,
	KH_THROTTLED = 3, /* beyond the rate, or before the session was admitted */
	KH_OVER_LIMIT = 4,
	KH_LOST = 5, /* no room in the ring, no free scratch slot, or no stack to pair by */
	/* With returns, a call that was let in at its entry and of which no return is seen: */
	KH_NO_ROOM = 6,	  /* as many calls as the map holds waited already */
	KH_UNWOUND = 7,	  /* its frame was left otherwise: a panic recovered above, longjmp */
	KH_GOROUTINE = 8, /* its goroutine ended */
	/* These two are no outcomes. Their difference is how many calls wait. */
	KH_WAITING = 9,	  /* calls that began to wait for their return */
	KH_WAITED = 10,	  /* of these, the ones that have their outcome */
	KH_TRAPS = 11,	  /* nor is this: runs of a program in scope and before the deadline, each of which cost a trap */
	KH_MAX_COUNTS = 16,
};

/* By what a return is paired with its entry. */
enum kh_pair {
	KH_PAIR_NONE = 0,      /* not at all: a hit is an event */
	KH_PAIR_GOROUTINE = 1, /* the goroutine, and the frame's distance from the stack's base: frames move with the stack */
	KH_PAIR_THREAD = 2,    /* the thread and the frame's address */
};

struct kh_outcomes { /* of one CPU */
	__u64 n[KH_MAX_COUNTS];
	__u64 own_ns; /* the program's own time, estimated from some of the hits */
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
	__u32 pid;		  /* the one thread group in scope; of a probe of the kernel: the one that with its children is not */
	__u32 sample_below;	  /* keep a hit if a random u32 is below; 0: keep all */
	__u32 if_end;		  /* ops [0, if_end) decide, ops [if_end, n_ops) capture */
	__u32 entry_end;	  /* ops [if_end, entry_end) capture at the entry, the others look at the return */
	__u32 return_if_end;	  /* ops [entry_end, return_if_end) decide there, [return_if_end, n_ops) capture */
	__u32 n_ops;
	__u32 if_reads;		  /* not 0: an op of [0, if_end) reads memory into the scratch */
	__u32 ring_quarter;	  /* wake the reader when so many bytes wait */
	__u32 pair;		  /* enum kh_pair */
	__u32 goid;		  /* where the goroutine's number is in its runtime.g; 0: not known */
	__u32 waiting_words;	  /* of a record at most, as it waits for its return */
	__u32 rate_at_entry;	  /* not 0: the token is taken there, since nothing at the return decides */
	__u32 count_first;	  /* not 0: until the control word says that it is admitted, a hit is counted and nothing read */
	__u32 aggregate;	  /* enum kh_aggregate */
	__u32 is_signed;	  /* not 0: the number of a histogram is signed */
	__u32 popped;		  /* not 0: at a return, the return address is off the stack already: the kernel's own return probe */
	__u32 unused_bits;	  /* the sign of which is so many bits below a word's */
	__u32 callers;		  /* of the function that are appended to a record, at most KH_MAX_CALLERS; 0: none */
	__u32 words_mask;	  /* words of kh_tables that there are, less one; they are a power of two */
	__u64 slower_than_ns;	  /* of calls that took less, none is let through */
	__u32 wanted[KH_MAX_SETS]; /* the machines of each set, by their bits */
	__u32 n_machines;
	__u32 pad;
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
	__u32 hints;	/* of the gate: a match has one of these; 0: whatever the gate sees, the machine runs */
	__u32 check;	/* KH_CHECK_*: what a match has to pass beside; 0: nothing */
	__u32 start[4]; /* where the forward pass begins, by the kind of the byte before: edge, newline, word, other */
	__u32 forward_dead_match; /* rows before it: a match ended, and none goes on */
	__u32 forward_dead;	  /* rows before it: none goes on */
	__u32 forward_match;	  /* rows from it on: a match ended */
	__u32 backward_start;
	__u32 backward_cut;   /* the same for a text that goes on where it was cut */
	__u32 backward_match; /* rows from it on: a match begins */
};

/*
 * One automaton that goes over a value before all machines: its states say which of some sixteen hints the bytes read last are.
 * A row has one word for each class, half the offset of the row that follows, and as its last one the hints, by their bits.
 */
struct kh_gate {
	__u32 classes; /* in words: 256, the class of each byte */
	__u32 next;    /* in words: the first row, which is where it begins */
	__u32 flags;   /* in a row: the last word */
};

/* Frozen before load, with as many words as there are. */
struct kh_tables {
	struct kh_machine machines[KH_MAX_MACHINES];
	struct kh_gate gate;
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
	__u32 hints;	/* that the gate saw */
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
struct kh_deadline { /* written by the holder only */
	__u64 deadline_ns; /* 0 stops at once */
	__u64 admitted;	   /* not 0: the session fits its budget, and may capture */
};

struct kh_usage {
	__u64 rate_tat_ns; /* the generic cell rate algorithm's theoretical arrival time */
	__u64 tickets;	   /* events that took one of max_hits */
	__u64 bytes;	   /* bytes that were let through */
};

#endif

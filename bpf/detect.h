/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Finds what patterns match in a value and overwrites it: deterministic automata over bytes, which internal/dfa makes and
 * agent/loader freezes. internal/dfa says in Go what each pass does, and a test compares the two.
 *
 * Whatever cannot be finished overwrites the whole value.
 */
#ifndef KH_DETECT_H
#define KH_DETECT_H

#include "scratch.h"

enum {
	KH_CHUNK = 64,	  /* bytes of one turn of bpf_loop: a call of its callback costs as much as some bytes */
	KH_PATIENCE = 16, /* steps of the forward pass for each byte, before it gives up */
	KH_NOT_IN = ~0U,  /* kh_scan.begin: no match is looked at */

	KH_BEGINS = 1 << 15,	  /* in a mark: a match begins here */
	KH_SPAN = KH_BEGINS - 1, /* in a mark: of the longest match that begins here */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct kh_tables);
} kh_patterns SEC(".maps");

/* What the callbacks share. What changes is in the slot: the stack has no room for it. */
struct kh_scanner {
	struct kh_slot *slot;
	const struct kh_tables *tables;
};

static __always_inline __u32 kh_word(const struct kh_scanner *c, __u32 at)
{
	return c->tables->words[at & config.words_mask];
}

static __always_inline const struct kh_machine *kh_machine(const struct kh_scanner *c)
{
	return &c->tables->machines[c->slot->scan.machine & (KH_MAX_MACHINES - 1)];
}

/* The value, as it was read and as the machines read it. */
static __always_inline __u8 kh_input(const struct kh_scanner *c, __u32 at)
{
	return c->slot->in.bytes[at & (KH_MAX_VALUE - 1)];
}

static __always_inline __u8 *kh_text(const struct kh_scanner *c, __u32 at)
{
	return &c->slot->text[at & (KH_MAX_VALUE - 1)];
}

static __always_inline __u16 *kh_mark(const struct kh_scanner *c, __u32 at)
{
	return &c->slot->marks[at & (KH_MAX_VALUE - 1)];
}

static __always_inline bool kh_between(__u8 b, __u8 low, __u8 high)
{
	return b >= low && b <= high;
}

/* Copies the value to where the machines read it, and looks which features and hints it has. */
static long kh_look(__u32 turn, struct kh_scanner *c)
{
	const struct kh_gate *g = &c->tables->gate;
	struct kh_scan *s = &c->slot->scan;
	__u32 i = turn * KH_CHUNK, n = s->n, features = 0, hints = 0, row = s->row;
	__u32 classes = g->classes, next = g->next, flags = g->flags;

	__unroll_not
	for (__u32 k = 0; k < KH_CHUNK && i < n; k++, i++) {
		__u8 b = kh_input(c, i);

		*kh_text(c, i) = b;
		*kh_mark(c, i) = 0;
		features |= c->tables->features[b];
		row = 2 * kh_word(c, next + row + kh_word(c, classes + b));
		hints |= kh_word(c, next + row + flags);
	}
	s->row = row;
	s->features |= features;
	s->hints |= hints;
	return 0;
}

/* How many bytes of valid UTF-8 (RFC 3629, section 4) begin at i; 0 if the byte there is not part of any. */
static __always_inline __u32 kh_rune(const struct kh_scanner *c, __u32 i)
{
	__u8 b = kh_input(c, i), low = 0x80, high = 0xBF;
	__u32 n;

	if (b < 0x80)
		return 1;
	if (kh_between(b, 0xC2, 0xDF))
		n = 2;
	else if (kh_between(b, 0xE0, 0xEF))
		n = 3;
	else if (kh_between(b, 0xF0, 0xF4))
		n = 4;
	else
		return 0;
	if (i + n > c->slot->scan.n)
		return 0;
	if (b == 0xE0)
		low = 0xA0;
	if (b == 0xED)
		high = 0x9F;
	if (b == 0xF0)
		low = 0x90;
	if (b == 0xF4)
		high = 0x8F;
	if (!kh_between(kh_input(c, i + 1), low, high))
		return 0;
	if (n > 2 && !kh_between(kh_input(c, i + 2), 0x80, 0xBF))
		return 0;
	if (n > 3 && !kh_between(kh_input(c, i + 3), 0x80, 0xBF))
		return 0;
	return n;
}

/* Where there are bytes that are not part of valid UTF-8, the machines read KH_INVALID. */
static long kh_normalize(__u32 turn __unused, struct kh_scanner *c)
{
	struct kh_scan *s = &c->slot->scan;
	__u32 n;

	if (s->at >= s->n)
		return 1;
	n = kh_rune(c, s->at);
	if (!n) {
		*kh_text(c, s->at) = KH_INVALID;
		n = 1;
	}
	s->at += n;
	return 0;
}

/* The backward pass: marks where matches begin. */
static long kh_backward(__u32 turn __unused, struct kh_scanner *c)
{
	const struct kh_machine *m = kh_machine(c);
	struct kh_scan *s = &c->slot->scan;
	__u32 row = s->row, at = s->at, next = m->backward, classes = m->classes, first = m->backward_match, begins = 0;

	__unroll_not
	for (__u32 k = 0; k < KH_CHUNK && at; k++) {
		__u16 *mark = kh_mark(c, at);

		at--;
		row = kh_word(c, next + row + kh_word(c, classes + *kh_text(c, at)));
		/* The state speaks of the place behind the byte that was read. */
		*mark = (*mark & KH_SPAN) | (row >= first ? KH_BEGINS : 0);
		begins |= row >= first;
	}
	s->row = row;
	s->at = at;
	s->begins |= begins;
	return !at;
}

/* Notes a character of a match that has to pass a check. */
static __always_inline void kh_check_next(struct kh_scan *s, __u32 check, __u8 b)
{
	__u32 v, d;

	if (kh_between(b, '0', '9'))
		v = b - '0';
	else if (check == KH_CHECK_MOD97 && kh_between(b | 0x20, 'a', 'z'))
		v = (b | 0x20) - 'a' + 10;
	else
		return;
	d = 2 * v > 9 ? 2 * v - 9 : 2 * v;
	s->odd += s->digits & 1 ? d : v;
	s->even += s->digits & 1 ? v : d;
	if (s->digits < 4)
		s->head = v < 10 ? s->head * 10 + v : s->head * 100 + v;
	else
		s->rest = (v < 10 ? s->rest * 10 + v : s->rest * 100 + v) % 97;
	s->digits++;
}

/* Does what was noted so far pass? */
static __always_inline bool kh_check(const struct kh_scan *s, __u32 check)
{
	switch (check) {
	case KH_CHECK_LUHN: /* ISO/IEC 7812-1, annex B: every second digit from the right counts double */
		return (s->digits & 1 ? s->odd : s->even) % 10 == 0;
	case KH_CHECK_MOD97: /* ISO 7064, as ISO 13616-1 has it: the first four characters go to the end */
		return ((__u64)s->rest * 1000000 + s->head) % 97 == 1;
	}
	return true;
}

/* Notes the match that was looked at, if it is one, and goes on behind it. */
static __always_inline void kh_conclude(struct kh_scanner *c, struct kh_scan *s)
{
	__u16 *mark = kh_mark(c, s->begin);
	__u32 n = s->end - s->begin;

	s->at = s->begin + 1;
	if (n) {
		s->at = s->end;
		s->covered = 1;
		if ((*mark & KH_SPAN) < n)
			*mark = n;
	}
	s->begin = KH_NOT_IN;
}

/* One step of the forward pass: to the next mark, or by one byte of a match. */
static long kh_forward(__u32 turn __unused, struct kh_scanner *c)
{
	const struct kh_machine *m = kh_machine(c);
	struct kh_scan *s = &c->slot->scan;
	__u32 row, at = s->at;
	__u8 b;

	if (s->begin == KH_NOT_IN) {
		if (at >= s->n) {
			s->finished = 1;
			return 1;
		}
		if (!(*kh_mark(c, at) & KH_BEGINS)) {
			s->at = at + 1;
			return 0;
		}
		s->begin = s->end = at;
		s->row = m->start[at ? c->tables->kinds[*kh_text(c, at - 1)] & 3 : 0];
		s->odd = s->even = s->digits = s->head = s->rest = 0;
	}
	if (at >= s->n) {
		/* A value that was cut may go on as the match does. */
		if (s->cut || (kh_word(c, m->forward + s->row + m->flags) && kh_check(s, m->check)))
			s->end = s->n;
		kh_conclude(c, s);
		return 0;
	}
	b = *kh_text(c, at);
	row = kh_word(c, m->forward + s->row + kh_word(c, m->classes + b));
	if ((row >= m->forward_match || row < m->forward_dead_match) && kh_check(s, m->check))
		s->end = at;
	if (row < m->forward_dead) {
		kh_conclude(c, s);
		return 0;
	}
	if (m->check)
		kh_check_next(s, m->check, b);
	s->row = row;
	s->at = at + 1;
	return 0;
}

/* Overwrites what was found. */
static long kh_cover(__u32 turn, struct kh_scanner *c)
{
	struct kh_scan *s = &c->slot->scan;
	__u32 i = turn * KH_CHUNK, n = s->n, until = s->until;

	__unroll_not
	for (__u32 k = 0; k < KH_CHUNK && i < n; k++, i++) {
		__u32 end = i + (*kh_mark(c, i) & KH_SPAN);

		if (end > until)
			until = end;
		if (i < until)
			c->slot->in.bytes[i & (KH_MAX_VALUE - 1)] = KH_OVERWRITTEN;
	}
	s->until = until;
	return 0;
}

/* Both passes of one machine. */
static long kh_run_machine(__u32 turn, struct kh_scanner *c)
{
	struct kh_scan *s = &c->slot->scan;
	const struct kh_machine *m;

	s->machine = turn;
	m = kh_machine(c);
	if (!(s->wanted >> (turn & (KH_MAX_MACHINES - 1)) & 1))
		return 0;
	/* What follows where a value was cut may have them. */
	if (!s->cut && ((s->features & m->required) != m->required || (m->hints && !(m->hints & s->hints))))
		return 0;
	s->row = s->cut ? m->backward_cut : m->backward_start;
	s->at = s->n;
	s->begins = 0;
	bpf_loop(KH_MAX_VALUE / KH_CHUNK, kh_backward, c, 0);
	/* The first byte has nothing before it, of which a state could speak. */
	if (kh_word(c, m->backward + s->row + m->flags)) {
		*kh_mark(c, 0) |= KH_BEGINS;
		s->begins = 1;
	} else {
		*kh_mark(c, 0) &= KH_SPAN;
	}
	if (!s->begins)
		return 0;
	s->at = 0;
	s->begin = KH_NOT_IN;
	s->finished = 0;
	bpf_loop(KH_MAX_VALUE * KH_PATIENCE, kh_forward, c, 0);
	if (!s->finished) {
		*kh_mark(c, 0) = s->n;
		s->covered = 1;
		return 1;
	}
	return 0;
}

/* Goes over the whole value, from its first byte, as long as it may be a match. */
static long kh_whole(__u32 turn __unused, struct kh_scanner *c)
{
	const struct kh_machine *m = kh_machine(c);
	struct kh_scan *s = &c->slot->scan;
	__u32 row = s->row, at = s->at;

	__unroll_not
	for (__u32 k = 0; k < KH_CHUNK && at < s->n; k++, at++) {
		__u8 b = *kh_text(c, at);

		row = kh_word(c, m->forward + row + kh_word(c, m->classes + b));
		if (row < m->forward_dead)
			return 1;
		if (m->check)
			kh_check_next(s, m->check, b);
	}
	s->row = row;
	s->at = at;
	return 0;
}

/* Does one machine find the value as a whole? */
static long kh_whole_machine(__u32 turn, struct kh_scanner *c)
{
	struct kh_scan *s = &c->slot->scan;
	const struct kh_machine *m;

	s->machine = turn;
	m = kh_machine(c);
	if (!(s->wanted >> (turn & (KH_MAX_MACHINES - 1)) & 1))
		return 0;
	s->row = m->start[0];
	s->at = 0;
	s->odd = s->even = s->digits = s->head = s->rest = 0;
	bpf_loop((s->n + KH_CHUNK - 1) / KH_CHUNK, kh_whole, c, 0);
	s->covered = s->at == s->n && kh_word(c, m->forward + s->row + m->flags) && kh_check(s, m->check);
	return s->covered;
}

/* What both ways of looking at the first n bytes of the input part begin with: the value as the machines read it. */
static __always_inline void kh_begin(struct kh_scanner *c, __u32 n, __u32 wanted, __u32 cut)
{
	struct kh_slot *slot = c->slot;
	struct kh_scan *s = &slot->scan;
	__u32 used = n ? n : 1; /* the scan has to be zeroed after an empty value, too */

	if (slot->text_used < used)
		slot->text_used = used;
	s->n = n;
	s->wanted = wanted;
	s->cut = cut;
	s->features = s->hints = s->covered = s->until = s->at = s->row = 0;
	bpf_loop((n + KH_CHUNK - 1) / KH_CHUNK, kh_look, c, 0);
	if (s->features & KH_NOT_ASCII)
		bpf_loop(n, kh_normalize, c, 0);
}

/*
 * Is it the whole of the first n bytes of the input part, what one of the wanted machines finds? 1: yes. A global function, so
 * that the verifier proves it once.
 */
__noinline int kh_allow(struct kh_slot *slot, __u32 n, __u32 wanted)
{
	__u32 key = 0;
	struct kh_scanner c = { .slot = slot, .tables = bpf_map_lookup_elem(&kh_patterns, &key) };

	if (!slot || !c.tables || n > KH_MAX_VALUE)
		return 0;
	kh_begin(&c, n, wanted, 0);
	bpf_loop(config.n_machines, kh_whole_machine, &c, 0);
	return slot->scan.covered;
}

/*
 * Overwrites in the first n bytes of the input part what the wanted machines find. cut: the value has more bytes than these.
 * Not 0: it could not be done, and nothing of the value may leave. A global function, so that the verifier proves it once.
 */
__noinline int kh_detect(struct kh_slot *slot, __u32 n, __u32 wanted, __u32 cut)
{
	__u32 key = 0;
	struct kh_scanner c = { .slot = slot, .tables = bpf_map_lookup_elem(&kh_patterns, &key) };

	if (!slot || !c.tables || n > KH_MAX_VALUE)
		return 1;
	if (!n)
		return 0;
	kh_begin(&c, n, wanted, cut);
	bpf_loop(config.n_machines, kh_run_machine, &c, 0);
	if (slot->scan.covered)
		bpf_loop((n + KH_CHUNK - 1) / KH_CHUNK, kh_cover, &c, 0);
	return 0;
}

#endif

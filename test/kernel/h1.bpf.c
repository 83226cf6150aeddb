/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The HTTP/1.1 parser as a program that a test can run: it reads the one entry of map `cases`, record after record. */
#include "http/h1_parse.h"

KLOAK_LICENSE;

enum { k_notes_max = 64 };

/* A marker, with what was known of its request when the parser handed it over. */
struct h1_note {
	struct h1_found found;
	__u8 state; /* enum h1_state */
	__u8 flags; /* enum h1_flag */
	__u16 host_length;
	__u32 _pad;
	struct dns_name host;
};

struct h1_case {
	struct h1_parser parser;
	struct h1_scan scan;
	__u32 note_count;
	__u32 _pad;
	struct h1_note notes[k_notes_max];
};

/* h1-program.ts knows where its fields lie. */
_Static_assert(__builtin_offsetof(struct h1_case, parser.state) == 107, "state");
_Static_assert(__builtin_offsetof(struct h1_case, scan) == 368, "scan");
_Static_assert(__builtin_offsetof(struct h1_case, scan.reads_bodies) == 387, "reads_bodies");
_Static_assert(__builtin_offsetof(struct h1_case, scan.text) == 1672, "text");
_Static_assert(__builtin_offsetof(struct h1_case, note_count) == 18072, "note_count");
_Static_assert(__builtin_offsetof(struct h1_case, notes) == 18080, "notes");
_Static_assert(sizeof(struct h1_note) == 344, "note");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct h1_case);
} cases SEC(".maps");

static __always_inline void note(struct h1_case *c, __u32 which)
{
	__u32 at = c->note_count;

	if (at >= k_notes_max || which >= k_h1_found_max)
		return;
	c->note_count = at + 1;
	c->notes[at].found = c->scan.found[which];
	c->notes[at].state = c->parser.state;
	c->notes[at].flags = c->parser.flags;
	c->notes[at].host_length = c->parser.host_length;
	c->notes[at].host = c->parser.host;
}

__noinline int note_found(struct h1_case *c)
{
	if (!c)
		return 0;
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		if (which >= c->scan.found_count)
			break;
		note(c, which);
	}
	c->scan.found_count = 0;
	return 0;
}

/* One record: scan.end bytes of scan.text. */
SEC("syscall")
int parse_record(void *context __attribute__((unused)))
{
	__u32 zero = 0;
	struct h1_case *c = bpf_map_lookup_elem(&cases, &zero);

	if (!c)
		return -1;
	c->note_count = 0;
	h1_begin(&c->scan, c->scan.end);
	for (int i = 0; i < k_notes_max; i++) {
		h1_parse(&c->parser, &c->scan);
		note_found(c);
		if (c->scan.position >= c->scan.end || c->parser.state == h1_opaque)
			return 0;
	}
	return -1;
}

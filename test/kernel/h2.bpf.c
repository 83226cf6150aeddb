/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The HTTP/2 parser as a program that a test can run: it reads the one entry of map `cases`, record after record. */
#include "http/h2_parse.h"

KLOAK_LICENSE;

enum { k_notes_max = 64, k_stops_max = 128 };

/* A marker of a body, or of a header block that has ended, or (marker of 0 token bytes) a block that only refers to what has been kept. */
struct h2_note {
	struct h1_found found;
	__u64 host;
	__u16 flags; /* enum h2_flag */
	__u8 references;
	__u8 _pad[5];
};

struct h2_case {
	struct h1_parser parser;
	struct h2_state h2;
	struct h1_scan scan;
	__u32 note_count;
	__u32 keep; /* every field that holds a marker and enters the table holds a secret from then on */
	struct h2_note notes[k_notes_max];
};

/* h2-program.ts knows where its fields lie. */
_Static_assert(__builtin_offsetof(struct h2_case, parser.state) == 107, "state");
_Static_assert(__builtin_offsetof(struct h2_case, h2) == 368, "h2");
_Static_assert(sizeof(struct h2_state) == 9248, "state of HTTP/2");
_Static_assert(__builtin_offsetof(struct h2_case, scan) == 9616, "scan");
_Static_assert(__builtin_offsetof(struct h2_case, scan.text) == 10920, "text");
_Static_assert(__builtin_offsetof(struct h2_case, note_count) == 27320, "note_count");
_Static_assert(__builtin_offsetof(struct h2_case, notes) == 27328, "notes");
_Static_assert(sizeof(struct h2_note) == 96, "note");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct h2_case);
} cases SEC(".maps");

static __always_inline struct h2_note *note(struct h2_case *c)
{
	__u32 at = c->note_count;
	struct h2_note *note;

	forget_range(at);
	if (at >= k_notes_max)
		return NULL;
	note = &c->notes[at];
	c->note_count = at + 1;
	memset(note, 0, sizeof(*note));
	note->host = c->h2.flags & h2_named_host ? c->h2.host : 0;
	note->flags = c->h2.flags;
	note->references = c->h2.reference_count;
	return note;
}

__noinline int note_block(struct h2_case *c)
{
	if (!c)
		return 0;
	if (!c->scan.found_count)
		note(c);
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		const struct h1_found *found = &c->scan.found[which];
		struct h2_note *made;

		if (which >= c->scan.found_count)
			break;
		made = note(c);
		if (!made)
			break;
		made->found = *found;
		if (c->keep && found->entry)
			c->h2.entries[(found->entry - 1) & (k_h2_entries - 1)].secret = 1;
	}
	c->scan.found_count = 0;
	return 0;
}

/* Of a body: the host of its request; h2_bad: nobody knows it. */
__noinline int note_data(struct h2_case *c)
{
	if (!c)
		return 0;
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		struct h2_note *made;

		if (which >= c->scan.found_count)
			break;
		made = note(c);
		if (!made)
			break;
		made->found = c->scan.found[which];
		made->host = c->h2.body ? c->h2.streams[(c->h2.body - 1) & (k_h2_streams - 1)].host : 0;
		made->flags = c->h2.body ? 0 : h2_bad;
		made->references = 0;
	}
	c->scan.found_count = 0;
	return 0;
}

__noinline int name_host(struct h2_case *c)
{
	struct h2_entry *entry;
	__u64 host;

	if (!c)
		return 0;
	host = siphash_name(&c->parser.host, c->parser.host_length);
	h2_take_host(&c->h2, host, 0);
	entry = &c->h2.entries[(c->h2.inserted - 1) & (k_h2_entries - 1)];
	if (c->h2.form == h2_inserted)
		entry->host = host;
	return 0;
}

/* One record: scan.end bytes of scan.text. */
SEC("syscall")
int parse_record(void *context __attribute__((unused)))
{
	__u32 zero = 0;
	struct h2_case *c = bpf_map_lookup_elem(&cases, &zero);

	if (!c)
		return -1;
	c->note_count = 0;
	h1_begin(&c->scan, c->scan.end);
	h2_begin(&c->h2);
	h1_parse(&c->parser, &c->scan);
	if (!h1_is_http2(c->parser.state))
		return 0;
	for (int i = 0; i < k_stops_max; i++) {
		int stop = h2_parse(&c->parser, &c->scan, &c->h2);

		if (stop == h2_goes_on) {
			if (c->parser.state == h1_http2_body)
				note_data(c);
			return 0;
		}
		c->h2.stop = h2_goes_on;
		if (stop == h2_stop_host)
			name_host(c);
		else if (stop == h2_stop_data)
			note_data(c);
		else
			note_block(c);
	}
	return -1;
}

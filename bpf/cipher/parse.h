/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A record's plaintext: where it belongs in the requests of its connection, and which placeholders it holds. */
#pragma once

#include "../core.h"
#include "../http/h1_parse.h"
#include "../maps/keys.h"
#include "../maps/sealing.h"
#include "parse_h2.h"
#include "placeholder.h"

enum {
	k_blocks_with_markers_max = 16, /* pipelined requests with markers in one record */
	k_listen_max = 2048, /* bytes of a record that are searched when nothing can be replaced any more */
};

/* Of a record that lies wholly in a body only the two ends are looked at, unless a body is a slot. */
static __always_inline bool parse_needs_text(const struct sealing *sealing, const struct h1_parser *parser)
{
	bool body = h1_is_body(parser->state) ? !sealing->scan.reads_bodies : parser->state == h1_http2_data;

	return !body || parser->left <= sealing->length;
}

/* Decides about the markers found so far. */
static __always_inline void parse_decide(struct sealing *sealing, struct h1_parser *parser)
{
	sealing->host_known = 0;
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		if (which >= sealing->scan.found_count)
			break;
		placeholder_decide(sealing, parser, which);
	}
	sealing->scan.found_count = 0;
}

/* Follows the requests, and fills sealing->patch.edits, or sealing->refused. */
__noinline int parse_text(struct sealing *sealing, struct h1_parser *parser, __u32 length)
{
	struct h1_scan *scan;

	if (!sealing || !parser)
		return -1;
	scan = &sealing->scan;
	h1_begin(scan, length);
	for (__u32 i = 0; i < k_blocks_with_markers_max; i++) {
		int state = h1_parse(parser, scan);

		parse_decide(sealing, parser);
		if (scan->position >= scan->end || state == h1_opaque || h1_is_http2(parser->state))
			break;
	}
	if (h1_is_http2(parser->state))
		return 0; /* parse_http2 reads on */
	if (scan->position < scan->end && parser->state != h1_opaque)
		parser->state = h1_lost;
	if (!scan->reads_bodies) {
		h1_search_body(scan);
		parse_decide(sealing, parser);
	}
	if (scan->found_lost && !sealing->refused)
		sealing->refused = reason_tables_full;
	return 0;
}

/* Which blocks must be computed and proven: all that was read, and from the one with the inner type to the last. */
static __always_inline void parse_regions(struct sealing *sealing, const struct key_state *key)
{
	__u32 blocks = sealing->blocks, head = 1, tail = sealing->end, edited = 0;

	if (sealing->complete) {
		head = (sealing->scan.head_end + k_block_bytes - 1) / k_block_bytes;
		tail = sealing->scan.tail / k_block_bytes;
	}
	for (__u32 i = 0; i < k_edits_max; i++)
		if (i < sealing->patch.edit_count)
			edited = sealing->patch.edits[i].offset + sealing->patch.edits[i].length;
	/*
	 * Proof 2 must hold of all that was read before a byte is replaced: also what follows the last edit of a header
	 * block could turn the request into another, by a second Host for one.
	 */
	sealing->patch.region_bytes = edited;
	if (edited)
		sealing->patch.region_bytes =
			edited > sealing->scan.head_end ? sealing->length : sealing->scan.head_end;
	/* Poly1305 needs all of the text; so does a region that starts at 0 and reaches into a second request. */
	if (edited && (key->algorithm == cipher_chacha20_poly1305 || edited > sealing->scan.head_end))
		head = blocks;
	if (head < 1)
		head = 1;
	if (head > blocks)
		head = blocks;
	if (tail > sealing->end)
		tail = sealing->end;
	if (tail < head)
		tail = head;
	if (tail > blocks - 1)
		tail = blocks - 1;
	sealing->head = head;
	sealing->tail = tail;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The HTTP/2 request parser: frames (RFC 9113 4 to 6) of one direction, from the client. As in h1_parse.h one step reads
 * one byte or passes over a payload, and all that changes lives in map values.
 */
#pragma once

#include "../core.h"
#include "h1_parse.h"
#include "h2.h"
#include "h2_hpack.h"

enum {
	/* RFC 9113 6 */
	k_frame_headers = 1,
	k_frame_push_promise = 5,
	k_frame_continuation = 9,
	k_frame_end_headers = 4,
	k_frame_padded = 8,
	k_frame_priority = 32,

	k_h2_preface = 20,
	k_h2_header_bytes = 9,
	k_h2_priority_bytes = 5,
};

static const char h2_preface_text[k_h2_preface] = {'*',  ' ',  'H',  'T',  'T', 'P', '/',  '2',  '.',  '0',
						   '\r', '\n', '\r', '\n', 'S', 'M', '\r', '\n', '\r', '\n'};

struct h2_loop {
	struct h1_parser *parser;
	struct h1_scan *scan;
	struct h2_state *h2;
};

/* A frame has ended but for `bytes` that are not read. */
static __always_inline void h2_pass(struct h1_parser *parser, struct h2_state *h2, __u32 bytes)
{
	h2->part = h2_header;
	h2->have = 0;
	h2->frame = 0;
	parser->left = bytes;
	if (bytes)
		parser->state = h1_http2_data;
}

static __always_inline void h2_begin_block(struct h1_parser *parser, struct h2_state *h2, __u32 stream)
{
	/* RFC 9113 5.1.1: each request takes a higher number. */
	h2->flags = stream > h2->newest ? h2_open : h2_open | h2_bad;
	if (stream > h2->newest)
		h2->newest = stream;
	h2->stream = stream;
	h2->before = h2->inserted;
	h2->reference_count = 0;
	h2->host = 0;
	h2->suffix = 0;
	h2->state = h2_field_start;
	parser->flags = 0;
	parser->seen_count = 0;
	parser->host_length = 0;
}

/* `fragment` bytes of header block and padding follow. */
static __always_inline void h2_begin_piece(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2)
{
	if (h2->padding > h2->fragment)
		return h1_lose(parser);
	h2->fragment -= h2->padding;
	h2->from = scan->position;
	h2->part = h2_block;
}

static __always_inline void h2_end_piece(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2)
{
	if (h2->flags & h2_last_frame) {
		if (h2->state != h2_field_start)
			return h1_lose(parser);
		h2->flags &= ~h2_open;
		if (scan->found_count || h2->reference_count || (h2->flags & h2_misused))
			h2->stop = h2_stop_block;
	}
	h2_pass(parser, h2, h2->padding);
}

static __always_inline void h2_begin_frame(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2,
					   __u8 last)
{
	__u64 frame = h2->frame;
	__u32 length = frame >> 40, type = frame >> 32 & 0xff, flags = frame >> 24 & 0xff;
	__u32 stream = ((__u32)frame << 8 | last) & 0x7fffffff;

	/* RFC 9113 6.10: nothing comes between the pieces of a header block. */
	if ((type == k_frame_continuation) != !!(h2->flags & h2_open))
		return h1_lose(parser);
	if (type != k_frame_headers && type != k_frame_continuation) {
		if (type == k_frame_push_promise)
			return h1_lose(parser);
		return h2_pass(parser, h2, length);
	}
	h2->fragment = length;
	h2->padding = 0;
	h2->have = 0;
	if (type == k_frame_continuation) {
		if (stream != h2->stream)
			return h1_lose(parser);
	} else {
		if (!(stream & 1) ||
		    length < (flags & k_frame_padded ? 1u : 0u) + (flags & k_frame_priority ? k_h2_priority_bytes : 0u))
			return h1_lose(parser);
		h2_begin_block(parser, h2, stream);
		if (flags & k_frame_priority)
			h2->have = k_h2_priority_bytes;
	}
	if (flags & k_frame_end_headers)
		h2->flags |= h2_last_frame;
	if (type == k_frame_headers && (flags & k_frame_padded))
		h2->part = h2_pad_length;
	else if (h2->have)
		h2->part = h2_priority;
	else
		h2_begin_piece(parser, scan, h2);
}

static __always_inline void h2_read_frame(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2, __u8 c)
{
	__u32 have = h2->have;

	scan->position++;
	switch (h2->part) {
	case h2_preface:
		if (have >= k_h2_preface || c != h2_preface_text[have])
			return h1_lose(parser);
		h2->have = have + 1;
		if (have + 1 == k_h2_preface)
			h2_pass(parser, h2, 0);
		return;
	case h2_header:
		if (have < k_h2_header_bytes - 1) {
			h2->frame = h2->frame << 8 | c;
			h2->have = have + 1;
			return;
		}
		return h2_begin_frame(parser, scan, h2, c);
	case h2_pad_length:
		h2->padding = c;
		h2->fragment--;
		h2->part = h2_priority;
		if (!have)
			h2_begin_piece(parser, scan, h2);
		return;
	case h2_priority:
		h2->fragment--;
		h2->have = have - 1;
		if (have == 1)
			h2_begin_piece(parser, scan, h2);
		return;
	default:
		h1_lose(parser);
	}
}

static long h2_step(__u32 index, struct h2_loop *loop)
{
	struct h1_parser *parser = loop->parser;
	struct h1_scan *scan = loop->scan;
	struct h2_state *h2 = loop->h2;
	__u32 at = scan->position;
	__u8 c;

	(void)index;
	if (parser->state == h1_http2 && h2->part == h2_block && !h2->fragment) {
		h2_end_piece(parser, scan, h2);
		return h2->stop != h2_goes_on;
	}
	if (at >= scan->end || at >= sizeof(scan->text))
		return 1;
	if (parser->state == h1_http2_data) {
		h1_skip(parser, scan, at);
		return 0;
	}
	if (parser->state != h1_http2)
		return 1;
	if (scan->skipped && scan->tail > at)
		scan->tail = at;
	c = ((const __u8 *)&scan->text)[at];
	if (h2->part == h2_block)
		h2_read_block(parser, scan, h2, c);
	else
		h2_read_frame(parser, scan, h2, c);
	return h2->stop != h2_goes_on;
}

/*
 * Reads on in `scan` up to its end, or until the caller has something to do: see enum h2_stop. The caller does it, sets
 * h2->stop to 0 and calls again. Every second step at least takes a byte.
 */
__noinline int h2_parse(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2)
{
	struct h2_loop loop;

	if (!parser || !scan || !h2)
		return 0;
	loop.parser = parser;
	loop.scan = scan;
	loop.h2 = h2;
	bpf_loop(sizeof(scan->text) * 3, h2_step, &loop, 0);
	if (!scan->skipped)
		scan->head_end = scan->position;
	return h2->stop;
}

/* Prepares for a record: what has been found of a field in an earlier one lies there. */
static __always_inline void h2_begin(struct h2_state *h2)
{
	h2->from = 0;
	h2->capturing = 0;
	h2->stop = h2_goes_on;
}

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
	k_frame_data = 0,
	k_frame_headers = 1,
	k_frame_push_promise = 5,
	k_frame_continuation = 9,
	k_frame_end_stream = 1,
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

/* The request of the header block that has ended, if it is one that everybody reads alike. */
static __always_inline void h2_remember_stream(struct h2_state *h2)
{
	const __u32 wanted = 1 << h2_method | 1 << h2_path | h2_named_host; /* CONNECT has no path (RFC 9113 8.5) */
	const __u32 unwanted = 1 << h2_protocol | h2_bad | h2_bodiless; /* a tunnel too (RFC 8441 4) */
	struct h2_stream *stream;

	if ((h2->flags & (wanted | unwanted)) != wanted)
		return;
	stream = &h2->streams[h2->stream_count & (k_h2_streams - 1)];
	h2->stream_count++;
	stream->host = h2->host;
	stream->suffix = h2->suffix;
	stream->number = h2->stream;
	stream->seen_count = 0;
}

/* Its number among `streams`, from 1; 0: not known. */
static __always_inline __u32 h2_find_stream(const struct h2_state *h2, __u32 number)
{
	for (__u32 back = 0; back < k_h2_streams; back++) {
		__u32 which = h2->stream_count - back;

		if (back >= h2->stream_count)
			break;
		if (h2->streams[(which - 1) & (k_h2_streams - 1)].number == number)
			return which;
	}
	return 0;
}

/* `fragment` bytes of a body and padding follow. A placeholder has to be whole in one frame. */
static __always_inline void h2_begin_data(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2)
{
	if (h2->padding > h2->fragment)
		return h1_lose(parser);
	if (h2->padding == h2->fragment)
		return h2_pass(parser, h2, h2->padding);
	h1_enter(parser, h1_http2_body);
	parser->left = h2->fragment - h2->padding;
	parser->slot = slot_body;
	scan->body_from = scan->position;
}

/* A global function, so that the verifier walks through it once. */
__noinline int h2_read_data(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2)
{
	__u32 at;
	__u8 c;

	if (!parser || !scan || !h2)
		return 0;
	at = scan->position;
	if (at >= scan->end || at >= sizeof(scan->text))
		return 0;
	h1_pass_over(scan, at);
	if (h1_take_eight(parser, scan, at))
		return 0;
	c = ((const __u8 *)&scan->text)[at];
	scan->position = at + 1;
	parser->window = parser->window << 8 | c;
	parser->left--;
	if (c == ':' && (parser->window & K_H1_MARKER_MASK) == K_H1_MARKER)
		h1_note_found(parser, scan, h1_code_none);
	else if (h1_is_percent_marker(parser, c))
		h1_note_found(parser, scan, h1_code_percent);
	if (parser->left)
		return 0;
	parser->state = h1_http2;
	h2_pass(parser, h2, h2->padding);
	if (scan->found_count)
		h2->stop = h2_stop_data;
	return 0;
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
		h2_remember_stream(h2);
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
	if (type == k_frame_push_promise)
		return h1_lose(parser);
	if (type != k_frame_headers && type != k_frame_continuation && !(type == k_frame_data && scan->reads_bodies))
		return h2_pass(parser, h2, length);
	h2->fragment = length;
	h2->padding = 0;
	h2->have = 0;
	if (type == k_frame_data) {
		h2->frame = 0;
		h2->part = h2_header; /* of the next frame */
		h2->body = h2_find_stream(h2, stream);
		if (flags & k_frame_padded && !length)
			return h1_lose(parser);
		if (flags & k_frame_padded)
			h2->part = h2_data_pad_length;
		else
			h2_begin_data(parser, scan, h2);
		return;
	}
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
	if (type == k_frame_headers && (flags & k_frame_end_stream))
		h2->flags |= h2_bodiless;
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
	case h2_data_pad_length:
		h2->padding = c;
		h2->fragment--;
		h2->part = h2_header;
		return h2_begin_data(parser, scan, h2);
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
	if (parser->state == h1_http2_body) {
		h2_read_data(parser, scan, h2);
		return h2->stop != h2_goes_on;
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

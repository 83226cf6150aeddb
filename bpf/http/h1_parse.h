/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The HTTP/1.1 request parser: framing (RFC 9112), and markers in those slots where a placeholder may stand.
 *
 * One step reads one byte, or passes over a body, or over eight bytes among which nothing can happen. All that changes
 * lives in map values, not on the stack: the verifier knows nothing about those, so that it has seen every iteration of
 * the loop once it has seen one.
 */
#pragma once

#include "../core.h"
#include "h1.h"
#include "h1_field.h"

#define K_H1_MARKER 0x6b6c6f616b3aull /* "kloak:" as it stands in a window */
#define K_H1_MARKER_MASK 0xffffffffffffull
#define K_H1_PERCENT_MARKER 0x6b6c6f616b253361ull /* "kloak%3a" */

struct h1_loop {
	struct h1_parser *parser;
	struct h1_scan *scan;
};

/* A bit in the top of each byte: whether some byte of `word` is below `limit` (at most 128), or is `c`. */
static __always_inline __u64 h1_any_below(__u64 word, __u8 limit)
{
	return (word - 0x0101010101010101ull * limit) & ~word & 0x8080808080808080ull;
}

static __always_inline __u64 h1_any_is(__u64 word, __u8 c)
{
	return h1_any_below(word ^ (0x0101010101010101ull * c), 1);
}

/* Whether a marker may end among these eight bytes: "k:" is rare, in JSON too, and `before` ends with the byte before. */
static __always_inline __u64 h1_any_marker(__u64 word, __u64 before)
{
	__u64 colons = h1_any_is(word, ':');

	return colons & (h1_any_is(word, 'k') << 8 | ((before & 0xff) == 'k' ? 0x80 : 0));
}

/* The same of "kloak%3a", which ends with none of its rare bytes. */
static __always_inline __u64 h1_any_percent_marker(__u64 word, __u64 before)
{
	return h1_any_is(word, '%') || (before & 0xff) == '%' || (before & 0xffff) == (('%' << 8) | '3');
}

/* Whether it ends with `c`, which is in `window` already. */
static __always_inline bool h1_is_percent_marker(const struct h1_parser *parser, __u8 c)
{
	return (c | 0x20) == 'a' && (parser->window | 0x20) == K_H1_PERCENT_MARKER;
}

static __always_inline bool h1_is_body(__u8 state)
{
	return state == h1_body || state == h1_chunk_data || state == h1_http2_body;
}

static __always_inline bool h1_is_http2(__u8 state)
{
	return state >= h1_http2;
}

/* Eight bytes of a value, a target or a body without an end, a marker, or a question mark: take them at once. */
static __always_inline bool h1_take_eight(struct h1_parser *parser, struct h1_scan *scan, __u32 at)
{
	bool body = h1_is_body(parser->state);
	__u64 word;

	if (body) {
		if (parser->left <= 8)
			return false;
	} else if (parser->state == h1_value) {
		if (parser->field != h1_field_plain &&
		    (parser->field != h1_field_credentials || (parser->flags & h1_in_base64) || parser->length < 6))
			return false;
	} else if (parser->state != h1_lost && (parser->state != h1_target || !parser->length)) {
		return false;
	}
	if (at + 8 > scan->end || at > sizeof(scan->text) - 8)
		return false;
	/* Not aligned: all that the verifier asks is that the CPU can. */
	word = *(const __u64 *)((const __u8 *)&scan->text + at);
	if (h1_any_marker(word, parser->window))
		return false;
	if ((body || parser->state == h1_target) && h1_any_percent_marker(word, parser->window))
		return false;
	if (!body && parser->state != h1_lost &&
	    (h1_any_below(word, 0x21 - (parser->state == h1_value)) | h1_any_is(word, 0x7f) |
	     (parser->state == h1_target ? h1_any_is(word, '?') : 0)))
		return false;
	if (body)
		parser->left -= 8;
	parser->window = bpf_be64_to_cpu(word);
	parser->length += 8;
	scan->position = at + 8;
	return true;
}

/* Of a body no byte needs to be read: also where it is, that is only to find what may be replaced there. */
static __always_inline void h1_pass_over(struct h1_scan *scan, __u32 at)
{
	if (scan->skipped)
		return;
	scan->skipped = 1;
	scan->head_end = at;
}

static __always_inline void h1_skip(struct h1_parser *parser, struct h1_scan *scan, __u32 at)
{
	__u64 step = scan->end - at;

	if (step > parser->left)
		step = parser->left;
	h1_pass_over(scan, at);
	parser->left -= step;
	scan->position = at + step;
	if (!parser->left)
		parser->state = parser->state == h1_body       ? h1_idle :
				parser->state == h1_http2_data ? h1_http2 :
								 h1_chunk_cr;
}

static __always_inline void h1_begin_request(struct h1_parser *parser)
{
	parser->flags = 0;
	parser->host_length = 0;
	parser->seen_count = 0;
	parser->left = 0;
	parser->length = 0;
	parser->window = 0;
	parser->state = h1_method;
}

static __always_inline void h1_enter(struct h1_parser *parser, enum h1_state state)
{
	parser->state = state;
	parser->length = 0;
	parser->window = 0;
}

static __always_inline void h1_lose(struct h1_parser *parser)
{
	parser->state = h1_lost;
}

static __always_inline void h1_read_method(struct h1_parser *parser, __u8 c)
{
	if (c != ' ') {
		if (!h1_is_token(c) || parser->length >= k_h1_method_max)
			return h1_lose(parser);
		parser->window = parser->window << 8 | c;
		parser->length++;
		return;
	}
	if (!parser->length)
		return h1_lose(parser);
	if (parser->length == 3 && parser->window == 0x505249) { /* PRI: RFC 9113 3.4 */
		/* The first words of a connection, or nothing that a server would take for HTTP/2: no target has set a slot. */
		parser->state = parser->slot ? h1_lost : h1_http2;
		return;
	}
	if (parser->length == 7 && parser->window == 0x434f4e4e454354) /* CONNECT */
		parser->flags |= h1_is_tunnel;
	parser->slot = slot_path;
	h1_enter(parser, h1_target);
}

static __always_inline void h1_read_target(struct h1_parser *parser, __u8 c)
{
	if (c == ' ' && parser->length)
		return h1_enter(parser, h1_version);
	if (c <= ' ' || c == 0x7f)
		return h1_lose(parser);
	/* The absolute form overrides Host (RFC 9112 3.2.2), which would then prove nothing. */
	if (!parser->length && c != '/' && c != '*' && !(parser->flags & h1_is_tunnel))
		return h1_lose(parser);
	if (c == '?')
		parser->slot = slot_query;
	parser->window = parser->window << 8 | c;
	parser->length++;
}

static __always_inline void h1_read_version(struct h1_parser *parser, __u8 c)
{
	__u32 at = parser->length++;

	if (at < 7) {
		if (c != (H1_WORD("HTTP/1.") >> (at * 8) & 0xff))
			h1_lose(parser);
	} else if (at == 7) {
		if (c == '0')
			parser->flags |= h1_is_http_1_0;
		else if (c != '1')
			h1_lose(parser);
	} else if (at == 8) {
		if (c != '\r')
			h1_lose(parser);
	} else if (c == '\n') {
		h1_enter(parser, h1_line_start);
	} else {
		h1_lose(parser);
	}
}

static __always_inline void h1_read_name(struct h1_parser *parser, __u8 c)
{
	__u32 at = parser->length;

	if (c == ':' && at) {
		enum h1_field field = h1_classify(parser->name, at);

		parser->flags &= ~(h1_value_ended | h1_in_base64 | h1_is_forbidden);
		if (h1_forbids(parser->name, at))
			parser->flags |= h1_is_forbidden;
		/* A second one, even an equal one, is read in more than one way. */
		if ((field == h1_field_host && (parser->flags & h1_has_host)) ||
		    (field == h1_field_content_length && (parser->flags & h1_has_length)) ||
		    (field == h1_field_transfer_encoding && (parser->flags & h1_is_chunked)))
			return h1_lose(parser);
		parser->field = field;
		parser->slot = slot_header;
		/* The length stays beside the name: one that was cut is nobody's. */
		((__u8 *)parser->name)[k_header_name_max] = at > k_header_name_max ? 0 : at;
		return h1_enter(parser, h1_value_start);
	}
	if (!h1_is_token(c))
		return h1_lose(parser);
	if (at < k_header_name_max)
		((__u8 *)parser->name)[at] = h1_lower(c);
	parser->length = at + 1;
}

static __always_inline void h1_read_line_start(struct h1_parser *parser, __u8 c)
{
	if (c == '\r') {
		parser->state = h1_block_lf;
		return;
	}
	/* What starts with white space would continue the line before (obs-fold); it is no token, so it is lost here. */
	memset(parser->name, 0, sizeof(parser->name));
	h1_enter(parser, h1_name);
	h1_read_name(parser, c);
}

/* The next character of the base64 text; true when the bytes decoded so far end with a marker. */
static __always_inline bool h1_read_base64(struct h1_parser *parser, __u8 c)
{
	int value = h1_base64(c);
	__u32 phase = parser->base64_length & 3;
	__u8 before = parser->base64_bits;

	if (value < 0) {
		if (c != ' ' || parser->base64_length)
			parser->flags &= ~h1_in_base64;
		return false;
	}
	parser->base64_bits = value;
	parser->base64_length++;
	if (!phase)
		return false;
	parser->decoded = parser->decoded << 8 | (((before << 6 | value) >> (phase == 1 ? 4 :
									     phase == 2 ? 2 :
											  0)) &
						  0xff);
	return (parser->decoded & K_H1_MARKER_MASK) == K_H1_MARKER;
}

static __always_inline bool h1_read_value(struct h1_parser *parser, __u8 c)
{
	bool base64 = false;
	__u32 at;

	if (c == '\r') {
		parser->state = h1_value_lf;
		return false;
	}
	if (!h1_is_value(c)) {
		h1_lose(parser);
		return false;
	}
	switch (parser->field) {
	case h1_field_host:
	case h1_field_content_length:
	case h1_field_transfer_encoding:
		if (h1_is_space(c)) {
			parser->flags |= h1_value_ended;
			return false;
		}
		if (parser->flags & h1_value_ended)
			h1_lose(parser);
		break;
	case h1_field_credentials:
		if (parser->flags & h1_in_base64) {
			base64 = h1_read_base64(parser, c);
		} else if (parser->length == 5 && c == ' ' &&
			   ((parser->window & 0xffffffffff) | 0x2020202020) == 0x6261736963) { /* basic */
			parser->flags |= h1_in_base64;
			parser->base64_length = 0;
			parser->decoded = 0;
		}
		break;
	default:
		break;
	}
	at = parser->length++;
	parser->window = parser->window << 8 | c;
	switch (parser->field) {
	case h1_field_host:
		forget_range(at); /* the verifier of 6.1 forgets a bound when a register's copy on the stack is read */
		if (at >= k_h1_host_max || !h1_is_host(c))
			h1_lose(parser);
		else
			((__u8 *)&parser->host)[at] = h1_lower(c);
		break;
	case h1_field_content_length:
		/* 18 digits cannot overflow, and no body is longer. */
		if (c < '0' || c > '9' || at >= 18)
			h1_lose(parser);
		else
			parser->left = parser->left * 10 + (c - '0');
		break;
	case h1_field_transfer_encoding:
		if (at >= 7 || h1_lower(c) != (H1_WORD("chunked") >> (at * 8) & 0xff))
			h1_lose(parser);
		break;
	default:
		break;
	}
	return base64;
}

static __always_inline void h1_end_value(struct h1_parser *parser, __u8 c)
{
	__u32 length = parser->length;

	if (c != '\n')
		return h1_lose(parser);
	switch (parser->field) {
	case h1_field_host:
		parser->flags |= h1_has_host;
		parser->host_length = length;
		if (!length)
			return h1_lose(parser);
		break;
	case h1_field_content_length:
		parser->flags |= h1_has_length;
		if (!length)
			return h1_lose(parser);
		break;
	case h1_field_transfer_encoding:
		parser->flags |= h1_is_chunked;
		if (length != 7)
			return h1_lose(parser);
		break;
	case h1_field_upgrade:
		parser->flags |= h1_is_tunnel;
		break;
	default:
		break;
	}
	h1_enter(parser, h1_line_start);
}

static __always_inline void h1_end_block(struct h1_parser *parser, __u8 c)
{
	bool chunked = parser->flags & h1_is_chunked;

	/* Both framings at once, or chunks before HTTP/1.1: the shapes of request smuggling (RFC 9112 11.2). */
	if (c != '\n' || (chunked && (parser->flags & (h1_has_length | h1_is_http_1_0))))
		return h1_lose(parser);
	if (parser->flags & h1_is_tunnel)
		return h1_enter(parser, h1_opaque);
	parser->slot = slot_body;
	if (chunked)
		return h1_enter(parser, h1_chunk_size);
	h1_enter(parser, parser->left ? h1_body : h1_idle);
}

static __always_inline void h1_read_body(struct h1_parser *parser, __u8 c)
{
	parser->window = parser->window << 8 | c;
	parser->left--;
	if (!parser->left)
		parser->state = parser->state == h1_body ? h1_idle : h1_chunk_cr;
}

/* RFC 9112 7.1. Trailers are not for us: hardly a client sends them, and servers disagree about them. */
static __always_inline void h1_read_chunk_size(struct h1_parser *parser, __u8 c)
{
	int digit = h1_hex(c);

	if (digit >= 0 && parser->length < 8) {
		parser->left = parser->left << 4 | digit;
		parser->length++;
	} else if (c == '\r' && parser->length) {
		parser->state = h1_chunk_size_lf;
	} else if (c == ';' && parser->length) {
		parser->state = h1_chunk_extension;
	} else {
		h1_lose(parser);
	}
}

/* RFC 9112 7.1.1: skipped by all who know none. Its end is what servers have disagreed about, so CR LF it must be. */
static __always_inline void h1_read_chunk_extension(struct h1_parser *parser, __u8 c)
{
	if (c == '\r')
		parser->state = h1_chunk_size_lf;
	else if (!h1_is_value(c))
		h1_lose(parser);
}

static __always_inline void h1_expect(struct h1_parser *parser, __u8 c, __u8 expected, enum h1_state next)
{
	if (c != expected)
		return h1_lose(parser);
	h1_enter(parser, next);
}

static __always_inline void h1_note_found(struct h1_parser *parser, struct h1_scan *scan, enum h1_code code)
{
	__u32 at = scan->found_count;
	struct h1_found *found;

	forget_range(at);
	if (at >= k_h1_found_max) {
		scan->found_lost = 1;
		return;
	}
	found = &scan->found[at];
	memset(found, 0, sizeof(*found));
	scan->found_count = at + 1;
	found->slot = parser->state == h1_lost ? 0 : parser->slot;
	found->forbidden = parser->slot == slot_header && (parser->flags & h1_is_forbidden);
	found->code = code;
	if (code == h1_code_base64) {
		__u32 length = parser->base64_length;

		found->base64 = (__s32)scan->position - (__s32)length;
		found->marker = (__s32)(length * 3 / 4) - k_marker_bytes;
	} else {
		found->marker = (__s32)scan->position - (code == h1_code_percent ? k_h1_percent_bytes : k_marker_bytes);
	}
	found->from = scan->body_from;
	if (found->slot == slot_body)
		found->to = parser->left < scan->end - scan->position ? scan->position + parser->left : scan->end;
	if (parser->slot == slot_header) {
		found->header.length = ((const __u8 *)parser->name)[k_header_name_max];
		memcpy(found->header.text, parser->name, k_header_name_max);
	}
}

enum h1_event {
	h1_no_slot = 0,
	h1_in_slot, /* a marker may end here */
	h1_base64_marker, /* and here one does */
};

static __always_inline enum h1_event h1_read_byte(struct h1_parser *parser, __u8 c)
{
	switch (parser->state) {
	case h1_idle:
		h1_begin_request(parser);
		h1_read_method(parser, c);
		return h1_no_slot;
	case h1_method:
		h1_read_method(parser, c);
		return h1_no_slot;
	case h1_target:
		h1_read_target(parser, c);
		return h1_in_slot;
	case h1_version:
		h1_read_version(parser, c);
		return h1_no_slot;
	case h1_line_start:
		h1_read_line_start(parser, c);
		return h1_no_slot;
	case h1_name:
		h1_read_name(parser, c);
		return h1_no_slot;
	case h1_value_start:
		if (h1_is_space(c))
			return h1_no_slot;
		parser->state = h1_value;
		return h1_read_value(parser, c) ? h1_base64_marker : h1_in_slot;
	case h1_value:
		return h1_read_value(parser, c) ? h1_base64_marker : h1_in_slot;
	case h1_value_lf:
		h1_end_value(parser, c);
		return h1_no_slot;
	case h1_block_lf:
		h1_end_block(parser, c);
		return h1_no_slot;
	case h1_body:
	case h1_chunk_data:
		h1_read_body(parser, c);
		return h1_in_slot;
	case h1_chunk_size:
		h1_read_chunk_size(parser, c);
		return h1_no_slot;
	case h1_chunk_extension:
		h1_read_chunk_extension(parser, c);
		return h1_no_slot;
	case h1_chunk_size_lf:
		h1_expect(parser, c, '\n', parser->left ? h1_chunk_data : h1_last_cr);
		return h1_no_slot;
	case h1_chunk_cr:
		h1_expect(parser, c, '\r', h1_chunk_lf);
		return h1_no_slot;
	case h1_chunk_lf:
		h1_expect(parser, c, '\n', h1_chunk_size);
		return h1_no_slot;
	case h1_last_cr:
		h1_expect(parser, c, '\r', h1_last_lf);
		return h1_no_slot;
	case h1_last_lf:
		h1_expect(parser, c, '\n', h1_idle);
		return h1_no_slot;
	case h1_lost:
		parser->window = parser->window << 8 | c;
		return h1_in_slot;
	default:
		h1_lose(parser);
		return h1_no_slot;
	}
}

static long h1_step(__u32 index, struct h1_loop *loop)
{
	struct h1_parser *parser = loop->parser;
	struct h1_scan *scan = loop->scan;
	__u32 at = scan->position;
	enum h1_event event;
	__u64 window;
	__u8 c, state = parser->state;

	(void)index;
	if (at >= scan->end || at >= sizeof(scan->text) || state == h1_opaque || h1_is_http2(state))
		return 1;
	if (h1_is_body(state)) {
		if (!scan->reads_bodies) {
			h1_skip(parser, scan, at);
			return 0;
		}
		h1_pass_over(scan, at);
	} else if (scan->skipped && scan->tail > at) {
		scan->tail = at;
	}
	if (h1_take_eight(parser, scan, at))
		return 0;
	c = ((const __u8 *)&scan->text)[at];
	scan->position = at + 1;
	window = parser->window;
	event = h1_read_byte(parser, c);
	if (parser->state == h1_lost) {
		parser->window = window << 8 | c; /* the byte over which it was lost may be a marker's */
		if (event == h1_no_slot)
			event = h1_in_slot;
	}
	if (event == h1_base64_marker)
		h1_note_found(parser, scan, h1_code_base64);
	else if (event == h1_in_slot && c == ':' && (parser->window & K_H1_MARKER_MASK) == K_H1_MARKER)
		h1_note_found(parser, scan, h1_code_none);
	else if ((state == h1_target || h1_is_body(state)) && h1_is_percent_marker(parser, c))
		h1_note_found(parser, scan, h1_code_percent);
	/* After a header block, a body or a chunk: the caller wants the request's Host while it is known. */
	return scan->found_count > 0 && (state == h1_block_lf || (h1_is_body(state) && parser->state != state));
}

/*
 * Reads on in `scan` up to its end, or to the end of a header block or body when markers have been found: then the caller deals
 * with them, sets found_count to 0 and calls again. A global function, so that the verifier walks through it once.
 */
__noinline int h1_parse(struct h1_parser *parser, struct h1_scan *scan)
{
	struct h1_loop loop;

	if (!parser || !scan)
		return 0;
	loop.parser = parser;
	loop.scan = scan;
	bpf_loop(sizeof(scan->text), h1_step, &loop, 0);
	if (!scan->skipped)
		scan->head_end = scan->position;
	return parser->state;
}

/* Prepares `scan` for a record of `end` bytes of text. `reads_bodies` stays as the caller has set it. */
static __always_inline void h1_begin(struct h1_scan *scan, __u32 end)
{
	scan->position = 0;
	scan->end = end;
	scan->head_end = 0;
	scan->tail = end;
	scan->skipped = 0;
	scan->body_from = 0;
	scan->found_count = 0;
	scan->found_lost = 0;
}

enum { k_h1_searched_max = 4096 }; /* bytes of a body */

struct h1_search {
	struct h1_scan *scan;
	__u32 from;
	__u32 to;
};

static long h1_search_step(__u32 index, struct h1_search *search)
{
	struct h1_scan *scan = search->scan;
	__u32 at = search->from + index * 8;
	const __u8 *text;

	if (at >= search->to || at < 8)
		return 1;
	forget_range(at); /* or both bounds are checked by one comparison of a difference */
	if (at > sizeof(scan->text) - 8)
		return 1;
	text = (const __u8 *)&scan->text + at;
	if (!h1_any_marker(*(const __u64 *)text, text[-1]))
		return 0;
	for (int i = 0; i < 8; i++) {
		struct h1_found *found;
		__u32 count = scan->found_count;

		if ((bpf_be64_to_cpu(*(const __u64 *)(text + i - 7)) & K_H1_MARKER_MASK) != K_H1_MARKER)
			continue;
		if (at + i >= search->to)
			return 1;
		forget_range(count);
		if (count >= k_h1_found_max) {
			scan->found_lost = 1;
			return 1;
		}
		found = &scan->found[count];
		memset(found, 0, sizeof(*found));
		found->slot = slot_body;
		found->refused = reason_slot_not_allowed;
		found->marker = at + i + 1 - k_marker_bytes;
		scan->found_count = count + 1;
	}
	return 0;
}

/*
 * Markers in the body that the parser has skipped, where its text is at hand. Nothing is replaced there; somebody will want
 * to know why.
 */
__noinline int h1_search_body(struct h1_scan *scan)
{
	struct h1_search search;

	if (!scan || !scan->skipped)
		return 0;
	search.scan = scan;
	search.from = scan->head_end < 8 ? 8 : scan->head_end;
	search.to = scan->tail;
	if (search.to > search.from + k_h1_searched_max)
		search.to = search.from + k_h1_searched_max;
	bpf_loop(k_h1_searched_max / 8, h1_search_step, &search, 0);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Header blocks (RFC 7541): fields, one byte or one half of a coded byte at a time.
 *
 * The dynamic table is modelled without sizes or evictions. The server counts indices from the newest entry, as the model
 * does, and drops entries from the oldest on; an entry that is too large to enter drops all. So an index that the
 * server can resolve names the same entry here, whatever size the two ends have agreed on or pretend to.
 */
#pragma once

#include "../core.h"
#include "h1_field.h"
#include "h1_parse.h"
#include "h2.h"
#include "h2_field.h"
#include "huffman_table.h"

enum { k_h2_marker_bits = 37 }; /* of "kloak:" in Huffman code */

static __always_inline bool h2_huffman_ends(__u8 node)
{
	const __u8 ends[] = {HUFFMAN_ENDS};

	for (__u32 i = 0; i < sizeof(ends); i++)
		if (node == ends[i])
			return true;
	return false;
}

static __always_inline void h2_bad_value(struct h2_state *h2)
{
	h2->value |= h2_entry_bad;
	h2->flags |= h2_bad;
}

/* It stays bad where the name is used again, by its index. */
static __always_inline void h2_bad_name(struct h2_state *h2)
{
	h2->value |= h2_entry_bad_name;
	h2_bad_value(h2);
}

/* A field of this kind stands in the request: once, pseudo-header fields before the others (RFC 9113 8.3). */
static __always_inline void h2_count_field(struct h2_state *h2, __u8 kind)
{
	__u32 flags = h2->flags | h2_any_field, seen = 1u << (kind & 15);

	if (kind > h2_protocol)
		flags |= h2_regular;
	else if (flags & h2_regular)
		flags |= h2_bad;
	if (kind <= h2_content_length) {
		if (flags & seen)
			flags |= h2_bad;
		flags |= seen;
	}
	if (kind == h2_refused)
		flags |= h2_bad;
	h2->flags = flags;
}

/* :authority, or host: if both are there they must agree (RFC 9113 8.3.1). */
static __always_inline void h2_take_host(struct h2_state *h2, __u64 host, __u64 suffix)
{
	if (h2->flags & h2_named_host) {
		if (h2->host != host)
			h2->flags |= h2_bad;
		return;
	}
	h2->host = host;
	h2->suffix = suffix;
	h2->flags |= h2_named_host;
}

/* The entry that a dynamic index names; NULL: not in the model. What cannot be in the server's table either is a loss. */
static __always_inline struct h2_entry *h2_entry_at(struct h1_parser *parser, struct h2_state *h2, __u32 index)
{
	__u32 back = index - k_h2_static; /* 1: the newest */

	if (back > h2->inserted) {
		h1_lose(parser);
		return NULL;
	}
	h2->flags |= h2_any_field;
	if (back > k_h2_entries) {
		h2->flags |= h2_bad;
		if (h2->keeps > 1)
			h2->flags |= h2_misused;
		return NULL;
	}
	return &h2->entries[(h2->inserted - back) & (k_h2_entries - 1)];
}

/* A field that is an entry of the table, name and value. */
static __always_inline void h2_refer(struct h1_parser *parser, struct h2_state *h2, __u32 index)
{
	struct h2_entry *entry;
	__u32 count = h2->reference_count, back;
	__u8 kind;

	if (!index)
		return h1_lose(parser);
	if (index <= k_h2_static) {
		memcpy(parser->name, &h2_static_names[index & 63], sizeof(parser->name));
		kind = h2_classify(parser->name);
		h2_count_field(h2, kind);
		/* Their values are empty. */
		if (kind == h2_authority || kind == h2_host || kind == h2_content_length)
			h2->flags |= h2_bad;
		return;
	}
	entry = h2_entry_at(parser, h2, index);
	if (!entry)
		return;
	kind = entry->kind;
	h2_count_field(h2, kind);
	if (entry->flags & h2_entry_bad)
		h2->flags |= h2_bad;
	if ((kind == h2_authority || kind == h2_host) && !(entry->flags & h2_entry_bad))
		h2_take_host(h2, entry->host, entry->suffix);
	back = index - k_h2_static;
	if ((entry->flags & h2_entry_marked) && h2->inserted - back >= h2->before)
		h2->flags |= h2_repeats;
	if (!entry->secret)
		return;
	if (count >= k_h2_references_max) {
		h2->flags |= h2_misused;
		return;
	}
	h2->references[count].host = entry->host;
	h2->references[count].secret = entry->secret;
	h2->reference_count = count + 1;
}

/* The name of a literal, by index. */
static __always_inline void h2_name_at(struct h1_parser *parser, struct h2_state *h2, __u32 index)
{
	const struct h2_entry *entry;

	h2->value = 0;
	if (index <= k_h2_static) {
		memcpy(parser->name, &h2_static_names[index & 63], sizeof(parser->name));
	} else {
		entry = h2_entry_at(parser, h2, index);
		if (entry) {
			memcpy(parser->name, entry->name, sizeof(parser->name));
			if (entry->flags & h2_entry_bad_name)
				h2_bad_name(h2);
		} else {
			memset(parser->name, 0, sizeof(parser->name));
			h2_bad_name(h2);
		}
	}
	h2->kind = h2_classify(parser->name);
	h2->state = h2_value_length;
}

static __always_inline void h2_index_end(struct h1_parser *parser, struct h2_state *h2)
{
	__u32 index = h2->integer;

	h2->state = h2_field_start;
	if (h2->form == h2_resize)
		return;
	if (h2->form == h2_indexed)
		return h2_refer(parser, h2, index);
	if (index)
		return h2_name_at(parser, h2, index);
	h2->value = 0;
	h2->state = h2_name_length;
}

static __always_inline void h2_insert(struct h1_parser *parser, struct h2_state *h2)
{
	struct h2_entry *entry = &h2->entries[h2->inserted & (k_h2_entries - 1)];

	if (entry->secret)
		h2->keeps = 2; /* it has left the model, but perhaps not the server's table */
	memcpy(entry->name, parser->name, sizeof(entry->name));
	entry->host = 0;
	entry->suffix = 0;
	entry->secret = 0;
	entry->kind = h2->kind;
	entry->flags = h2->value;
	h2->inserted++;
	/* Counts stay comparable: four billion entries under one key are somebody's game. */
	if (!h2->inserted)
		h1_lose(parser);
}

static __always_inline void h2_value_end(struct h1_parser *parser, struct h2_state *h2)
{
	__u8 kind = h2->kind;

	h2->state = h2_field_start;
	h2->capturing = 0;
	h2_count_field(h2, kind);
	if (!parser->length && kind != h2_plain && kind != h2_credentials)
		h2_bad_value(h2);
	if ((kind == h2_authority || kind == h2_host) && !(h2->value & h2_entry_bad)) {
		parser->host_length = parser->length;
		h2->stop = h2_stop_host;
	}
	if (h2->form == h2_inserted)
		h2_insert(parser, h2);
}

static __always_inline void h2_string_end(struct h1_parser *parser, struct h2_state *h2)
{
	if (h2->huffman && !h2_huffman_ends(h2->node))
		return h1_lose(parser);
	if (h2->state == h2_value)
		return h2_value_end(parser, h2);
	((__u8 *)parser->name)[k_header_name_max] = parser->length > k_header_name_max ? 0 : parser->length;
	h2->kind = h2_classify(parser->name);
	h2->state = h2_value_length;
}

/* The length of a string is known. */
static __always_inline void h2_string_begin(struct h1_parser *parser, struct h2_state *h2, bool name)
{
	h2->string = h2->integer;
	h2->half = 0;
	h2->node = 0;
	h2->capturing = 0;
	parser->length = 0;
	parser->window = 0;
	parser->decoded = 0;
	parser->flags &= ~(h1_in_base64 | h1_is_forbidden);
	if (name) {
		memset(parser->name, 0, sizeof(parser->name));
		h2->state = h2_name;
		if (!h2->string)
			h1_lose(parser);
		return;
	}
	parser->slot = h2->kind == h2_path ? slot_path : slot_header;
	if (h2->kind < h2_credentials || h2_is_pseudo(parser->name) ||
	    h1_forbids(parser->name, ((const __u8 *)parser->name)[k_header_name_max]))
		parser->flags |= h1_is_forbidden;
	h2->state = h2_value;
	if (!h2->string)
		h2_value_end(parser, h2);
}

/* RFC 7541 5.1: seven bits a byte, the lowest first. True when it is complete. */
static __always_inline bool h2_read_integer(struct h1_parser *parser, struct h2_state *h2, __u8 c)
{
	__u32 shift = h2->shift;

	if (shift >= k_h2_integer_bits) {
		h1_lose(parser);
		return false;
	}
	h2->integer += (__u32)(c & 0x7f) << (shift & 31);
	h2->shift = shift + 7;
	return !(c & 0x80);
}

/* All of a block that is not the text of a string. */
static __always_inline void h2_read_field(struct h1_parser *parser, struct h2_state *h2, __u8 c)
{
	__u8 most;

	switch (h2->state) {
	case h2_field_start:
		h2->form = c & 0x80 ? h2_indexed : c & 0x40 ? h2_inserted : c & 0x20 ? h2_resize : h2_literal;
		most = c & 0x80 ? 0x7f : c & 0x40 ? 0x3f : c & 0x20 ? 0x1f : 0x0f;
		/* RFC 7541 4.2: at the beginning of a block. Some servers let it pass elsewhere; we need not know. */
		if (h2->form == h2_resize && (h2->flags & h2_any_field))
			return h1_lose(parser);
		h2->integer = c & most;
		h2->shift = 0;
		if (h2->integer == most)
			h2->state = h2_field_index;
		else
			h2_index_end(parser, h2);
		return;
	case h2_field_index:
		if (h2_read_integer(parser, h2, c))
			h2_index_end(parser, h2);
		return;
	case h2_name_length:
	case h2_value_length:
		h2->huffman = c >> 7;
		h2->integer = c & 0x7f;
		h2->shift = 0;
		if (h2->integer == 0x7f)
			h2->state++;
		else
			h2_string_begin(parser, h2, h2->state == h2_name_length);
		return;
	case h2_name_length_more:
	case h2_value_length_more:
		if (h2_read_integer(parser, h2, c))
			h2_string_begin(parser, h2, h2->state == h2_name_length_more);
		return;
	default:
		h1_lose(parser);
	}
}

/* RFC 9113 8.2.1: no capitals; a colon only before a pseudo-header field's name. */
static __always_inline void h2_read_name(struct h1_parser *parser, struct h2_state *h2, __u8 c)
{
	__u32 at = parser->length++;

	if ((!h1_is_token(c) && (c != ':' || at)) || (c >= 'A' && c <= 'Z'))
		h2_bad_name(h2);
	if (at < k_header_name_max)
		((__u8 *)parser->name)[at] = c;
}

static __always_inline void h2_note_found(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2,
					  __s32 end, enum h1_code code)
{
	__u32 at = scan->found_count, rest;
	struct h1_found *found;

	h2->value |= h2_entry_marked;
	h2->capturing = 0;
	forget_range(at);
	if (at >= k_h1_found_max) {
		scan->found_lost = 1;
		return;
	}
	found = &scan->found[at];
	scan->found_count = at + 1;
	found->slot = parser->slot;
	found->forbidden = !!(parser->flags & h1_is_forbidden);
	found->code = code;
	found->is_huffman = h2->huffman;
	found->refused = 0;
	found->base64 = 0;
	found->entry = h2->form == h2_inserted ? (h2->inserted & (k_h2_entries - 1)) + 1 : 0;
	if (code == h1_code_base64) {
		__u32 length = parser->base64_length;

		found->base64 = end - (__s32)length;
		found->marker = (__s32)(length * 3 / 4) - k_marker_bytes;
	} else {
		found->marker = end - (h2->huffman             ? k_h2_marker_bits :
				       code == h1_code_percent ? k_h1_percent_bytes :
								 k_marker_bytes);
		h2->capturing = 1;
	}
	*(__u32 *)found->token = H1_WORD("kloa");
	found->token[4] = 'k';
	found->token[5] = ':';
	found->token_bytes = k_marker_bytes;
	/* All of it must lie in this string and in this frame: what follows is something else to the server. */
	rest = h2->string < h2->fragment ? h2->string : h2->fragment;
	found->from = h2->from;
	found->to = scan->position + rest;
	if (parser->slot == slot_header) {
		found->header.length = ((const __u8 *)parser->name)[k_header_name_max];
		memcpy(found->header.text, parser->name, k_header_name_max);
	} else {
		memset(&found->header, 0, sizeof(found->header));
	}
}

/* The characters after a marker. Its place in the record says nothing about them if they are coded. */
static __always_inline void h2_capture(struct h1_scan *scan, struct h2_state *h2, __u8 c)
{
	__u32 last = scan->found_count - 1;
	struct h1_found *found;
	__u32 have;

	forget_range(last);
	if (!h2->capturing || last >= k_h1_found_max)
		return;
	found = &scan->found[last];
	have = found->token_bytes;
	if (have < k_token_bytes)
		found->token[have & (k_token_bytes - 1)] = c;
	found->token_bytes = have + 1;
	if (have + 1 >= k_token_bytes)
		h2->capturing = 0;
}

/* What a value may hold depends on what it is for: what a server could take for something else is bad. */
static __always_inline bool h2_value_allows(struct h1_parser *parser, __u8 kind, __u8 c)
{
	__u32 at = parser->length;

	if (!h1_is_value(c))
		return false;
	switch (kind) {
	case h2_method:
	case h2_protocol:
		return h1_is_token(c);
	case h2_scheme:
		return c >= 'a' && c <= 'z';
	case h2_path:
		if (c == '?')
			parser->slot = slot_query;
		return at ? c > ' ' : c == '/' || c == '*';
	case h2_authority:
	case h2_host:
		if (!h1_is_host(c) || at >= k_h1_host_max)
			return false;
		((__u8 *)&parser->host)[at] = h1_lower(c);
		return true;
	case h2_content_length:
		return c >= '0' && c <= '9' && at < 18;
	default:
		return true;
	}
}

/* One character of a value; `end`: one past it in the record, in bits if it is coded. */
static __always_inline void h2_read_value(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2, __u8 c,
					  __s32 end)
{
	bool base64 = false;

	h2_capture(scan, h2, c);
	if (!h2_value_allows(parser, h2->kind, c))
		h2_bad_value(h2);
	if (h2->kind == h2_credentials) {
		if (parser->flags & h1_in_base64) {
			base64 = h1_read_base64(parser, c);
		} else if (parser->length == 5 && c == ' ' &&
			   ((parser->window & 0xffffffffff) | 0x2020202020) == 0x6261736963) { /* basic */
			parser->flags |= h1_in_base64;
			parser->base64_length = 0;
		}
	}
	parser->length++;
	parser->window = parser->window << 8 | c;
	if (base64)
		h2_note_found(parser, scan, h2, end, h1_code_base64);
	else if (c == ':' && (parser->window & K_H1_MARKER_MASK) == K_H1_MARKER)
		h2_note_found(parser, scan, h2, end, h1_code_none);
	else if ((parser->slot == slot_query || parser->slot == slot_path) && h1_is_percent_marker(parser, c))
		h2_note_found(parser, scan, h2, end, h1_code_percent);
}

/* The next byte, or half of one, of a header block. */
static __always_inline void h2_read_block(struct h1_parser *parser, struct h1_scan *scan, struct h2_state *h2, __u8 c)
{
	__s32 end = scan->position + 1;
	bool value = h2->state == h2_value;

	if (!value && h2->state != h2_name) {
		scan->position++;
		h2->fragment--;
		return h2_read_field(parser, h2, c);
	}
	if (h2->huffman) {
		__u32 at = (__u32)h2->node << 4 | (h2->half ? c & 15 : c >> 4);
		__u16 step;

		forget_range(at);
		step = ((const __u16 *)huffman_table)[at & 4095];
		h2->node = step >> 8;
		end = scan->position * 8 + (h2->half ? 8 : 4);
		/* Bits of the next character; nodes of at most three are numbered so. */
		end -= h2->node > 6 ? 3 : h2->node > 2 ? 2 : h2->node > 0;
		c = step;
		if (c == k_huffman_end)
			return h1_lose(parser);
		h2->half ^= 1;
	}
	if (!h2->half || !h2->huffman) {
		scan->position++;
		h2->fragment--;
		h2->string--;
	}
	if (!h2->huffman || c) {
		if (value)
			h2_read_value(parser, scan, h2, c, end);
		else
			h2_read_name(parser, h2, c);
	}
	if (!h2->string && (!h2->half || !h2->huffman))
		h2_string_end(parser, h2);
}

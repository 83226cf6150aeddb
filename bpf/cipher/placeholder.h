/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From a marker that the parser found to an edit, or to the reason why there is none. */
#pragma once

#include "../core.h"
#include "../http/h1.h"
#include "../http/h1_field.h"
#include "../maps/secrets.h"
#include "../maps/sealing.h"
#include "host.h"

/* One placeholder, as far as it is known. */
struct placeholder {
	__u32 secret;
	__s32 start;  /* in the record's text */
	__u32 length; /* there: as encoded */
	__u16 encoding;
	__u8 differs;
	__u8 first_mask; /* our bits of the first character (base64) or byte (Huffman) */
	__u8 last_mask;  /* and of the last */
	__u8 _pad[7];
	struct sealing *sealing;
};

static __always_inline __u8 base64_character(__u8 value)
{
	if (value < 26)
		return 'A' + value;
	if (value < 52)
		return 'a' + value - 26;
	if (value < 62)
		return '0' + value - 52;
	return value == 62 ? '+' : '/';
}

/* Byte `index` of what the base64 text at `start` encodes; -1 if it is not all in the record. */
static __always_inline int base64_byte(const struct h1_scan *scan, __s32 start, __u32 index)
{
	__u32 phase = index % 3;
	__s32 at = start + (__s32)(index / 3 * 4 + phase);
	int first, second;

	if (at < 0 || (__u32)at + 1 >= scan->end || (__u32)at > sizeof(scan->text) - 2)
		return -1;
	first = h1_base64(((const __u8 *)&scan->text)[at]);
	second = h1_base64(((const __u8 *)&scan->text)[at + 1]);
	if (first < 0 || second < 0)
		return -1;
	return (first << 6 | second) >> (phase == 0 ? 4 : phase == 1 ? 2 : 0) & 0xff;
}

/* The bytes from the marker on, at most 16 of them. Returns how many there are in the record. */
__noinline int placeholder_token(const struct sealing *sealing, __u32 which, struct token_key *token)
{
	const struct h1_found *found;
	const struct h1_scan *scan;
	__u32 i;
	__u8 longer; /* by the two digits */

	if (!sealing || !token || which >= k_h1_found_max)
		return 0;
	scan = &sealing->scan;
	found = &scan->found[which];
	longer = found->code == h1_code_percent ? k_h1_percent_bytes - k_marker_bytes : 0;
	for (i = 0; i < k_token_bytes; i++) {
		int c = -1;

		if (found->is_huffman) {
			if (i < found->token_bytes)
				c = found->token[i];
		} else if (found->code == h1_code_base64) {
			c = base64_byte(scan, found->base64, found->marker + i);
		} else {
			__s32 at = found->marker + (__s32)i + (i >= k_marker_bytes ? longer : 0);

			if (at >= 0 && (__u32)at < scan->end && (__u32)at < sizeof(scan->text))
				c = ((const __u8 *)&scan->text)[at];
		}
		if (c < 0)
			break;
		token->token[i] = c;
	}
	if (longer)
		token->token[k_marker_bytes - 1] = ':';
	return i;
}

/* Short placeholders are entered by their first 8 bytes. Not inlined: its caller stands in the deepest chain of calls. */
static __noinline __u32 placeholder_look_up(struct token_key *token, __u32 bytes)
{
	__u32 secret = bytes == k_token_bytes ? token_find(token) : 0;
	struct token_key brief = *token;

	if (secret || bytes < 8)
		return secret;
	memset(brief.token + 8, 0, 8);
	return token_find(&brief);
}

/* Compares 64 bytes of the text with the placeholder. */
static long placeholder_compare(__u32 index, struct placeholder *placeholder)
{
	struct secret_chunk_key key = {
		.secret = placeholder->secret, .encoding = placeholder->encoding, .index = index};
	const struct secret_chunk *chunk = secret_chunk_find(&key);
	struct sealing *sealing = placeholder->sealing;
	__u64 *words = (__u64 *)sealing->candidate;
	__u32 offset = index * k_secret_chunk_bytes;
	__u32 at = placeholder->start + offset;
	__u32 take = placeholder->length - offset;
	__u64 difference = 0;

	placeholder->differs = 1;
	if (!chunk || at >= sizeof(sealing->scan.text))
		return 1;
	if (take > k_secret_chunk_bytes)
		take = k_secret_chunk_bytes;
	memset(words, 0, k_secret_chunk_bytes);
	bpf_probe_read_kernel(sealing->candidate, take, (const __u8 *)&sealing->scan.text + at);
	if (placeholder->encoding >= encoding_huffman_0 && placeholder->encoding <= encoding_huffman_7) {
		__u32 last = (take - 1) & (k_secret_chunk_bytes - 1);

		if (index == 0)
			sealing->candidate[0] &= placeholder->first_mask;
		if (offset + take == placeholder->length)
			sealing->candidate[last] &= placeholder->last_mask;
	} else if (placeholder->encoding >= encoding_base64_0 && placeholder->encoding <= encoding_base64_2) {
		__u32 slot = sealing->patch.edit_count & (k_edits_max - 1),
		      last = (take - 1) & (k_secret_chunk_bytes - 1);
		int value;

		/* The characters that hold a neighbour's bits too: compare our bits, and keep its. */
		if (index == 0)
			sealing->edge[slot][0] = chunk->delta[0];
		if (index == 0 && placeholder->first_mask != 0x3f) {
			value = h1_base64(sealing->candidate[0]);
			sealing->edge[slot][0] =
				base64_character((value ^ chunk->delta[0]) & 63) ^ sealing->candidate[0];
			sealing->candidate[0] = base64_character(value & placeholder->first_mask);
		}
		sealing->edge[slot][1] = chunk->delta[last];
		if (offset + take == placeholder->length && placeholder->last_mask != 0x3f) {
			value = h1_base64(sealing->candidate[last]);
			sealing->edge[slot][1] =
				base64_character((value ^ chunk->delta[last]) & 63) ^ sealing->candidate[last];
			sealing->candidate[last] = base64_character(value & placeholder->last_mask);
		}
	}
	for (int i = 0; i < k_secret_chunk_bytes / 8; i++)
		difference |= words[i] ^ ((const __u64 *)chunk->expected)[i];
	if (difference)
		return 1;
	placeholder->differs = 0;
	return 0;
}

/* Where it stands, from where its marker stands. */
static __always_inline void placeholder_place(struct placeholder *placeholder, const struct secret *secret,
					      const struct h1_scan *scan, const struct h1_found *found)
{
	__s32 before = found->marker - (found->is_huffman ? secret->huffman_start : secret->marker_offset);
	__u32 start = before, end = before + secret->length;

	if (found->is_huffman) {
		__u32 first = before & 7, bits = first + secret->huffman_bits;

		placeholder->encoding = encoding_huffman_0 + first;
		placeholder->start = before >> 3;
		placeholder->length = (bits + 7) / 8;
		placeholder->first_mask = 0xff >> first;
		placeholder->last_mask = 0xff << (-bits & 7);
		return;
	}

	placeholder->encoding = encoding_raw;
	placeholder->start = before;
	placeholder->length = secret->length;
	if (found->code == h1_code_percent) {
		__u32 digit = found->marker + k_h1_percent_bytes - 1;

		forget_range(digit);
		placeholder->encoding = encoding_percent_upper;
		if (digit < sizeof(scan->text) && (((const __u8 *)&scan->text)[digit] & 0x20))
			placeholder->encoding = encoding_percent_lower;
		placeholder->length += k_h1_percent_bytes - k_marker_bytes;
	}
	if (found->code != h1_code_base64)
		return;
	if (before < 0) { /* the text before the base64: not this placeholder */
		placeholder->length = 0;
		return;
	}
	placeholder->encoding = encoding_base64_0 + start % 3;
	placeholder->start = found->base64 + (__s32)(start / 3 * 4 + start % 3);
	placeholder->length = ((end - 1) / 3 * 4 + (end - 1) % 3 + 2) - (start / 3 * 4 + start % 3);
	placeholder->first_mask = start % 3 == 0 ? 0x3f : start % 3 == 1 ? 0x0f : 0x03;
	placeholder->last_mask = end % 3 == 0 ? 0x3f : end % 3 == 1 ? 0x30 : 0x3c;
}

/* The slot that allows it, or 0. */
static __always_inline __u8 placeholder_slot(const struct secret *secret, const struct h1_found *found)
{
	if (found->slot != slot_header)
		return secret->slots & (found->slot | slot_any) ? found->slot : 0;
	if ((secret->slots & (slot_header | slot_any)) && !found->forbidden)
		return slot_header;
	if (!(secret->slots & slot_named_header) || !found->header.length)
		return 0;
	for (int i = 0; i < 4; i++) {
		const struct header_name *name = &secret->headers[i];
		__u8 differs = name->length ^ found->header.length;

		if (i >= secret->header_count)
			break;
		for (int j = 0; j < k_header_name_max; j++)
			differs |= name->text[j] ^ found->header.text[j];
		if (!differs)
			return slot_named_header;
	}
	return 0;
}

static __always_inline int placeholder_refuse(struct sealing *sealing, const struct h1_found *found,
					      const struct placeholder *placeholder, __u8 reason)
{
	if (sealing->refused)
		return reason;
	sealing->refused = reason;
	sealing->refusal.secret = placeholder->secret;
	sealing->refusal.offset = placeholder->start;
	sealing->refusal.length = placeholder->length;
	sealing->refusal.encoding = placeholder->encoding;
	sealing->refusal.slot = found->slot;
	sealing->refusal.header = found->header;
	return reason;
}

/* The request's part in the decision, and the edit itself. */
static __always_inline int placeholder_edit(struct sealing *sealing, struct h1_parser *parser,
					    const struct h1_found *found, const struct secret *secret,
					    const struct placeholder *placeholder)
{
	__u32 count = sealing->patch.edit_count;
	__u32 seen = parser->seen_count;
	__u8 slot = placeholder_slot(secret, found);
	struct edit *edit;

	if (parser->state == h1_lost || !found->slot)
		return reason_unparsable_request;
	if (!slot)
		return reason_slot_not_allowed;
	for (__u32 i = 0; i < k_h1_seen_max; i++)
		if (i < seen && parser->seen[i] == placeholder->secret)
			return reason_second_occurrence;
	if (count >= k_edits_max || seen >= k_h1_seen_max)
		return reason_tables_full;
	/*
	 * Host may follow in the same record, but not in a later one. A second Host in a later one comes too late to
	 * stop this edit: it makes a request that every server must refuse (RFC 9112 3.2), and closes the key.
	 */
	if (!(parser->flags & h1_has_host))
		return reason_host_not_allowed;
	if (!sealing->host_known)
		request_host(parser, sealing);
	edit = &sealing->patch.edits[count];
	edit->secret = placeholder->secret;
	edit->offset = placeholder->start;
	edit->length = placeholder->length;
	edit->encoding = placeholder->encoding;
	edit->slot = slot;
	edit->host_allowed = host_allows(sealing, placeholder->secret);
	edit->proof = secret->proof;
	edit->header = found->header;
	/* Two requests to two hosts in one record: what is allowed for the one's sake must not pass for the other's. */
	sealing->patch.host = !count || sealing->patch.host == sealing->host ? sealing->host : 0;
	sealing->patch.edit_count = count + 1;
	forget_range(seen); /* checked above, which the verifier of 6.1 does not remember */
	if (seen < k_h1_seen_max)
		parser->seen[seen] = placeholder->secret;
	parser->seen_count = seen + 1;
	return reason_none;
}

/* Decides about marker `which` of the scan. Returns enum reason; reason_none: an edit, or no placeholder at all. */
__noinline int placeholder_decide(struct sealing *sealing, struct h1_parser *parser, __u32 which)
{
	struct placeholder placeholder = {};
	struct token_key token = {};
	const struct secret *secret;
	const struct h1_found *found;
	int bytes, reason;

	if (!sealing || !parser || which >= k_h1_found_max)
		return reason_none;
	found = &sealing->scan.found[which];
	token.workload = sealing->key.workload;
	if (found->code == h1_code_base64 && found->is_huffman) /* a code in a code */
		return placeholder_refuse(sealing, found, &placeholder, found->refused);
	bytes = placeholder_token(sealing, which, &token);
	if (bytes == 0 || (bytes < k_token_bytes && sealing->scan.position == sealing->scan.end &&
			   (parser->state == h1_value || parser->state == h1_target || h1_is_body(parser->state))))
		return placeholder_refuse(sealing, found, &placeholder, reason_split_over_records);
	placeholder.secret = placeholder_look_up(&token, bytes);
	if (!placeholder.secret) {
		token.workload = 0;
		placeholder.secret = placeholder_look_up(&token, bytes);
		if (!placeholder.secret)
			return reason_none; /* text that only looks like one */
		return placeholder_refuse(sealing, found, &placeholder, reason_not_bound);
	}
	count(counter_placeholders_seen);
	secret = secret_find(placeholder.secret);
	if (!secret)
		return placeholder_refuse(sealing, found, &placeholder, reason_expired);
	if (found->code == h1_code_percent && found->is_huffman) /* the same, but its token is known */
		return placeholder_refuse(sealing, found, &placeholder, found->refused);
	placeholder_place(&placeholder, secret, &sealing->scan, found);
	if (!placeholder.length)
		return reason_none;
	if (placeholder.start < 0 || (__u32)placeholder.start + placeholder.length > sealing->scan.end ||
	    (found->to &&
	     ((__u32)placeholder.start < found->from || (__u32)placeholder.start + placeholder.length > found->to)))
		return placeholder_refuse(sealing, found, &placeholder, reason_split_over_records);
	placeholder.sealing = sealing;
	bpf_loop((placeholder.length + k_secret_chunk_bytes - 1) / k_secret_chunk_bytes, placeholder_compare,
		 &placeholder, 0);
	if (placeholder.differs)
		return reason_none;
	reason = found->refused;
	if (!reason)
		reason = placeholder_edit(sealing, parser, found, secret, &placeholder);
	if (reason)
		placeholder_refuse(sealing, found, &placeholder, reason);
	return reason;
}

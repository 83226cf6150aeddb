/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A record of HTTP/2: its requests, the hosts that they name, and the secrets that the server has been given to keep. */
#pragma once

#include "../core.h"
#include "../http/h2_parse.h"
#include "../maps/h2_states.h"
#include "../maps/sealing.h"
#include "host.h"
#include "placeholder.h"

enum { k_h2_stops_max = 256 }; /* requests with something to decide, and hosts spelled out, in one record */

/* The parser's host is complete. */
static __always_inline void h2_name_host(struct sealing *sealing, const struct h1_parser *parser, struct h2_state *h2)
{
	request_host(parser, sealing);
	h2_take_host(h2, sealing->host, sealing->host_suffix);
	if (h2->form == h2_inserted) {
		struct h2_entry *entry = &h2->entries[(h2->inserted - 1) & (k_h2_entries - 1)];

		entry->host = sealing->host;
		entry->suffix = sealing->host_suffix;
	}
}

/*
 * The request sends again what the server's table holds. That is a secret, or, if the wire side has refused it, still the
 * placeholder: this side does not know. The name of its field is the one that was allowed; what has to be judged is the
 * request. Returns an enum reason.
 */
__noinline int h2_judge_reference(struct sealing *sealing, struct h1_parser *parser, struct h2_state *h2, __u32 which)
{
	const struct h2_reference *reference;
	__u32 seen;

	if (!sealing || !parser || !h2 || which >= k_h2_references_max)
		return reason_tables_full;
	reference = &h2->references[which];
	seen = parser->seen_count;
	if (h2->flags & h2_bad)
		return reason_unparsable_request;
	if (!(h2->flags & h2_named_host))
		return reason_host_not_allowed;
	for (__u32 i = 0; i < k_h1_seen_max; i++)
		if (i < seen && parser->seen[i] == reference->secret)
			return reason_second_occurrence;
	if (seen >= k_h1_seen_max)
		return reason_tables_full;
	if (reference->host != h2->host && !host_allows(sealing, reference->secret))
		return reason_host_not_allowed;
	parser->seen[seen] = reference->secret;
	parser->seen_count = seen + 1;
	return reason_none;
}

/* A secret has been put into the server's table by edits[which]. */
static __always_inline void h2_keep(struct sealing *sealing, struct h2_state *h2, const struct h1_found *found)
{
	struct h2_entry *entry = &h2->entries[(found->entry - 1) & (k_h2_entries - 1)];
	__u32 last = sealing->patch.edit_count - 1;

	if (last >= k_edits_max)
		return;
	entry->secret = sealing->patch.edits[last].secret;
	entry->host = h2->host;
	if (!h2->keeps)
		h2->keeps = 1;
	sealing->patch.keeps = 1;
}

/* Which secrets request `number` has by now, if it is that of streams[which - 1]. */
static __always_inline void h2_remember_seen(const struct h1_parser *parser, struct h2_state *h2, __u32 which,
					     __u32 number)
{
	struct h2_stream *stream = &h2->streams[(which - 1) & (k_h2_streams - 1)];

	if (stream->number != number)
		return;
	stream->seen_count = parser->seen_count;
	memcpy(stream->seen, parser->seen, sizeof(stream->seen));
}

/* Decides about marker `which`. */
__noinline int h2_decide_found(struct sealing *sealing, struct h1_parser *parser, struct h2_state *h2, __u32 which)
{
	struct h1_found *found;
	__u32 edits;

	if (!sealing || !parser || !h2 || which >= k_h1_found_max)
		return 0;
	found = &sealing->scan.found[which];
	if (h2->flags & h2_bad)
		found->refused = reason_unparsable_request;
	else if (h2->flags & h2_repeats)
		found->refused = reason_second_occurrence;
	else if (h2->flags & h2_open)
		found->refused = reason_split_over_records;
	else if (found->code && found->is_huffman)
		found->refused = reason_unparsable_request;
	else if (found->entry && h2->entries[(found->entry - 1) & (k_h2_entries - 1)].secret)
		found->refused = reason_tables_full; /* one secret an entry */
	edits = sealing->patch.edit_count;
	placeholder_decide(sealing, parser, which);
	if (sealing->patch.edit_count != edits && found->entry)
		h2_keep(sealing, h2, found);
	return 0;
}

/* A header block, or what the record has of one. Returns an enum reason: a secret of the server's table is misused. */
static __always_inline int h2_decide(struct sealing *sealing, struct h1_parser *parser, struct h2_state *h2)
{
	if (h2->flags & h2_misused)
		return reason_unparsable_request;
	sealing->host = h2->host;
	sealing->host_suffix = h2->suffix;
	sealing->host_known = 1;
	if (h2->flags & h2_named_host)
		parser->flags |= h1_has_host;
	for (__u32 which = 0; which < k_h2_references_max; which++) {
		int reason;

		if (which >= h2->reference_count || (h2->flags & h2_open))
			break;
		reason = h2_judge_reference(sealing, parser, h2, which);
		if (reason) {
			h2->misused = h2->references[which].secret;
			return reason;
		}
	}
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		if (which >= sealing->scan.found_count)
			break;
		h2_decide_found(sealing, parser, h2, which);
	}
	sealing->scan.found_count = 0;
	/* Trailers begin to count anew, and must not for the body. */
	if (!(h2->flags & (h2_open | h2_bad)))
		h2_remember_seen(parser, h2, h2->stream_count, h2->stream);
	return reason_none;
}

/* Markers in a body, by the request that it belongs to. */
__noinline int h2_decide_data(struct sealing *sealing, struct h1_parser *parser, struct h2_state *h2)
{
	const struct h2_stream *stream;

	if (!sealing || !parser || !h2)
		return 0;
	stream = &h2->streams[(h2->body - 1) & (k_h2_streams - 1)];
	parser->flags = 0;
	parser->seen_count = 0;
	if (h2->body) {
		sealing->host = stream->host;
		sealing->host_suffix = stream->suffix;
		sealing->host_known = 1;
		parser->flags = h1_has_host;
		parser->seen_count = stream->seen_count;
		memcpy(parser->seen, stream->seen, sizeof(parser->seen));
	}
	for (__u32 which = 0; which < k_h1_found_max; which++) {
		if (which >= sealing->scan.found_count)
			break;
		if (!h2->body)
			sealing->scan.found[which].refused = reason_unparsable_request;
		placeholder_decide(sealing, parser, which);
	}
	sealing->scan.found_count = 0;
	if (h2->body)
		h2_remember_seen(parser, h2, h2->body, stream->number);
	return 0;
}

/* What the record's end has left undecided: a piece of a header block, or of a body. */
static __always_inline int h2_decide_rest(struct sealing *sealing, struct h1_parser *parser, struct h2_state *h2)
{
	if (parser->state != h1_http2_body)
		return h2_decide(sealing, parser, h2);
	h2_decide_data(sealing, parser, h2);
	return reason_none;
}

/*
 * Follows the requests. Returns an enum reason if the rest of the connection cannot be vouched for: then nothing of this
 * record is replaced, and it is not published, so that the wire side takes it for unheard.
 */
__noinline int parse_http2(struct sealing *sealing, struct h1_parser *parser)
{
	struct h2_state *h2;
	int reason = reason_none;

	if (!sealing || !parser)
		return reason_unparsable_request;
	h2 = h2_find(sealing->serial);
	if (!h2)
		h2 = h2_make(sealing->serial, sealing->key.workload);
	if (!h2)
		return reason_tables_full;
	h2->used_ns = bpf_ktime_get_ns();
	sealing->patch.protocol = protocol_http_2;
	h2_begin(h2);
	for (__u32 i = 0; i < k_h2_stops_max; i++) {
		int stop = h2_parse(parser, &sealing->scan, h2);

		if (stop == h2_goes_on)
			break;
		h2->stop = h2_goes_on;
		if (stop == h2_stop_host)
			h2_name_host(sealing, parser, h2);
		else if (stop == h2_stop_data)
			h2_decide_data(sealing, parser, h2);
		else
			reason = h2_decide(sealing, parser, h2);
		if (reason)
			break;
	}
	if (!reason && !h1_is_http2(parser->state))
		reason = reason_unparsable_request;
	if (!reason && sealing->scan.position < sealing->scan.end)
		reason = reason_tables_full;
	if (!reason && sealing->scan.found_count)
		reason = h2_decide_rest(sealing, parser, h2);
	if (!reason && !sealing->scan.reads_bodies) {
		h1_search_body(&sealing->scan);
		for (__u32 which = 0; which < k_h1_found_max; which++) {
			if (which >= sealing->scan.found_count)
				break;
			placeholder_decide(sealing, parser, which);
		}
	}
	if (sealing->scan.found_lost && !sealing->refused)
		sealing->refused = reason_tables_full;
	if (reason) {
		memset(&sealing->refusal, 0, sizeof(sealing->refusal));
		sealing->refusal.secret = h2->misused;
		h2_forget(sealing->serial, sealing->key.workload);
	}
	return reason;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Walks the new bytes of a packet through the flow's record layer. One flat loop whose every turn does one bounded piece
 * of work: a packet may hold hundreds of records, a record may lie in hundreds of packets, and any of them may be cut
 * anywhere. bpf_loop callbacks do not nest well before 6.7, so no turn loops.
 */
#pragma once

#include "../tls/client_hello.h"
#include "record.h"
#include "walk.h"

struct stream {
	struct __sk_buff *skb;
	struct flow *flow;
	struct walk *walk;
};

/* The next bytes of the record at hand stand in flow.carry if its fingerprint was read ahead, else in the packet. */
static __always_inline bool stream_in_carry(const struct flow *flow)
{
	return flow->at < flow->carry_have;
}

static __always_inline void stream_advance(struct flow *flow, struct walk *walk, __u32 bytes)
{
	if (!stream_in_carry(flow))
		walk->at += bytes;
	flow->at += bytes;
}

static __always_inline int stream_byte(struct __sk_buff *skb, struct flow *flow, struct walk *walk, __u8 *byte)
{
	if (stream_in_carry(flow))
		*byte = flow->carry[flow->at & 31];
	else if (bpf_skb_load_bytes(skb, walk->at, byte, 1))
		return -1;
	stream_advance(flow, walk, 1);
	return 0;
}

/* Bytes of the packet that the kernel does not give: what they are is not known, so the packet must not leave. */
static __always_inline int stream_unread(struct walk *walk)
{
	walk->flags |= walk_unread;
	return 1;
}

/* Reads on in header or fingerprint. */
static __always_inline int stream_carry(struct __sk_buff *skb, struct flow *flow, struct walk *walk, __u32 left)
{
	__u32 have = flow->carry_have;

	if (!have && left >= k_header_bytes) {
		if (bpf_skb_load_bytes(skb, walk->at, flow->carry, k_header_bytes))
			return -1;
		have = k_header_bytes;
		walk->at += k_header_bytes;
	} else if (have == k_header_bytes && flow->carry_need == k_carry_bytes &&
		   left >= k_carry_bytes - k_header_bytes) {
		if (bpf_skb_load_bytes(skb, walk->at, flow->carry + k_header_bytes, k_carry_bytes - k_header_bytes))
			return -1;
		have = k_carry_bytes;
		walk->at += k_carry_bytes - k_header_bytes;
	} else {
		if (bpf_skb_load_bytes(skb, walk->at, &flow->carry[have & 31], 1))
			return -1;
		have++;
		walk->at++;
	}
	flow->carry_have = have;
	if (have == k_header_bytes)
		flow->fragment = big_endian_16(flow->carry + 3);
	return 0;
}

/* The flow's bytes make no sense as TLS records: from here on they are passed, and looked at only to report. */
static __always_inline void stream_loosen(struct flow *flow, enum reason reason)
{
	flow->state = flow_loose;
	if (!flow->closed)
		flow->closed = reason;
	record_lose(flow); /* which may end the flow instead */
	flow->kind = record_header;
	flow->carry_have = 0;
	flow->carry_need = k_header_bytes;
	flow->at = 0;
}

/* Goes back to where the record at hand begins in this packet; what stands before it in this packet comes again. */
static __always_inline void stream_hold(struct flow *flow, struct walk *walk)
{
	walk->flags |= walk_held;
	walk->at = walk->record_at;
	flow->kind = record_header;
	flow->at = 0;
	flow->carry_have = walk->carry_before;
	if (flow->carry_have < k_header_bytes)
		flow->carry_need = k_header_bytes;
}

__noinline int stream_header(struct __sk_buff *skb, struct flow *flow)
{
	struct walk *walk = walk_get();
	__u32 wanted;
	int result;

	if (!flow || !walk)
		return 1;
	if (!flow->carry_have) {
		flow->carry_need = k_header_bytes;
		flow->record = walk_sequence(walk, walk->at);
		walk->record_at = walk->at;
		walk->carry_before = 0;
	}
	if (flow->carry_have < flow->carry_need) {
		if (walk->at >= walk->end)
			return 1;
		if (stream_carry(skb, flow, walk, walk->end - walk->at))
			return stream_unread(walk);
		if (flow->carry_have < flow->carry_need)
			return 0;
	}
	wanted = flow->fragment < k_carry_bytes - k_header_bytes ? flow->fragment + k_header_bytes : k_carry_bytes;
	if (flow->carry_need == k_header_bytes && record_plausible(flow) && record_wants_fingerprint(flow)) {
		flow->carry_need = wanted;
		if (flow->carry_have < wanted)
			return 0;
	}
	result = record_identify(flow);
	if (result == record_hold) {
		stream_hold(flow, walk);
		return 1;
	}
	if (result == record_more) {
		flow->kind = record_header;
		flow->carry_need = wanted;
		return 0;
	}
	if (result == record_broken) {
		/* A flow that does not begin with a handshake record is no TLS (RFC 8446 5.1). */
		stream_loosen(flow, flow->phase == phase_hello && !(flow->flags & flow_hello_seen) ?
					    reason_no_sni :
					    reason_unproven_flow);
		return 1;
	}
	flow->at = k_header_bytes;
	return 0;
}

/* A message in the clear is complete. */
__noinline int stream_message(struct flow *flow, struct hello *hello)
{
	struct walk *walk = walk_get();
	enum flow_sni sni = sni_none;
	__u64 host = 0, parent = 0;

	if (!flow || !hello || !walk)
		return 0;
	if (!(hello->flags & hello_is_client_hello)) {
		flow->flags |= flow_other_message;
		return 0;
	}
	if (hello->flags & hello_unusable) {
		sni = sni_unusable;
	} else if (hello->flags & hello_has_name) {
		sni = sni_name;
		host = siphash_name((const struct dns_name *)hello->name, hello->name_length);
		if (hello->name_dot)
			parent = siphash_name((const struct dns_name *)hello->parent,
					      hello->name_length - hello->name_dot);
	}
	if (hello->flags & hello_has_ech)
		sni = sni_encrypted;
	if (hello->flags & hello_has_early_data)
		flow->flags |= flow_early_data;
	/* After a HelloRetryRequest nothing about the name may change (RFC 8446 4.1.2). */
	if ((flow->flags & flow_hello_seen) && (flow->sni != sni || flow->host != host))
		flow->closed = reason_unproven_flow;
	flow->flags |= flow_hello_seen;
	flow->sni = sni;
	flow->host = host;
	flow->parent = parent;
	if (sni != sni_name)
		return 0;
	walk->host_name.length = hello->name_length;
	memcpy(walk->host_name.text, hello->name, sizeof(walk->host_name.text));
	host_name_keep(host, &walk->host_name);
	/* Secret 0: some secret allows this host. Ask at once, so that the verdict is there before the first request. */
	if (!verdict_destination(flow, 0) && verdict_attested(flow) == verdict_hold)
		report_attest(flow, 0, walk->attest);
	return 0;
}

__noinline int stream_hello(struct __sk_buff *skb, struct flow *flow, __u32 left)
{
	struct walk *walk = walk_get();
	struct hello *hello;
	__u32 zero = 0;
	__u8 byte = 0;

	if (!flow || !walk)
		return 1;
	hello = hello_find(flow->serial);
	if (!hello) {
		struct hello *empty = bpf_map_lookup_elem(&empty_hello, &zero);

		if (!empty || !hello_make(flow->serial, walk->key.workload, empty)) {
			count(counter_flows_full);
			stream_loosen(flow, reason_tables_full);
			return 1;
		}
		return 0;
	}
	if (hello->skip) {
		__u32 bytes = hello->skip < left ? hello->skip : left;

		hello_skip(hello, bytes);
		stream_advance(flow, walk, bytes);
	} else {
		if (stream_byte(skb, flow, walk, &byte))
			return stream_unread(walk);
		hello_byte(hello, byte);
	}
	if (hello->flags & hello_complete) {
		stream_message(flow, hello);
		hello_delete(flow->serial, walk->key.workload);
	}
	return 0;
}

/* Feeds the record's hash: the blocks that its mark names, the last one zero-padded. */
__noinline int stream_hash(struct __sk_buff *skb, struct flow *flow, __u32 left)
{
	struct walk *walk = walk_get();
	__u32 start, position, limit, head, tail, have;
	__u64 *words;

	if (!flow || !walk)
		return 1;
	start = k_header_bytes + flow->prefix;
	words = (__u64 *)walk->bytes;
	if (flow->at < start) {
		__u32 bytes = start - flow->at;

		stream_advance(flow, walk, bytes < left ? bytes : left);
		return 0;
	}
	position = flow->at - start;
	if (position >= flow->length) { /* the tag */
		stream_advance(flow, walk, left);
		return 0;
	}
	head = flow->head_blocks * k_block_bytes;
	tail = flow->tail_block * k_block_bytes;
	limit = position < head && head < flow->length ? head : flow->length;
	if (position >= head && position < tail) {
		__u32 bytes = tail - position;

		/* A mark whose tail lies after its end fails by its hash. */
		stream_advance(flow, walk, bytes < left ? bytes : left);
		return 0;
	}
	limit -= position;
	have = position & (k_block_bytes - 1);
	if (!have && !stream_in_carry(flow)) {
		if (left >= 64 && limit >= 64) {
			if (bpf_skb_load_bytes(skb, walk->at, walk->bytes, 64))
				return stream_unread(walk);
			record_hash_words(flow, words, 8);
			stream_advance(flow, walk, 64);
			return 0;
		}
		if (left >= k_block_bytes && limit >= k_block_bytes) {
			if (bpf_skb_load_bytes(skb, walk->at, walk->bytes, k_block_bytes))
				return stream_unread(walk);
			record_hash_words(flow, words, 2);
			stream_advance(flow, walk, k_block_bytes);
			return 0;
		}
		if (limit < k_block_bytes && left >= limit) {
			/* The whole last block, which is short. */
			__u32 bytes = limit - 1;

			/* That it is not 0 the verifier learns from no comparison before 6.8. */
			asm volatile("%0 &= 15" : "+r"(bytes));
			bytes++;
			words[0] = 0;
			words[1] = 0;
			if (bpf_skb_load_bytes(skb, walk->at, walk->bytes, bytes))
				return stream_unread(walk);
			record_hash_words(flow, words, 2);
			stream_advance(flow, walk, bytes);
			return 0;
		}
	}
	/* A block that is cut by the packet's end, or that was read ahead: byte by byte. */
	if (!have)
		memset(flow->block, 0, sizeof(flow->block));
	if (stream_byte(skb, flow, walk, &flow->block[have & (k_block_bytes - 1)]))
		return stream_unread(walk);
	if (have == k_block_bytes - 1 || limit == 1) {
		memcpy(walk->bytes, flow->block, sizeof(flow->block));
		record_hash_words(flow, words, 2);
	}
	return 0;
}

/* The verifier wants to see that a callback returns 0 or 1; the compiler knows it of our functions, and shows nothing. */
static __always_inline long stream_verdict(int stop)
{
	asm volatile("" : "+r"(stop));
	return stop ? 1 : 0;
}

static long stream_step(__u32 turn, struct stream *stream)
{
	(void)turn;
	struct flow *flow = stream->flow;
	struct walk *walk = stream->walk;
	__u32 left, rest;

	if (flow->kind == record_header)
		return stream_verdict(stream_header(stream->skb, flow));
	rest = k_header_bytes + flow->fragment - flow->at;
	if (!rest) {
		record_end(flow);
		return 0;
	}
	left = stream_in_carry(flow) ? flow->carry_have - flow->at : walk->end - walk->at;
	if (!left)
		return 1;
	if (left > rest)
		left = rest;
	if (flow->kind == record_hello)
		return stream_verdict(stream_hello(stream->skb, flow, left));
	if (flow->kind == record_hash)
		return stream_verdict(stream_hash(stream->skb, flow, left));
	stream_advance(flow, walk, left);
	return 0;
}

/* Takes the bytes [walk->at, walk->end) of the packet into the flow; all but those from a held record on. */
__noinline int stream_walk(struct __sk_buff *skb, struct flow *flow)
{
	struct walk *walk = walk_get();
	struct stream stream;

	if (!flow || !walk)
		return 0;
	stream.skb = skb;
	stream.flow = flow;
	stream.walk = walk;
	walk->carry_before = flow->kind == record_header ? flow->carry_have : 0;
	walk->record_at = walk->at;
	/* Every turn takes a byte, or ends or begins a record of at least five. */
	bpf_loop(1 << 18, stream_step, &stream, 0);
	if (!(walk->flags & walk_held))
		walk->at = walk->end;
	flow->next = walk_sequence(walk, walk->at);
	return 0;
}

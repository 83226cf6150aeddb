/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* One TCP connection from SYN to its end: order of its bytes, and who may touch it. */
#pragma once

#include "apply.h"
#include "packet.h"
#include "stream.h"
#include "walk.h"

enum { k_lock_tries = 4096 };

static long flow_lock_try(__u32 turn, struct flow **flow)
{
	(void)turn;
	return !__sync_val_compare_and_swap(&(*flow)->busy, 0, 1);
}

/*
 * veth's backlog is per CPU: packets of one flow may be here on several at once. A spin lock of BPF's own forbids
 * helpers while it is held. false: the other is slower than a packet ever is; drop, TCP sends it again.
 */
static __always_inline bool flow_lock(struct flow *flow)
{
	if (!__sync_val_compare_and_swap(&flow->busy, 0, 1))
		return true;
	return bpf_loop(k_lock_tries, flow_lock_try, &flow, 0) < k_lock_tries;
}

static __always_inline void flow_unlock(struct flow *flow)
{
	__sync_lock_test_and_set(&flow->busy, 0);
}

/* Enters the flow of walk->key anew. Without room it stays unknown: nothing is substituted on it. */
static __always_inline void flow_create(struct walk *walk, enum flow_state state, enum reason closed)
{
	struct flow *flow = &walk->fresh;

	memset(flow, 0, sizeof(*flow));
	/* One CPU makes no two flows in the same nanosecond. */
	flow->serial = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
	flow->used_ns = walk->now;
	flow->next = walk->sequence;
	flow->carry_need = k_header_bytes;
	flow->state = state;
	flow->closed = closed;
	if (state == flow_loose)
		flow->phase = phase_lost;
	if (walk->flags & walk_ipv4)
		flow->flags = flow_ipv4;
	if (bpf_map_update_elem(&flows, &walk->key, flow, BPF_ANY))
		count(counter_flows_full);
}

/* The workload opens a connection. false: drop. */
static __always_inline bool flow_open(struct walk *walk, struct flow *flow)
{
	enum reason closed = walk->flags & walk_socket ? reason_none : reason_unproven_flow;

	if (flow) {
		/* A SYN that is sent again. */
		if (flow->state == flow_tracked && flow->next == walk->sequence && !flow->carry_have && !flow->flags)
			return true;
		/* A SYN out of nowhere would make us forget what must not pass unpatched. */
		if (flow->outstanding && closed)
			return false;
		if (!flow_lock(flow))
			return false;
		outstanding_clear(flow);
		hello_delete(flow->serial);
		/* Not unlocked: the entry is replaced. */
	}
	flow_create(walk, flow_tracked, closed);
	return true;
}

/*
 * Bytes that the peer has acknowledged, and that have left patched: this copy was on its way when the acknowledgement
 * came, its patch is gone, and nobody needs it. A keep-alive probe of one byte (RFC 9293 3.8.4) is needed, but not what
 * is in it. false: drop.
 */
static __always_inline bool flow_stale(struct __sk_buff *skb, struct flow *flow, struct walk *walk)
{
	__u8 before = 0, after = 0;
	__u32 odd;

	if (!(flow->flags & flow_has_freed))
		return true;
	/* Half of the number space later, "before" would mean its opposite. */
	if (flow->next - flow->freed > 1u << 30) {
		flow->flags &= ~flow_has_freed;
		return true;
	}
	if (!sequence_before(walk->sequence, flow->freed))
		return true;
	if (walk->length > 1)
		return false;
	odd = 0;
	if (bpf_skb_load_bytes(skb, walk->payload, &before, 1) || bpf_skb_store_bytes(skb, walk->payload, &after, 1, 0))
		return false;
	checksum_add(walk, checksum_change(before, after), odd);
	return !checksum_store(skb, walk);
}

/* A segment with payload, or FIN, of a flow that is ours for the moment. false: drop. */
static __always_inline bool flow_segment(struct __sk_buff *skb, struct flow *flow, struct walk *walk)
{
	__s32 seen = flow->next - walk->sequence; /* bytes of this segment that have been seen before */

	if (flow->state == flow_dead)
		return false;
	if (!(walk->flags & walk_socket)) {
		if (flow->outstanding)
			return false;
		if (!flow->closed)
			flow->closed = reason_unproven_flow;
	}
	if (!flow_stale(skb, flow, walk))
		return false;
	if (flow->state == flow_loose) {
		/* Any segment may begin with a record: no proof hangs on it. */
		if (seen) {
			flow->kind = record_header;
			flow->carry_have = 0;
			flow->at = 0;
		}
		stream_walk(skb, flow);
	} else if (flow->state == flow_tracked && seen < (__s32)walk->length) {
		if (seen < 0) {
			/* A segment before this one is missing. In order only, or nothing is known: TCP sends both again. */
			count(counter_segments_held);
			return false;
		}
		walk->at = walk->payload + seen;
		stream_walk(skb, flow);
		if (walk->flags & walk_held)
			return false;
	}
	if (!apply_all(skb, flow, walk)) {
		count(counter_segments_dropped);
		return false;
	}
	return true;
}

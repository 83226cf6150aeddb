/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* One TCP connection from SYN to its end: order of its bytes, and who may touch it. */
#pragma once

#include "apply.h"
#include "packet.h"
#include "shared.h"
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

/*
 * Enters the flow of walk->key, or begins a known one anew. Without room it stays unknown: nothing is substituted on it.
 * A known entry is overwritten where it lies: what is replaced in the map may be another flow's entry at once
 * (bpf_mem_alloc, 6.1), while another CPU still holds a pointer to it.
 */
static __always_inline void flow_begin(struct walk *walk, struct flow *known, enum flow_state state, enum reason closed)
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
	if (known) {
		flow->busy = 1;
		*known = *flow;
	} else if (!share_take(walk->key.workload, table_flows, 1)) {
		count(counter_flows_full);
	} else if (bpf_map_update_elem(&flows, &walk->key, flow, BPF_NOEXIST)) {
		share_give(walk->key.workload, table_flows, 1);
		count(counter_flows_full);
	}
}

/* Begins anew what may be known. false: drop. */
static __always_inline bool flow_restart(struct walk *walk, struct flow *flow, enum flow_state state,
					 enum reason closed)
{
	if (flow) {
		if (!flow_lock(flow))
			return false;
		outstanding_clear(flow);
		hello_delete(flow->serial, walk->key.workload);
	}
	flow_begin(walk, flow, state, closed);
	if (flow)
		flow_unlock(flow);
	return true;
}

/* The workload opens a connection. false: drop. */
static __always_inline bool flow_open(struct walk *walk, struct flow *flow)
{
	enum reason closed = walk->flags & walk_socket ? reason_none : reason_unproven_flow;

	/* A SYN that is sent again. */
	if (flow && flow->state == flow_tracked && flow->next == walk->sequence && !flow->carry_have &&
	    !(flow->flags & ~(flow_ipv4 | flow_answered)))
		return true;
	/* A SYN out of nowhere would make us forget what must not pass unpatched. */
	if (flow && (flow->outstanding || (flow->flags & flow_keeps_secret)) && closed)
		return false;
	return flow_restart(walk, flow, flow_tracked, closed);
}

/*
 * The peer answers a SYN: with an acknowledgement alone if to it the old connection lives on (RFC 5961 4). What came
 * from the workload itself is no answer. false: drop.
 */
static __always_inline bool flow_answer(struct __sk_buff *skb, struct flow *flow, const struct walk *walk)
{
	if (skb->ingress_ifindex == skb->ifindex)
		return true;
	if (!flow_lock(flow))
		return false;
	/* More than the SYN itself has been acknowledged if it carried data. */
	if (flow->next - walk->acknowledged <= 0xffff)
		flow->flags |= flow_answered;
	flow_unlock(flow);
	return true;
}

struct wipe {
	struct __sk_buff *skb;
	struct walk *walk;
	__u32 bytes;
	__u32 failed;
};

static long flow_wipe_step(__u32 window, struct wipe *wipe)
{
	struct walk *walk = wipe->walk;
	__u32 at = window * k_region_chunk_bytes, size;
	const __u64 *before = (const __u64 *)walk->before;
	__u64 change = 0;

	if (at >= wipe->bytes)
		return 1;
	size = wipe->bytes - at < k_region_chunk_bytes ? wipe->bytes - at : k_region_chunk_bytes;
	size = apply_bound(size);
	memset(walk->before, 0, k_region_chunk_bytes);
	memset(walk->after, 0, k_region_chunk_bytes);
	if (bpf_skb_load_bytes(wipe->skb, walk->payload + at, walk->before, size) ||
	    bpf_skb_store_bytes(wipe->skb, walk->payload + at, walk->after, size, 0)) {
		wipe->failed = 1;
		return 1;
	}
	for (int i = 0; i < k_window_words; i++)
		change += checksum_change(before[i], 0);
	checksum_add(walk, change, false);
	walk->flags |= walk_altered;
	return 0;
}

/*
 * Bytes that the peer has acknowledged, and that have left patched: this copy was on its way when the acknowledgement
 * came, or the acknowledgement was lost, or it is a keep-alive probe (RFC 9293 3.8.4). Its patch is gone. The peer wants
 * to see it, to acknowledge once more, but not what is in it. false: drop.
 */
__noinline int flow_wipe_stale(struct __sk_buff *skb, struct flow *flow)
{
	struct walk *walk = walk_get();
	struct wipe wipe = {};

	if (!flow || !walk)
		return false;
	wipe.bytes = flow->freed - walk->sequence;
	if (wipe.bytes > walk->length)
		wipe.bytes = walk->length;
	wipe.skb = skb;
	wipe.walk = walk;
	bpf_loop(wipe.bytes / k_region_chunk_bytes + 1, flow_wipe_step, &wipe, 0);
	return !wipe.failed;
}

/* Does the packet begin with such bytes? */
static __always_inline bool flow_is_stale(struct flow *flow, const struct walk *walk)
{
	if (!(flow->flags & flow_has_freed))
		return false;
	/*
	 * Half of the number space later, "before" would mean its opposite. Signed: the end of the last packet, which is
	 * what `next` is in a loose flow, may lie before.
	 */
	if ((__s32)(flow->next - flow->freed) > 1 << 30) {
		flow->flags &= ~flow_has_freed;
		return false;
	}
	return sequence_before(walk->sequence, flow->freed);
}

/*
 * The packet at hand could not be read to its end. It comes again; but how far the walk has come in it cannot be taken
 * back, so nothing is proven on this flow from here on. Always false: drop.
 */
static __always_inline bool flow_unread(struct flow *flow, __u32 next)
{
	if (!flow->closed)
		report_flow(flow, protocol_unknown);
	stream_loosen(flow, reason_unproven_flow);
	flow->next = next;
	count(counter_segments_dropped);
	return false;
}

/* A segment with payload, or FIN, of a flow that is ours for the moment. false: drop. */
static __always_inline bool flow_segment(struct __sk_buff *skb, struct flow *flow, struct walk *walk)
{
	__u32 next = flow->next;
	__s32 seen = next - walk->sequence; /* bytes of this segment that have been seen before */

	if (flow->state == flow_dead)
		return false;
	if (!(walk->flags & walk_socket)) {
		if (flow->outstanding || (flow->flags & flow_keeps_secret))
			return false;
		if (!flow->closed)
			flow->closed = reason_unproven_flow;
	}
	/* What can still change may be another record when TCP repeats it, and what is read of an urgent one is not this. */
	if ((flow->flags & flow_keeps_secret) && ((walk->tcp_flags & tcp_urgent) || packet_shares_memory(skb)))
		return false;
	/* Most receivers take an urgent byte out of the stream (RFC 6093 2.2): what they read is not what we follow. */
	if ((walk->tcp_flags & tcp_urgent) && !flow->closed)
		flow->closed = reason_unproven_flow;
	if (flow_is_stale(flow, walk) && !flow_wipe_stale(skb, flow))
		return false;
	if (flow->state == flow_loose && flow->outstanding) {
		/* A record that is still patched must not be found again, and be refused for what the flow has become. */
		if (seen < (__s32)walk->length)
			flow->next = walk_sequence(walk, walk->end);
	} else if (flow->state == flow_loose) {
		/* Any segment may begin with a record: no proof hangs on it. */
		if (seen) {
			flow->kind = record_header;
			flow->carry_have = 0;
			flow->at = 0;
		}
		stream_walk(skb, flow);
		if (walk->flags & walk_unread)
			return flow_unread(flow, next);
	} else if (flow->state == flow_tracked && seen < (__s32)walk->length) {
		if (seen < 0) {
			/* A segment before this one is missing. In order only, or nothing is known: TCP sends both again. */
			count(counter_segments_early);
			return false;
		}
		/* Proof 3: a record that has passed is not to become another one when TCP repeats it. */
		if (!flow->closed && packet_shares_memory(skb))
			flow->closed = reason_unproven_flow;
		walk->at = walk->payload + seen;
		stream_walk(skb, flow);
		if (walk->flags & walk_unread)
			return flow_unread(flow, next);
		if (walk->flags & walk_held)
			return false;
		/* The record whose proof has failed ends in this segment: without its tag the server has none of it. */
		if (flow->state == flow_dead) {
			count(counter_segments_dropped);
			report_flow(flow, protocol_http_2); /* see flow_keeps_secret */
			return false;
		}
	}
	if (!apply_all(skb, flow, walk)) {
		count(counter_segments_dropped);
		return false;
	}
	return true;
}

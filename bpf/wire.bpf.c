// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The wire side: tc programs on the host's end of a workload's veth. wire_egress (at its ingress) sees all that the
 * workload sends, wire_return (at its egress) what comes back. A packet leaves as it came, patched, or not at all.
 */
#include "core.h"
#include "maps/events.h"
#include "maps/interfaces.h"
#include "wire/flow.h"
#include "wire/packet.h"
#include "wire/walk.h"

#include <linux/pkt_cls.h>

/* Not TC_ACT_OK, which ends the chain: what others have attached here, a CNI's policy perhaps, comes after us. */
enum { wire_pass = TC_ACT_UNSPEC, wire_drop = TC_ACT_SHOT };

/*
 * The interface's workload, or 0: not ours, pass. When the agent is gone and its lease has run out nothing passes at
 * all, so that what was revoked meanwhile is not used: *expired.
 */
static __always_inline __u32 wire_workload(const struct __sk_buff *skb, bool *expired)
{
	const struct interface *interface = interface_find(skb->ifindex);

	*expired = false;
	if (!interface)
		return 0;
	if (interface->lease_ns && bpf_ktime_get_ns() > interface->lease_ns) {
		count(counter_lease_expired);
		*expired = true;
	}
	return interface->workload;
}

/*
 * Fragments show no records. A first one tells its flow: if it may carry a copy of bytes that have left patched it is
 * dropped, else the flow takes no substitution from here on. Later ones follow the first, up to the last: then the
 * identification may be another datagram's.
 */
static __always_inline int wire_fragment(struct walk *walk, struct flow *flow)
{
	__u8 passed = 1;

	walk->fragment.workload = walk->key.workload;
	memcpy(walk->fragment.source, walk->key.source, sizeof(walk->fragment.source));
	memcpy(walk->fragment.destination, walk->key.destination, sizeof(walk->fragment.destination));
	if (!flow)
		flow = flow_find(&walk->key);
	if (flow) {
		if (!flow_lock(flow))
			return wire_drop;
		if (flow->outstanding || flow->state == flow_dead || (flow->flags & flow_keeps_secret) ||
		    flow_is_stale(flow, walk)) {
			flow_unlock(flow);
			bpf_map_delete_elem(&fragments, &walk->fragment);
			count(counter_segments_dropped);
			return wire_drop;
		}
		stream_loosen(flow, reason_unproven_flow);
		flow_unlock(flow);
	}
	bpf_map_update_elem(&fragments, &walk->fragment, &passed, BPF_ANY);
	return wire_pass;
}

static __always_inline int wire_later_fragment(struct walk *walk)
{
	walk->fragment.workload = walk->key.workload;
	memcpy(walk->fragment.source, walk->key.source, sizeof(walk->fragment.source));
	memcpy(walk->fragment.destination, walk->key.destination, sizeof(walk->fragment.destination));
	if (!bpf_map_lookup_elem(&fragments, &walk->fragment))
		return wire_drop;
	if (walk->last_fragment)
		bpf_map_delete_elem(&fragments, &walk->fragment);
	return wire_pass;
}

SEC("tc")
int wire_egress(struct __sk_buff *skb)
{
	struct walk *walk = walk_get();
	struct flow *flow;
	bool expired, pass;
	__u32 workload = wire_workload(skb, &expired);

	if (expired || !walk)
		return wire_drop;
	if (!workload)
		return wire_pass;
	walk->key.workload = workload;
	switch (packet_parse(skb, walk)) {
	case packet_tcp:
		break;
	case packet_rest:
		return wire_later_fragment(walk);
	case packet_broken:
		count(counter_segments_dropped);
		return wire_drop;
	default:
		return wire_pass;
	}
	/* The coarse clock is a tick behind at most, and costs a load. */
	walk->now = bpf_ktime_get_coarse_ns();
	flow = flow_find(&walk->key);
	if (walk->fragmented)
		return wire_fragment(walk, flow);
	if (walk->tcp_flags & tcp_syn) {
		if (walk->tcp_flags & tcp_ack) {
			/* The workload is the server: no ClientHello of its own will come. */
			if (flow && flow->outstanding)
				return wire_drop;
			if (flow && flow->state == flow_opaque)
				return wire_pass;
			return flow_restart(walk, flow, flow_opaque, reason_none) ? wire_pass : wire_drop;
		}
		if (packet_from_socket(skb, walk))
			walk->flags |= walk_socket;
		if (!flow_open(walk, flow))
			return wire_drop;
		if (!walk->length)
			return wire_pass;
		flow = flow_find(&walk->key); /* data in the SYN (RFC 7413) */
	}
	if (!flow) {
		if (!walk->length)
			return wire_pass;
		flow_begin(walk, NULL, flow_loose, reason_flow_older_than_agent);
		flow = flow_find(&walk->key);
		if (!flow) {
			report_no_flow(skb);
			return wire_pass;
		}
	}
	flow->used_ns = walk->now;
	if (flow->state == flow_opaque)
		return wire_pass;
	if (!walk->length && !(walk->tcp_flags & (tcp_fin | tcp_rst)))
		return wire_pass;
	if (!flow_lock(flow)) {
		count(counter_segments_dropped);
		return wire_drop;
	}
	if (walk->tcp_flags & (tcp_fin | tcp_rst))
		flow->closing |= closing_workload;
	pass = true;
	if (walk->tcp_flags & tcp_rst) {
		/* A socket sends nothing more; whatever else may come from this address and port does not pass. */
		outstanding_clear(flow);
		flow->state = flow_dead;
		pass = !walk->length; /* nor with it: its text (RFC 9293 3.10.7) may be a copy of patched bytes */
	} else if (walk->length) {
		if (packet_from_socket(skb, walk))
			walk->flags |= walk_socket;
		pass = flow_segment(skb, flow, walk);
	}
	flow_unlock(flow);
	return pass ? wire_pass : wire_drop;
}

SEC("tc")
int wire_return(struct __sk_buff *skb)
{
	struct walk *walk = walk_get();
	struct flow_key *key;
	struct flow *flow;
	bool expired;
	__u32 workload = wire_workload(skb, &expired);

	if (expired || !walk)
		return wire_drop;
	if (!workload)
		return wire_pass;
	if (packet_parse(skb, walk) != packet_tcp || !(walk->tcp_flags & (tcp_ack | tcp_rst)))
		return wire_pass;
	/* As the workload sees it. */
	key = &walk->fresh_key;
	key->workload = workload;
	key->source_port = walk->key.destination_port;
	key->destination_port = walk->key.source_port;
	memcpy(key->source, walk->key.destination, sizeof(key->source));
	memcpy(key->destination, walk->key.source, sizeof(key->destination));
	flow = flow_find(key);
	if (!flow || flow->state == flow_opaque)
		return wire_pass;
	flow->used_ns = bpf_ktime_get_coarse_ns();
	/* Only a hint for the sweep: a reset that the workload's stack refuses ends nothing. */
	if (walk->tcp_flags & (tcp_fin | tcp_rst))
		flow->closing |= closing_peer;
	if ((walk->tcp_flags & tcp_syn) && (walk->tcp_flags & tcp_ack) && !flow_answer(skb, flow, walk))
		return wire_drop;
	if (!flow->outstanding || !(walk->tcp_flags & tcp_ack))
		return wire_pass;
	/* Without the lock: the next acknowledgement covers this one. */
	if (!flow_lock(flow))
		return wire_pass;
	/* Nobody has received what has not been sent; a FIN takes one number more. */
	if (!sequence_before(flow->next + 1, walk->acknowledged))
		outstanding_acknowledge(flow, walk->acknowledged);
	flow_unlock(flow);
	return wire_pass;
}

KLOAK_LICENSE;

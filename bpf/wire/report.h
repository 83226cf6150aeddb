/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Events of the wire side: what was substituted, what was not and why, and whom to attest. */
#pragma once

#include "../maps/events.h"
#include "../maps/keys.h"
#include "../maps/patches.h"
#include "walk.h"

static __always_inline void report_destination(struct event *event, const struct walk *walk, const struct flow *flow)
{
	const struct host_name *name;

	event->workload = walk->key.workload;
	memcpy(event->address, walk->key.destination, sizeof(event->address));
	event->port = walk->key.destination_port;
	event->ipv4 = !!(flow->flags & flow_ipv4);
	if (!flow->host)
		return;
	name = host_name_find(flow->host);
	if (!name)
		return;
	event->host_length = name->length;
	memcpy(event->host, name->text, sizeof(name->text));
}

static __always_inline void report_edit(struct event *event, const struct patch *patch, __u32 which)
{
	const struct edit *edit = &patch->edits[which & (k_edits_max - 1)];

	event->secret = edit->secret;
	event->process = patch->process;
	memcpy(event->command, patch->command, sizeof(event->command));
	event->slot = edit->slot;
	event->encoding = edit->encoding;
	event->protocol = patch->protocol;
	event->version = patch->version;
	event->algorithm = patch->algorithm;
	event->stack = patch->stack;
	event->header = edit->header;
}

/* kind: event_substituted or event_refused. */
__noinline int report_patch(struct flow *flow, struct patch *patch, __u32 kind, __u32 reason, __u32 which)
{
	struct walk *walk = walk_get();
	struct event *event;

	if (!flow || !patch || !walk)
		return -1;
	event = event_reserve(kind);
	if (!event)
		return -1;
	report_destination(event, walk, flow);
	report_edit(event, patch, which);
	event->reason = reason;
	event->attest = walk->attest;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* A connection that there is no room for begins with TLS: nothing is substituted on it, whatever it holds. */
__noinline int report_no_flow(struct __sk_buff *skb)
{
	struct walk *walk = walk_get();
	struct event *event;
	__u8 start[6]; /* a record's header, and the type of a handshake message (RFC 8446 4, 5.1) */

	if (!walk || walk->length < sizeof(start) || bpf_skb_load_bytes(skb, walk->payload, start, sizeof(start)) ||
	    start[0] != 22 || start[1] != 3 || start[5] != k_message_client_hello)
		return -1;
	event = event_reserve(event_refused);
	if (!event)
		return -1;
	event->workload = walk->key.workload;
	memcpy(event->address, walk->key.destination, sizeof(event->address));
	event->port = walk->key.destination_port;
	event->ipv4 = !!(walk->flags & walk_ipv4);
	event->reason = reason_tables_full;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Of a flow as a whole, whatever placeholders may be in it: nothing is proven on it, or nothing leaves on it, any more. */
__noinline int report_flow(struct flow *flow, __u32 protocol)
{
	struct walk *walk = walk_get();
	struct event *event;

	if (!flow || !walk)
		return -1;
	event = event_reserve(event_refused);
	if (!event)
		return -1;
	report_destination(event, walk, flow);
	event->reason = reason_unproven_flow;
	event->protocol = protocol;
	event->version = flow->version;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Asks the agent whether the flow's destination is the host that it names; not more often than attest_ask_ns. */
__noinline int report_attest(struct flow *flow, __u32 secret, __u32 mode)
{
	struct walk *walk = walk_get();
	struct event *event;

	if (!flow || !walk)
		return -1;
	if (flow->asked_ns && walk->now - flow->asked_ns < attest_ask_ns)
		return 0;
	event = event_reserve(event_attest);
	if (!event)
		return -1;
	flow->asked_ns = walk->now;
	report_destination(event, walk, flow);
	event->secret = secret;
	event->attest = mode;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

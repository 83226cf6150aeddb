/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Placeholders that stay, where no patch can say so: the record has no name, or has edits of other placeholders. */
#pragma once

#include "../core.h"
#include "../maps/events.h"
#include "../maps/sealing.h"
#include "../types/record.h"

/* What is sealed in a context that there is no room for is not heard: whether it holds placeholders is not known. */
__noinline int report_no_context(__u32 workload, __u32 algorithm, __u32 stack)
{
	struct event *event = event_reserve(event_refused);

	if (!event)
		return -1;
	event->workload = workload;
	event->process = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	event->reason = reason_tables_full;
	event->algorithm = algorithm;
	event->stack = stack;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Without destination, which this side does not know. */
static __always_inline void report_refusal(const struct sealing *sealing)
{
	struct event *event = event_reserve(event_refused);

	if (!event)
		return;
	event->workload = sealing->key.workload;
	event->process = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	event->secret = sealing->refusal.secret;
	event->slot = sealing->refusal.slot;
	event->encoding = sealing->refusal.encoding;
	event->header = sealing->refusal.header;
	event->reason = sealing->refused;
	event->protocol = sealing->patch.protocol;
	event->version = sealing->patch.version;
	event->algorithm = sealing->patch.algorithm;
	event->stack = sealing->patch.stack;
	bpf_ringbuf_submit(event, 0);
}

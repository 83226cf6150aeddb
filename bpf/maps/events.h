/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

#include "../core.h"
#include "../types/event.h"

enum {
	k_events_bytes = 2 * 1024 * 1024,
	/* Left to what others wait for: a workload that has much to report must not keep another's destination unattested. */
	k_events_spare = k_events_bytes / 4,
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, k_events_bytes);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, counter_count);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1); /* uprobe programs are preemptible: a plain ++ loses */
}

/* Room for one event, zeroed, or NULL (counted as lost). Hand it on with bpf_ringbuf_submit. */
static __always_inline struct event *event_reserve(enum event_kind kind)
{
	bool waits = kind == event_attest || kind == event_exec;
	struct event *event = NULL;

	if (waits || bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) <= k_events_bytes - k_events_spare)
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(counter_events_lost);
		return NULL;
	}
	memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	return event;
}

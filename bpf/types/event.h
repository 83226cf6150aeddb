/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the kernel reports to the agent through ring buffer `events`. */
#pragma once

#include "common.h"
#include "secret.h"

enum event_kind {
	event_substituted = 1,
	event_refused = 2,
	event_attest = 3,  /* a ClientHello names a host that some secret allows, at an address without a verdict */
	event_exec = 4,    /* a process of a workload has executed a new program */
};

struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 kind;    /* enum event_kind */
	__u32 workload;
	__u32 secret;  /* 0: not known */
	__u32 process; /* 0: not known */
	char command[16];
	__u8 address[16]; /* of the destination; all zero: not known */
	__u16 port;       /* host byte order */
	__u8 reason;
	__u8 slot;
	__u8 encoding;
	__u8 protocol;
	__u8 version;
	__u8 algorithm;
	__u8 stack;
	__u8 attest;      /* enum attest_mode that allowed it */
	__u8 ipv4;        /* 1: address is IPv4-mapped because the packet was IPv4 */
	__u8 host_length; /* 0: no SNI */
	__u8 _pad[4];
	struct header_name header;
	char host[256];   /* SNI of the flow, lower case */
};

/* Map `counters`, per CPU: things too frequent or too late to report one by one. */
enum counter {
	counter_events_lost = 0,
	counter_records_sealed,
	counter_records_matched,
	counter_placeholders_seen,
	counter_memory_unreadable,
	counter_keys_full,
	counter_patches_full,
	counter_flows_full,
	counter_segments_held,
	counter_segments_early, /* dropped because one before them is missing */
	counter_segments_dropped,
	counter_patch_failed,
	counter_lease_expired,
	counter_contexts_full,
	counter_shares_exceeded, /* a workload has its share of a table: maps/shares.h */
	counter_count, /* number of the above */
};

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Who is protected: on the cipher side by network namespace, on the wire side by the host's end of its veth. */
#pragma once

#include "common.h"

/* Tables of which one workload can fill a part only: maps/shares.h. Order is free. */
enum table {
	table_flows = 0,
	table_outstanding,
	table_hellos,
	table_keys,
	table_h2_states,
	table_contexts,
	table_patches,
	table_region_chunks,
	table_fingerprints,
	table_count, /* number of the above */
};

/* Value of map `shares`, keyed by workload; 0: all of them together. */
struct share {
	/* Entries, by enum table. Below 0 for a moment when user space counts anew while entries go. */
	__s32 used[table_count];
};

/* Value of map `workloads`, keyed by the cookie of the workload's network namespace. */
struct workload {
	__u32 id; /* never 0 */
	__u32 _pad;
};

/* Value of map `interfaces`, keyed by the host-side ifindex. */
struct interface {
	__u32 workload;
	__u32 _pad;
	/* CLOCK_MONOTONIC nanoseconds after which everything is dropped (the agent died); 0: no lease, for ever. */
	__u64 lease_ns;
};

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a workload does must not stop another: of the tables that both need, it may hold half as many entries as are free.
 * One that takes what it can gets a third of a table, and then of what it leaves each other one a third at least.
 *
 * The numbers are raised where an entry is made and lowered where it is deleted. What they miss (entries that user space
 * sweeps, a failed update between the two) user space puts right by counting anew (src/dataplane/sweeper.ts), so an
 * error lasts for one sweep and does not add up.
 */
#pragma once

#include "../core.h"
#include "../types/workload.h"
#include "events.h"

/* max_entries of the maps. */
enum {
	k_flows = 100000,
	k_outstanding_max = 16384,
	k_hellos = 8192,
	k_keys = 16384,
	k_h2_states = 4096,
	k_contexts = 32768,
	k_patches = 16384,
	k_region_chunks = 32768,
	k_fingerprints = 32768,
};

static const __s32 table_entries[table_count] = {
	[table_flows] = k_flows,     [table_outstanding] = k_outstanding_max, [table_hellos] = k_hellos,
	[table_keys] = k_keys,       [table_h2_states] = k_h2_states,         [table_contexts] = k_contexts,
	[table_patches] = k_patches, [table_region_chunks] = k_region_chunks, [table_fingerprints] = k_fingerprints,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096); /* four times the workloads: entries outlive them */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* workload */
	__type(value, struct share);
} shares SEC(".maps");

/* A row of zeros: on the stack it would take what those who call need. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct share);
} blank_share SEC(".maps");

static __always_inline struct share *share_find(__u32 workload)
{
	return bpf_map_lookup_elem(&shares, &workload);
}

static __always_inline struct share *share_obtain(__u32 workload)
{
	struct share *share = share_find(workload), *blank;
	__u32 zero = 0;

	if (share)
		return share;
	blank = bpf_map_lookup_elem(&blank_share, &zero);
	if (blank)
		bpf_map_update_elem(&shares, &workload, blank, BPF_NOEXIST);
	return share_find(workload);
}

/* Takes up room for new entries of a table. 0: there is none left for this workload, and nothing has been taken. */
__noinline int share_take(__u32 workload, __u32 table, __u32 entries)
{
	struct share *share = share_obtain(workload), *all = share_obtain(0);
	__s32 used, total;

	if (!share || !all || table >= table_count)
		return 0;
	used = __sync_fetch_and_add(&share->used[table], entries) + entries;
	total = __sync_fetch_and_add(&all->used[table], entries) + entries;
	if (used * 2 <= table_entries[table] - total)
		return 1;
	__sync_fetch_and_sub(&share->used[table], entries);
	__sync_fetch_and_sub(&all->used[table], entries);
	count(counter_shares_exceeded);
	return 0;
}

/* Entries have gone. workload 0: whose is not known, which the next sweep puts right. */
__noinline int share_give(__u32 workload, __u32 table, __u32 entries)
{
	struct share *share = share_find(workload), *all = share_find(0);

	if (!workload || !share || !all || table >= table_count)
		return 0;
	__sync_fetch_and_sub(&share->used[table], entries);
	__sync_fetch_and_sub(&all->used[table], entries);
	return 0;
}

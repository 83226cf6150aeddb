/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What HTTP/2 needs beside the parser of each key: only for keys under which HTTP/2 is spoken. Not LRU, for the reason
 * that `keys` is not; entries go with their key, or by time.
 */
#pragma once

#include "../core.h"
#include "../http/h2.h"
#include "shares.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_h2_states);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* key_state.serial */
	__type(value, struct h2_state);
} h2_states SEC(".maps");

/* A state of zeros, too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct h2_state);
} blank_h2_state SEC(".maps");

static __always_inline struct h2_state *h2_find(__u64 key_serial)
{
	return bpf_map_lookup_elem(&h2_states, &key_serial);
}

/* NULL when there is no room. Not inlined, like the next: what they need of the stack is free again when they are done. */
static __noinline struct h2_state *h2_make(__u64 key_serial, __u32 workload)
{
	__u32 zero = 0;
	struct h2_state *blank = bpf_map_lookup_elem(&blank_h2_state, &zero);

	if (!blank || !share_take(workload, table_h2_states, 1))
		return NULL;
	if (bpf_map_update_elem(&h2_states, &key_serial, blank, BPF_NOEXIST)) {
		share_give(workload, table_h2_states, 1);
		return NULL;
	}
	return h2_find(key_serial);
}

static __noinline void h2_forget(__u64 key_serial, __u32 workload)
{
	if (!bpf_map_delete_elem(&h2_states, &key_serial))
		share_give(workload, table_h2_states, 1);
}

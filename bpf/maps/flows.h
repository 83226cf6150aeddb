/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the wire side remembers. None of the maps that decide what leaves is LRU: a lost entry with outstanding patches
 * would let unpatched bytes out. User space sweeps idle flows by used_ns.
 */
#pragma once

#include "../core.h"
#include "../tls/client_hello.h"
#include "../types/flow.h"
#include "shares.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_flows);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_outstanding_max);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* flow.serial */
	__type(value, struct outstanding);
} outstanding SEC(".maps");

/* Handshake messages that are not complete yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_hellos);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* flow.serial */
	__type(value, struct hello);
} hellos SEC(".maps");

/* The text of a hashed SNI, for events alone: losing one costs a name in an audit record, so LRU is right here. */
struct host_name {
	__u8 length;
	char text[255]; /* zero-padded */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* flow.host */
	__type(value, struct host_name);
} host_names SEC(".maps");

/* Fragmented TCP datagrams whose first fragment was let pass. */
struct fragment_key {
	__u32 workload;
	__u32 identification;
	__u8 source[16];
	__u8 destination[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment_key);
	__type(value, __u8);
} fragments SEC(".maps");

static __always_inline struct flow *flow_find(const struct flow_key *key)
{
	return bpf_map_lookup_elem(&flows, key);
}

/*
 * Serials and hashes by value: a flow that is the argument of a global function is no memory that 6.1 takes keys from
 * (6.2, commit d1673304097c).
 */
static __always_inline struct outstanding *outstanding_find(__u64 flow_serial)
{
	return bpf_map_lookup_elem(&outstanding, &flow_serial);
}

/* NULL when there is no room. */
static __always_inline struct outstanding *outstanding_make(__u64 flow_serial, __u32 workload,
							    const struct outstanding *empty)
{
	struct outstanding *made;

	if (!share_take(workload, table_outstanding, 1))
		return NULL;
	if (bpf_map_update_elem(&outstanding, &flow_serial, empty, BPF_NOEXIST)) {
		share_give(workload, table_outstanding, 1);
		return NULL;
	}
	made = outstanding_find(flow_serial);
	if (made)
		made->workload = workload;
	return made;
}

static __always_inline void outstanding_delete(__u64 flow_serial, __u32 workload)
{
	if (!bpf_map_delete_elem(&outstanding, &flow_serial))
		share_give(workload, table_outstanding, 1);
}

static __always_inline struct hello *hello_find(__u64 flow_serial)
{
	return bpf_map_lookup_elem(&hellos, &flow_serial);
}

/* NULL when there is no room. */
static __always_inline struct hello *hello_make(__u64 flow_serial, __u32 workload, const struct hello *empty)
{
	struct hello *made;

	if (!share_take(workload, table_hellos, 1))
		return NULL;
	if (bpf_map_update_elem(&hellos, &flow_serial, empty, BPF_NOEXIST)) {
		share_give(workload, table_hellos, 1);
		return NULL;
	}
	made = hello_find(flow_serial);
	if (made)
		made->workload = workload;
	return made;
}

static __always_inline void hello_delete(__u64 flow_serial, __u32 workload)
{
	if (!bpf_map_delete_elem(&hellos, &flow_serial))
		share_give(workload, table_hellos, 1);
}

static __always_inline const struct host_name *host_name_find(__u64 host)
{
	return bpf_map_lookup_elem(&host_names, &host);
}

static __always_inline void host_name_keep(__u64 host, const struct host_name *name)
{
	bpf_map_update_elem(&host_names, &host, name, BPF_ANY);
}

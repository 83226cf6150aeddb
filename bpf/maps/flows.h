/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the wire side remembers. None of the maps that decide what leaves is LRU: a lost entry with outstanding patches
 * would let unpatched bytes out. User space sweeps idle flows by used_ns.
 */
#pragma once

#include "../core.h"
#include "../tls/client_hello.h"
#include "../types/flow.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* flow.serial */
	__type(value, struct outstanding);
} outstanding SEC(".maps");

/* Handshake messages that are not complete yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
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

static __always_inline int outstanding_make(__u64 flow_serial, const struct outstanding *empty)
{
	return bpf_map_update_elem(&outstanding, &flow_serial, empty, BPF_NOEXIST);
}

static __always_inline void outstanding_delete(__u64 flow_serial)
{
	bpf_map_delete_elem(&outstanding, &flow_serial);
}

static __always_inline struct hello *hello_find(__u64 flow_serial)
{
	return bpf_map_lookup_elem(&hellos, &flow_serial);
}

static __always_inline int hello_make(__u64 flow_serial, const struct hello *empty)
{
	return bpf_map_update_elem(&hellos, &flow_serial, empty, BPF_NOEXIST);
}

static __always_inline void hello_delete(__u64 flow_serial)
{
	bpf_map_delete_elem(&hellos, &flow_serial);
}

static __always_inline const struct host_name *host_name_find(__u64 host)
{
	return bpf_map_lookup_elem(&host_names, &host);
}

static __always_inline void host_name_keep(__u64 host, const struct host_name *name)
{
	bpf_map_update_elem(&host_names, &host, name, BPF_ANY);
}

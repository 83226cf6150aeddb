/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

#include "../core.h"
#include "../types/secret.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct host_key);
	__type(value, struct host_rule);
} hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, struct host_rule);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct attestation_key);
	__type(value, struct attestation);
} attestations SEC(".maps");

static __always_inline const struct host_rule *host_find(const struct host_key *key)
{
	return bpf_map_lookup_elem(&hosts, key);
}

static __always_inline const struct host_rule *network_find(const struct network_key *key)
{
	return bpf_map_lookup_elem(&networks, key);
}

static __always_inline const struct attestation *attestation_find(const struct attestation_key *key)
{
	return bpf_map_lookup_elem(&attestations, key);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

#include "../core.h"
#include "../types/secret.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct token_key);
	__type(value, __u32); /* number of the secret */
} tokens SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct secret);
} secrets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct secret_chunk_key);
	__type(value, struct secret_chunk);
} secret_chunks SEC(".maps");

/* Workloads with a secret that may stand in a body: their bodies are read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* of the workload */
	__type(value, __u32); /* 1 */
} body_readers SEC(".maps");

static __always_inline bool body_is_slot(__u32 workload)
{
	return bpf_map_lookup_elem(&body_readers, &workload) != NULL;
}

static __always_inline __u32 token_find(const struct token_key *key)
{
	__u32 *secret = bpf_map_lookup_elem(&tokens, key);

	return secret ? *secret : 0;
}

static __always_inline const struct secret *secret_find(__u32 number)
{
	return bpf_map_lookup_elem(&secrets, &number);
}

static __always_inline const struct secret_chunk *secret_chunk_find(const struct secret_chunk_key *key)
{
	return bpf_map_lookup_elem(&secret_chunks, key);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From the cipher side to the wire side. Entries are made by the first, and deleted by the second or by time. */
#pragma once

#include "../core.h"
#include "../types/record.h"
#include "shares.h"

struct fingerprint {
	__u8 bytes[k_fingerprint_bytes];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_fingerprints);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct fingerprint);
	__type(value, struct sighting);
} fingerprints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_patches);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct patch_key);
	__type(value, struct patch);
} patches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_region_chunks);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct patch_key);
	__type(value, struct region_chunk);
} region_chunks SEC(".maps");

static __always_inline const struct sighting *sighting_find(const struct fingerprint *fingerprint)
{
	return bpf_map_lookup_elem(&fingerprints, fingerprint);
}

static __always_inline const struct patch *patch_find(const struct patch_key *key)
{
	return bpf_map_lookup_elem(&patches, key);
}

static __always_inline const struct region_chunk *region_chunk_find(const struct patch_key *key)
{
	return bpf_map_lookup_elem(&region_chunks, key);
}

static __always_inline void sighting_forget(const struct fingerprint *fingerprint, __u32 workload)
{
	if (!bpf_map_delete_elem(&fingerprints, fingerprint))
		share_give(workload, table_fingerprints, 1);
}

struct region_chunks_loop {
	struct patch_key key;
	__u32 deleted;
	__u32 _pad;
};

static long region_chunks_delete_step(__u32 chunk, struct region_chunks_loop *loop)
{
	loop->key.chunk = chunk;
	if (!bpf_map_delete_elem(&region_chunks, &loop->key))
		loop->deleted++;
	return 0;
}

/* The first `chunks` of one record. Returns how many there were. */
static __always_inline __u32 region_chunks_delete(const struct patch_key *key, __u32 chunks)
{
	struct region_chunks_loop loop = {.key = *key};

	bpf_loop(chunks, region_chunks_delete_step, &loop, 0);
	return loop.deleted;
}

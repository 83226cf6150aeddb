/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From the cipher side to the wire side. Entries are made by the first, and deleted by the second or by time. */
#pragma once

#include "../core.h"
#include "../types/record.h"

struct fingerprint {
	__u8 bytes[k_fingerprint_bytes];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct fingerprint);
	__type(value, struct sighting);
} fingerprints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct patch_key);
	__type(value, struct patch);
} patches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
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

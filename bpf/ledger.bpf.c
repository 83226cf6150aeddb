/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What agents hand on to each other besides the data plane's own maps. No program looks at it. */
#include "core.h"

enum { k_manifest_bytes = 32768, k_ledger_part_bytes = 1024 };

/* JSON, zero-padded: what the maps look like and who made them. Frozen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[k_manifest_bytes]);
} manifest SEC(".maps");

/* The key under which names and records are hashed (mac_key of each object). Frozen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[16]);
} hash_key SEC(".maps");

/* JSON in parts, zero-padded: workloads, secrets (without their values), and the numbers given out. */
struct ledger_key {
	__u32 kind;
	__u32 number;
	__u32 part;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ledger_key);
	__type(value, __u8[k_ledger_part_bytes]);
} ledger SEC(".maps");

KLOAK_LICENSE;

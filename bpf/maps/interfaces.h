/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

#include "../core.h"
#include "../types/workload.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* host-side ifindex */
	__type(value, struct interface);
} interfaces SEC(".maps");

static __always_inline const struct interface *interface_find(__u32 ifindex)
{
	return bpf_map_lookup_elem(&interfaces, &ifindex);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Reads past the end of a map's value, so that the verifier must refuse it. */
#include "core.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} small SEC(".maps");

SEC("tc")
int loader_rejected(void *context __attribute__((unused)))
{
	__u32 key = 0;
	__u32 *value = bpf_map_lookup_elem(&small, &key);

	return value ? value[1] : 0;
}

KLOAK_LICENSE;

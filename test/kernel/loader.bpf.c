/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the loader's tests load: a program and a map of each kind that the addon drives. */
#include "core.h"

volatile const __u32 answer;

struct pair {
	__u32 key;
	__u32 value;
};

struct kept {
	__u64 stamp;
	struct pair pairs[2];
};

struct prefix {
	__u32 bits;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct kept);
} kept SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} tallies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} samples SEC(".maps");

struct order {
	__u32 first;
	__u32 count;
	__u32 written;
	__u32 answer;
};

SEC("syscall")
int loader_emit(struct order *order)
{
	__u32 i;

	order->answer = answer;
	order->written = 0;
	for (i = 0; i < 256 && i < order->count; i++) {
		__u32 number = order->first + i;

		if (!bpf_ringbuf_output(&samples, &number, sizeof(number), 0))
			order->written++;
	}
	return 0;
}

SEC("tc")
int loader_mark(struct __sk_buff *skb)
{
	__u8 byte = answer;

	skb->mark = 7;
	bpf_skb_store_bytes(skb, 0, &byte, 1, 0);
	return skb->len;
}

SEC("uprobe")
int loader_touched(void *context __attribute__((unused)))
{
	__u32 key = 1;
	__u64 *tally = bpf_map_lookup_elem(&tallies, &key);

	if (tally)
		__sync_fetch_and_add(tally, 1);
	return 0;
}

KLOAK_LICENSE;

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The wire side with helpers that fail when a test says so, because the kernel at hand has no fault injection: they are
 * called with an argument that they refuse. So they fail for real, and leave behind what a failing one leaves.
 */
#include "core.h"

/* Bits of fault.helpers, by number. */
enum fault_helper { fault_load_bytes, fault_store_bytes, fault_checksum, fault_map_update, fault_ring_reserve };

struct fault {
	__u64 helpers; /* that are counted, and that may fail */
	__u64 calls;   /* of them so far */
	__s64 from;    /* number of the first that fails, from 1 on */
	__s64 to;      /* and of the last */
};

volatile struct fault fault SEC(".data.fault");

/*
 * Added to an argument: 0, or bits that make it absurd. No branch, which would double what the verifier has to look at,
 * and no function, which would be one more than it allows on top of each other.
 */
static __always_inline __u32 fault_bits(enum fault_helper helper)
{
	__u64 counted = fault.helpers >> helper & 1;
	__s64 call = fault.calls + counted;

	fault.calls = call;
	return ~((call - fault.from) | (fault.to - call)) >> 63 & -counted & 0x7ffffff0;
}

/* An offset past the end of any packet, and flags that there are not. */
#define bpf_skb_load_bytes(skb, at, to, size) (bpf_skb_load_bytes)(skb, (at) | fault_bits(fault_load_bytes), to, size)
#define bpf_skb_store_bytes(skb, at, from, size, flags) \
	(bpf_skb_store_bytes)(skb, (at) | fault_bits(fault_store_bytes), from, size, flags)
#define bpf_l4_csum_replace(skb, at, from, to, flags) \
	(bpf_l4_csum_replace)(skb, (at) | fault_bits(fault_checksum), from, to, flags)
#define bpf_map_update_elem(map, key, value, flags) \
	(bpf_map_update_elem)(map, key, value, (flags) | fault_bits(fault_map_update))
#define bpf_ringbuf_reserve(ring, size, flags) \
	(bpf_ringbuf_reserve)(ring, size, (flags) | fault_bits(fault_ring_reserve))

#include "wire.bpf.c"

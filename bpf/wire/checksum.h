/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The TCP checksum of a patched packet. bpf_l4_csum_replace leaves it alone where the device is still to fill it in
 * (CHECKSUM_PARTIAL), and corrects it where the workload's stack has (offloads off). Not bpf_csum_diff: it takes 512
 * bytes of both versions together, and they lie in words here anyway.
 */
#pragma once

#include "walk.h"

enum { k_tcp_checksum_offset = 16 };

/* One's complement sum of 16-bit words, as the bytes lie in memory (RFC 1071). */
static __always_inline __u32 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* What changing `before` to `after` adds. Equal words add 0xffffffff twice, which is nothing in one's complement. */
static __always_inline __u64 checksum_change(__u64 before, __u64 after)
{
	return (after & 0xffffffff) + (after >> 32) + (~before & 0xffffffff) + (~before >> 32);
}

/* change: of a window whose first byte lies `odd` to the 16-bit words that the checksum is made of. */
static __always_inline void checksum_add(struct walk *walk, __u64 change, bool odd)
{
	__u32 sum = checksum_fold(change);

	if (odd)
		sum = (sum & 0xff) << 8 | sum >> 8;
	walk->checksum += sum;
}

/* 0, or negative: the packet must not leave. */
static __always_inline int checksum_store(struct __sk_buff *skb, const struct walk *walk)
{
	return bpf_l4_csum_replace(skb, walk->transport + k_tcp_checksum_offset, 0, checksum_fold(walk->checksum), 0);
}

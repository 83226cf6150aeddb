/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Payload that the workload can still change: pages of its own (MSG_ZEROCOPY, vmsplice) or of a file (sendfile), which
 * TCP sends without a copy. What is proven of such bytes holds for this copy alone; a repetition may read otherwise.
 */
#pragma once

#include "../core.h"

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"

struct sk_buff {
	unsigned char *head;
	unsigned int end;
} __core;

struct skb_shared_info {
	__u8 flags;
} __core;

#pragma clang diagnostic pop

enum { k_skb_shared_frag = 2 }; /* SKBFL_SHARED_FRAG: 5.13, commit 06b4feb37e64 */

/* Linux 6.2, commit fd264ca02094. Before, nothing leads from a tc program to these flags. */
extern void *bpf_cast_to_kern_ctx(void *context) __ksym __weak;
enum { k_linux_6_2 = 6 << 16 | 2 << 8 };
extern int LINUX_KERNEL_VERSION __kconfig; /* a constant to the verifier, which leaves out the call before 6.2 */

static __always_inline bool packet_shares_memory(struct __sk_buff *skb)
{
	struct skb_shared_info *shared;
	struct sk_buff *packet;
	__u8 flags = 0;

	if (LINUX_KERNEL_VERSION < k_linux_6_2)
		return false;
	packet = bpf_cast_to_kern_ctx(skb);
	shared = (struct skb_shared_info *)(packet->head + packet->end);
	if (bpf_core_read(&flags, sizeof(flags), &shared->flags))
		return true;
	return flags & k_skb_shared_frag;
}

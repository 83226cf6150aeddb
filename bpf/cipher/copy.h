/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The plaintext, copied once: what is parsed, encrypted and hashed is this copy, whatever becomes of the original. */
#pragma once

#include "../core.h"
#include "../maps/keys.h"
#include "../maps/sealing.h"

enum { copy_hidden = -1, copy_unreadable = -2 };

/* Sets sealing->type to what is not zero of bytes [0, i] of a block, from its end. Returns where it stands, or -1. */
static __noinline int copy_type(struct sealing *sealing, __u32 block, __u32 i)
{
	const __u8 *bytes;

	if (!sealing || block >= k_text_blocks)
		return -1;
	bytes = (const __u8 *)&sealing->scan.text.blocks[block];
	for (int n = 0; n < k_block_bytes; n++) {
		forget_range(i);
		i &= k_block_bytes - 1;
		sealing->type = bytes[i];
		if (sealing->type)
			return i;
		if (!i)
			break;
		i--;
	}
	return -1;
}

/*
 * The last block, and in TLS 1.3 the inner type in it, or in the one before: Java pads with a block of zeros. Returns the
 * bytes of content before type and padding, or copy_hidden: more padding, behind which anything could stand.
 */
__noinline int copy_end(struct sealing *sealing, __u64 text, __u32 version)
{
	struct block *block;
	__u32 last, i, apart;
	int at;

	if (!sealing || !sealing->length || sealing->length > k_text_max || sealing->order.type_at == k_type_hidden)
		return copy_hidden;
	apart = sealing->order.type_at ? 1 : 0;
	last = (sealing->length - 1) / k_block_bytes;
	i = (sealing->length - 1) % k_block_bytes;
	forget_range(last);
	if (last >= k_text_blocks)
		return copy_hidden;
	block = &sealing->scan.text.blocks[last];
	block->words[0] = 0;
	block->words[1] = 0;
	if (bpf_probe_read_user(block, i + 1 - apart, (void *)(text + last * k_block_bytes)))
		return copy_unreadable;
	if (apart && bpf_probe_read_user((__u8 *)block + i, 1, (void *)sealing->order.type_at))
		return copy_unreadable;
	sealing->end = last;
	if (version != tls_1_3)
		return sealing->length;
	at = copy_type(sealing, last, i);
	if (at >= 0)
		return last * k_block_bytes + at;
	if (apart || !last)
		return copy_hidden;
	last--;
	forget_range(last);
	if (last >= k_text_blocks)
		return copy_hidden;
	if (bpf_probe_read_user(&sealing->scan.text.blocks[last], k_block_bytes, (void *)(text + last * k_block_bytes)))
		return copy_unreadable;
	sealing->end = last;
	at = copy_type(sealing, last, k_block_bytes - 1);
	if (at >= 0)
		return last * k_block_bytes + at;
	return copy_hidden;
}

/* The rest: all of it, or only the first block. */
__noinline int copy_start(struct sealing *sealing, __u64 text, __u32 all)
{
	__u32 bytes;

	if (!sealing || !sealing->length || sealing->length > k_text_max)
		return -1;
	bytes = sealing->end * k_block_bytes; /* what is behind we have, and have judged: it is not read again */
	if (!all && bytes > k_block_bytes)
		bytes = k_block_bytes;
	forget_range(bytes); /* the bound is known only through `length`, which the verifier of 6.1 does not connect */
	if (bytes > sizeof(sealing->scan.text))
		return -1;
	sealing->complete = all != 0;
	return bpf_probe_read_user(&sealing->scan.text, bytes, (void *)text) ? copy_unreadable : 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The ciphertext of what was parsed, by the kernel's own computation. */
#pragma once

#include "../core.h"
#include "../crypto/aes.h"
#include "../crypto/chacha20.h"
#include "../crypto/siphash.h"
#include "../maps/keys.h"
#include "../maps/sealing.h"

static __always_inline void encrypt_blocks(const struct key_state *key, struct sealing *sealing, __u32 first,
					   __u32 count)
{
	if (key->algorithm == cipher_chacha20_poly1305)
		chacha20_xor(&key->chacha, &sealing->nonce, &sealing->scan.text, first, count);
	else
		aes_ctr(&key->aes, &sealing->nonce, &sealing->scan.text, first, count);
}

/*
 * Proof 1 of four: what was parsed becomes its ciphertext here, by the claimed key and nonce, in
 * memory that the workload cannot reach. Decoys, races and hollow libraries send something else, and so no match.
 */
__noinline int seal_encrypt(const struct key_state *key, struct sealing *sealing)
{
	if (!key || !sealing)
		return -1;
	encrypt_blocks(key, sealing, 0, sealing->head);
	if (sealing->tail < sealing->blocks && sealing->tail >= sealing->head)
		encrypt_blocks(key, sealing, sealing->tail, sealing->blocks - sealing->tail);
	text_trim(&sealing->scan.text, sealing->length);
	return 0;
}

/*
 * Proof 2 of four, this side's half: a hash that only the kernel can make of all that was computed. Whoever knows the
 * session key can make another record of the same first block, and even of the same tag, but not of the same hash.
 */
__noinline __u64 seal_hash(const struct sealing *sealing)
{
	struct siphash state;
	__u32 blocks;

	if (!sealing)
		return 0;
	siphash_init(&state);
	siphash_text(&state, &sealing->scan.text, 0, sealing->head);
	blocks = sealing->head;
	if (sealing->tail < sealing->blocks && sealing->tail >= sealing->head) {
		siphash_text(&state, &sealing->scan.text, sealing->tail, sealing->blocks - sealing->tail);
		blocks += sealing->blocks - sealing->tail;
	}
	siphash_word(&state, (__u64)sealing->index << 32 | sealing->length);
	siphash_word(&state, (__u64)sealing->tail << 32 | sealing->head);
	return siphash_finish(&state, (blocks + 1) * k_block_bytes);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What is kept of a traffic key that seals application data. */
#pragma once

#include "../core.h"
#include "../crypto/aes.h"
#include "../crypto/chacha20.h"
#include "../crypto/ghash.h"
#include "../maps/keys.h"
#include "../maps/sealing.h"
#include "key.h"

/*
 * Proof 3 of four, first half: parse state belongs to the key by what it does, so that to install
 * it again, elsewhere, does not reset what has been said under it.
 */
__noinline int key_make_name(struct context *context, struct sealing *sealing)
{
	const struct block zero = {};

	if (!context || !sealing)
		return -1;
	if (context->algorithm == cipher_chacha20_poly1305) {
		const struct nonce no_nonce = {};
		struct chacha20_block stream = {}; /* see crypto/block.h */

		chacha20_block(&context->key, &no_nonce, 0, &stream);
		memcpy(context->name.id, stream.words, sizeof(context->name.id));
	} else {
		struct block h = {};

		aes_expand(&sealing->aes, &context->key, key_bytes(context->algorithm));
		aes_encrypt(&sealing->aes, &zero, &h);
		memcpy(context->name.id, &h, sizeof(h));
	}
	context->flags |= context_named;
	return 0;
}

/* Fills the entry of a new key. Its serial is set last: until then the others leave it alone. */
__noinline int key_begin(struct key_state *key, const struct context *context, __u32 stack)
{
	if (!key || !context)
		return -1;
	key->algorithm = context->algorithm;
	key->version = context->version;
	key->stack = stack;
	key->sealed = context->sealed;
	key->first_nonce = context->first_nonce;
	if (context->algorithm == cipher_chacha20_poly1305) {
		key->chacha = context->key;
	} else {
		struct block h;

		aes_expand(&key->aes, &context->key, key_bytes(context->algorithm));
		memcpy(&h, context->name.id, sizeof(h));
		ghash_init(&key->ghash, &h);
	}
	/* Random: nothing to share between the objects of several stacks, or to carry over an agent's restart. */
	key->serial = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The shapes that ciphers work on. All of it is for memory of a map value, or the stack where it is small: global BPF
 * functions take pointers to types of constant size, and the verifier wants the whole type to be readable and writable.
 * Memory on the stack must be initialised before it is passed, results too: kernels before 6.3 (commit 6715df8d5d24)
 * refuse to hand uninitialised stack to a global function.
 * None of the functions over a whole text may run inside a bpf_loop callback: they are bpf_loops themselves.
 * Nothing here is constant-time: tables are indexed by secret bytes and branches depend on lengths. Who could measure
 * that is on the same core as the process whose TLS library holds the same key.
 */
#pragma once

#include "../core.h"
#include "../types/common.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of keys, blocks and hashes are little-endian");

/* 16 bytes in memory order. */
struct block {
	__u64 words[2];
};

/* 96 bits: RFC 8446 5.3, RFC 5288 3 (salt, explicit part), RFC 7905 2. */
struct nonce {
	__u32 words[3];
};

/* ChaCha20-Poly1305 in TLS 1.2 (RFC 7905 2): the nonce from its fixed part and the record's number, or the other way. */
static __always_inline void nonce_xor_number(struct nonce *nonce, const __u8 *number)
{
	__u32 words[2];

	memcpy(words, number, sizeof(words));
	nonce->words[1] ^= words[0];
	nonce->words[2] ^= words[1];
}

/* A raw key; of a 16-byte key the first half. */
struct raw_key {
	__u32 words[8];
};

enum {
	/* RFC 8446 5.2: 16384 bytes and the inner type. */
	k_text_max = k_record_max + 1,
	k_text_blocks = (k_text_max + k_block_bytes - 1) / k_block_bytes,
};

/* Plaintext or ciphertext of one record, without explicit nonce and tag. */
struct record_text {
	struct block blocks[k_text_blocks];
};

_Static_assert(sizeof(struct record_text) == 16400, "1025 blocks");

/*
 * Zeroes what follows the text in its last block, as GHASH, Poly1305 and the mark of a record want it: a keystream
 * XORed over whole blocks leaves itself there. length: bytes of the text, 0 to k_text_max; more is left alone.
 */
static __always_inline void text_trim(struct record_text *text, __u32 length)
{
	__u32 last = length / k_block_bytes;
	__u32 bits = length % k_block_bytes * 8;

	if (!bits || last >= k_text_blocks)
		return;
	if (bits < 64) {
		text->blocks[last].words[0] &= (1ULL << bits) - 1;
		text->blocks[last].words[1] = 0;
	} else {
		text->blocks[last].words[1] &= (1ULL << (bits - 64)) - 1;
	}
}

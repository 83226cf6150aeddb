/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ChaCha20 (RFC 8439 2.1 to 2.4) as the AEAD of TLS uses it (RFC 8439 2.8, RFC 7905). */
#pragma once

#include "block.h"

enum {
	k_chacha_blocks = 4,        /* blocks of 16 bytes in one of ChaCha20's */
	k_chacha_first_counter = 1, /* of the text; 0 makes the one-time key: RFC 8439 2.6, 2.8 */
};

struct chacha20_block {
	__u32 words[16];
};

static __always_inline __u32 rotate_left_32(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

/* RFC 8439 2.1. The words stay in memory: of 16 in registers most would be spilled, into eight bytes of stack each. */
static __always_inline void chacha20_quarter(__u32 *x, __u32 ia, __u32 ib, __u32 ic, __u32 id)
{
	__u32 a = x[ia], b = x[ib], c = x[ic], d = x[id];

	a += b;
	d = rotate_left_32(d ^ a, 16);
	c += d;
	b = rotate_left_32(b ^ c, 12);
	a += b;
	d = rotate_left_32(d ^ a, 8);
	c += d;
	b = rotate_left_32(b ^ c, 7);
	x[ia] = a;
	x[ib] = b;
	x[ic] = c;
	x[id] = d;
	asm volatile("" : : "r"(x) : "memory");
}

/* 64 bytes of keystream (RFC 8439 2.3). */
static __always_inline void chacha20_keystream(const struct raw_key *key, const struct nonce *nonce, __u32 counter,
					       struct chacha20_block *out)
{
	const __u32 c0 = 0x61707865, c1 = 0x3320646e, c2 = 0x79622d32, c3 = 0x6b206574;
	__u32 *x = out->words;

	x[0] = c0;
	x[1] = c1;
	x[2] = c2;
	x[3] = c3;
	for (__u32 i = 0; i < 8; i++)
		x[4 + i] = key->words[i];
	x[12] = counter;
	for (__u32 i = 0; i < 3; i++)
		x[13 + i] = nonce->words[i];
	for (__u32 i = 0; i < 10; i++) {
		chacha20_quarter(x, 0, 4, 8, 12);
		chacha20_quarter(x, 1, 5, 9, 13);
		chacha20_quarter(x, 2, 6, 10, 14);
		chacha20_quarter(x, 3, 7, 11, 15);
		chacha20_quarter(x, 0, 5, 10, 15);
		chacha20_quarter(x, 1, 6, 11, 12);
		chacha20_quarter(x, 2, 7, 8, 13);
		chacha20_quarter(x, 3, 4, 9, 14);
	}
	x[0] += c0;
	x[1] += c1;
	x[2] += c2;
	x[3] += c3;
	for (__u32 i = 0; i < 8; i++)
		x[4 + i] += key->words[i];
	x[12] += counter;
	for (__u32 i = 0; i < 3; i++)
		x[13 + i] += nonce->words[i];
}

/* The block of counter 0: its first 32 bytes are the one-time key of Poly1305 (RFC 8439 2.6). */
__noinline int chacha20_block(const struct raw_key *key, const struct nonce *nonce, __u32 counter,
			      struct chacha20_block *out)
{
	if (!key || !nonce || !out)
		return -1;
	chacha20_keystream(key, nonce, counter, out);
	return 0;
}

struct chacha20_loop {
	const struct raw_key *key;
	const struct nonce *nonce;
	struct record_text *text;
	__u32 first;
	__u32 end;
};

static long chacha20_step(__u32 step, struct chacha20_loop *loop)
{
	__u32 counter = loop->first / k_chacha_blocks + step;
	__u64 block = counter * k_chacha_blocks;
	struct chacha20_block stream;

	chacha20_keystream(loop->key, loop->nonce, counter + k_chacha_first_counter, &stream);
	for (__u32 i = 0; i < k_chacha_blocks; i++, block++) {
		if (block < loop->first)
			continue;
		barrier_var(block); /* or the bound is checked on a copy of which the verifier forgets the origin */
		if (block >= loop->end || block >= k_text_blocks)
			return 1;
		loop->text->blocks[block].words[0] ^= (__u64)stream.words[4 * i + 1] << 32 | stream.words[4 * i];
		loop->text->blocks[block].words[1] ^= (__u64)stream.words[4 * i + 3] << 32 | stream.words[4 * i + 2];
	}
	return 0;
}

/*
 * XORs the keystream of ChaCha20-Poly1305 over blocks [first, first + count) of 16 bytes of a record's text; byte 0 has
 * counter 1. Whole blocks: see text_trim. -1: the blocks are not all inside the text.
 */
__noinline int chacha20_xor(const struct raw_key *key, const struct nonce *nonce, struct record_text *text, __u32 first,
			    __u32 count)
{
	struct chacha20_loop loop;

	if (!key || !nonce || !text || first > k_text_blocks || count > k_text_blocks - first)
		return -1;
	loop.key = key;
	loop.nonce = nonce;
	loop.text = text;
	loop.first = first;
	loop.end = first + count;
	if (count)
		bpf_loop((loop.end + k_chacha_blocks - 1) / k_chacha_blocks - first / k_chacha_blocks, chacha20_step,
			 &loop, 0);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012) under the data plane's own key, which user
 * space draws at random and sets before load, the same in every object: names of hosts, and the marks of records.
 */
#pragma once

#include "block.h"

volatile const __u64 mac_key[2];

struct siphash {
	__u64 v[4];
};

/* A DNS name as the tables know it: lower case, without trailing dot. What follows its length does not matter. */
struct dns_name {
	__u64 words[32];
};

static __always_inline __u64 rotate_left_64(__u64 word, __u32 bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void siphash_round(struct siphash *state)
{
	__u64 v0 = state->v[0], v1 = state->v[1], v2 = state->v[2], v3 = state->v[3];

	v0 += v1;
	v2 += v3;
	v1 = rotate_left_64(v1, 13) ^ v0;
	v3 = rotate_left_64(v3, 16) ^ v2;
	v0 = rotate_left_64(v0, 32);
	v2 += v1;
	v0 += v3;
	v1 = rotate_left_64(v1, 17) ^ v2;
	v3 = rotate_left_64(v3, 21) ^ v0;
	v2 = rotate_left_64(v2, 32);
	state->v[0] = v0;
	state->v[1] = v1;
	state->v[2] = v2;
	state->v[3] = v3;
}

static __always_inline void siphash_init(struct siphash *state)
{
	__u64 k0 = mac_key[0], k1 = mac_key[1];

	state->v[0] = k0 ^ 0x736f6d6570736575ULL;
	state->v[1] = k1 ^ 0x646f72616e646f6dULL;
	state->v[2] = k0 ^ 0x6c7967656e657261ULL;
	state->v[3] = k1 ^ 0x7465646279746573ULL;
}

/* Eight bytes of the message, as a little-endian word. */
static __always_inline void siphash_word(struct siphash *state, __u64 word)
{
	state->v[3] ^= word;
	siphash_round(state);
	siphash_round(state);
	state->v[0] ^= word;
}

/* tail: the last bytes % 8 bytes of the message, little-endian, zero above; bytes: of the whole message. */
static __always_inline __u64 siphash_finish_tail(struct siphash *state, __u32 bytes, __u64 tail)
{
	siphash_word(state, (__u64)bytes << 56 | tail);
	state->v[2] ^= 0xff;
	siphash_round(state);
	siphash_round(state);
	siphash_round(state);
	siphash_round(state);
	return state->v[0] ^ state->v[1] ^ state->v[2] ^ state->v[3];
}

/* The end of a message that was all words: bytes, of the whole message, is a multiple of 8. */
static __always_inline __u64 siphash_finish(struct siphash *state, __u32 bytes)
{
	return siphash_finish_tail(state, bytes, 0);
}

/* A name of `length` bytes, at most 255; 0 if it is longer. 0 is never the hash of a name in practice: it means none. */
__noinline __u64 siphash_name(const struct dns_name *name, __u32 length)
{
	struct siphash state;

	if (!name || length >= sizeof(*name))
		return 0;
	siphash_init(&state);
	for (__u32 i = 0; i < 31; i++) {
		__u32 at = i;

		if (i >= length / 8)
			break;
		forget_range(at); /* or a pointer runs along, of which 6.1 does not know where it ends */
		siphash_word(&state, name->words[at & 31]);
	}
	__u32 bits = length % 8 * 8;
	__u64 tail = name->words[(length / 8) & 31] & ((1ULL << bits) - 1);
	return siphash_finish_tail(&state, length, tail);
}

enum { k_siphash_run = 8 }; /* blocks per loop callback: the loop costs as much as two of them */

struct siphash_loop {
	struct siphash state;
	const struct record_text *text;
	__u32 first;
	__u32 end;
};

static long siphash_step(__u32 step, struct siphash_loop *loop)
{
	struct siphash state = loop->state;
	__u64 block = loop->first + step * k_siphash_run;
	__u32 end = loop->end;

	for (__u32 i = 0; i < k_siphash_run; i++, block++) {
		barrier_var(block); /* or the bound is checked on a copy of which the verifier forgets the origin */
		if (block >= end || block >= k_text_blocks)
			break;
		siphash_word(&state, loop->text->blocks[block].words[0]);
		siphash_word(&state, loop->text->blocks[block].words[1]);
	}
	loop->state = state;
	return 0;
}

/* Feeds blocks [first, first + count) of the text. -1: they are not all inside it. */
__noinline int siphash_text(struct siphash *state, const struct record_text *text, __u32 first, __u32 count)
{
	struct siphash_loop loop;

	if (!state || !text || first > k_text_blocks || count > k_text_blocks - first)
		return -1;
	loop.state = *state;
	loop.text = text;
	loop.first = first;
	loop.end = first + count;
	bpf_loop((count + k_siphash_run - 1) / k_siphash_run, siphash_step, &loop, 0);
	*state = loop.state;
	return 0;
}

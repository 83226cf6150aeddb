/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Poly1305 (RFC 8439 2.5) over what the AEAD authenticates (2.8). BPF multiplies 64 by 64 to 64 bits, so numbers are
 * five limbs of 26 bits (the layout of Andrew Moon's poly1305-donna-32, public domain).
 */
#pragma once

#include "chacha20.h"

/* Additional data: in TLS 1.3 the 5 bytes of the record header, in TLS 1.2 13 bytes (RFC 5246 6.2.3.3). */
struct poly1305_aad {
	struct block text; /* zero after its end */
	__u32 bytes;       /* at most 16 */
	__u32 _pad;
};

struct poly1305 {
	__u32 h[5];
	__u32 r[5];
};

enum { k_limb_mask = 0x3ffffff };

/* RFC 8439 2.5: the first half of the one-time key is clamped to r. */
static __always_inline void poly1305_init(struct poly1305 *state, const struct chacha20_block *one_time)
{
	__u32 t0 = one_time->words[0], t1 = one_time->words[1], t2 = one_time->words[2], t3 = one_time->words[3];

	state->r[0] = t0 & 0x3ffffff;
	state->r[1] = (t0 >> 26 | t1 << 6) & 0x3ffff03;
	state->r[2] = (t1 >> 20 | t2 << 12) & 0x3ffc0ff;
	state->r[3] = (t2 >> 14 | t3 << 18) & 0x3f03fff;
	state->r[4] = t3 >> 8 & 0x00fffff;
	memset(state->h, 0, sizeof(state->h));
}

/* h := (h + block + 2^128) * r mod 2^130 - 5, not fully reduced. */
static __always_inline void poly1305_add(struct poly1305 *state, __u64 low, __u64 high)
{
	__u64 r0 = state->r[0], r1 = state->r[1], r2 = state->r[2], r3 = state->r[3], r4 = state->r[4];
	__u64 h0 = state->h[0] + (low & k_limb_mask);
	__u64 h1 = state->h[1] + (low >> 26 & k_limb_mask);
	__u64 h2 = state->h[2] + ((low >> 52 | high << 12) & k_limb_mask);
	__u64 h3 = state->h[3] + (high >> 14 & k_limb_mask);
	__u64 h4 = state->h[4] + (high >> 40 | 1 << 24);

	__u64 d0 = h0 * r0 + 5 * (h1 * r4 + h2 * r3 + h3 * r2 + h4 * r1);
	__u64 d1 = h0 * r1 + h1 * r0 + 5 * (h2 * r4 + h3 * r3 + h4 * r2);
	__u64 d2 = h0 * r2 + h1 * r1 + h2 * r0 + 5 * (h3 * r4 + h4 * r3);
	__u64 d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + 5 * (h4 * r4);
	__u64 d4 = h0 * r4 + h1 * r3 + h2 * r2 + h3 * r1 + h4 * r0;

	d1 += d0 >> 26;
	d2 += d1 >> 26;
	d3 += d2 >> 26;
	d4 += d3 >> 26;
	d0 = (d0 & k_limb_mask) + 5 * (d4 >> 26);
	state->h[0] = d0 & k_limb_mask;
	state->h[1] = (d1 & k_limb_mask) + (d0 >> 26);
	state->h[2] = d2 & k_limb_mask;
	state->h[3] = d3 & k_limb_mask;
	state->h[4] = d4 & k_limb_mask;
}

/* Apart: for the few blocks that are not whole blocks of the text, without their temporaries in the caller's frame. */
static __noinline void poly1305_add_one(struct poly1305 *state, __u64 low, __u64 high)
{
	poly1305_add(state, low, high);
}

/* h mod 2^130 - 5, plus s, mod 2^128. */
static __noinline void poly1305_finish(struct poly1305 *state, const struct chacha20_block *one_time, struct block *tag)
{
	__u64 h0 = state->h[0], h1 = state->h[1], h2 = state->h[2], h3 = state->h[3], h4 = state->h[4];

	/* Twice: the first carry out of the top may make the lowest limb overflow once more. */
	for (__u32 i = 0; i < 2; i++) {
		h1 += h0 >> 26;
		h0 &= k_limb_mask;
		h2 += h1 >> 26;
		h1 &= k_limb_mask;
		h3 += h2 >> 26;
		h2 &= k_limb_mask;
		h4 += h3 >> 26;
		h3 &= k_limb_mask;
		h0 += 5 * (h4 >> 26);
		h4 &= k_limb_mask;
	}
	/* Now h < 2^130 + small; h >= p exactly if h + 5 reaches 2^130. */
	__u64 g0 = h0 + 5;
	__u64 g1 = h1 + (g0 >> 26);
	__u64 g2 = h2 + (g1 >> 26);
	__u64 g3 = h3 + (g2 >> 26);
	__u64 g4 = h4 + (g3 >> 26);

	if (g4 >> 26) {
		h0 = g0 & k_limb_mask;
		h1 = g1 & k_limb_mask;
		h2 = g2 & k_limb_mask;
		h3 = g3 & k_limb_mask;
		h4 = g4 & k_limb_mask;
	}
	__u64 s0 = (__u64)one_time->words[5] << 32 | one_time->words[4];
	__u64 s1 = (__u64)one_time->words[7] << 32 | one_time->words[6];
	__u64 low = h0 + (h1 << 26) + (h2 << 52);
	/* h0 + (h1 << 26) < 2^52, so what h2 shifts out is all that goes up. */
	__u64 high = h2 >> 12 | h3 << 14 | h4 << 40;

	low += s0;
	high += s1 + (low < s0);
	tag->words[0] = low;
	tag->words[1] = high;
}

enum { k_poly1305_run = 4 };

struct poly1305_loop {
	struct poly1305 state;
	const struct record_text *text;
	__u32 end;
	__u32 _pad;
};

static long poly1305_step(__u32 step, struct poly1305_loop *loop)
{
	__u64 block = (__u64)step * k_poly1305_run;

	for (__u32 i = 0; i < k_poly1305_run; i++, block++) {
		barrier_var(block); /* see chacha20_step */
		if (block >= loop->end || block >= k_text_blocks)
			return 1;
		poly1305_add(&loop->state, loop->text->blocks[block].words[0], loop->text->blocks[block].words[1]);
	}
	return 0;
}

/*
 * The tag of a record (RFC 8439 2.8): one_time is the ChaCha20 block of counter 0 for its nonce; text is the ciphertext,
 * of `length` bytes; what follows in its last block does not matter. -1: length or additional data too long.
 */
__noinline int poly1305_tag(const struct chacha20_block *one_time, const struct poly1305_aad *aad,
			    const struct record_text *text, __u32 length, struct block *tag)
{
	struct poly1305_loop loop = {};
	__u32 whole = length / k_block_bytes;
	__u32 bits = length % k_block_bytes * 8;

	if (!one_time || !aad || !text || !tag || length > k_text_max || aad->bytes > k_block_bytes)
		return -1;
	poly1305_init(&loop.state, one_time);
	if (aad->bytes)
		poly1305_add_one(&loop.state, aad->text.words[0], aad->text.words[1]);
	loop.text = text;
	loop.end = whole;
	bpf_loop((whole + k_poly1305_run - 1) / k_poly1305_run, poly1305_step, &loop, 0);
	if (bits && whole < k_text_blocks) {
		__u64 low = text->blocks[whole].words[0], high = 0;

		if (bits < 64)
			low &= (1ULL << bits) - 1;
		else
			high = text->blocks[whole].words[1] & ((1ULL << (bits - 64)) - 1);
		poly1305_add_one(&loop.state, low, high);
	}
	poly1305_add_one(&loop.state, aad->bytes, length);
	poly1305_finish(&loop.state, one_time, tag);
	return 0;
}

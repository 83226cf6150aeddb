/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * GHASH (NIST SP 800-38D 6.3, 6.4) of what a patch changes. GHASH is linear: XORing delta blocks b_i to blocks i of m
 * ciphertext blocks XORs sum b_i * H^(m + 1 - i) to the tag; neither nonce nor additional data matter.
 *
 * Products without carries by integer multiplication with holes: of every four bits one is kept, so that the carries
 * fall into the other three (method of BearSSL's ghash_ctmul64.c, Thomas Pornin, MIT licence). The upper half of a
 * product is the lower half of the product of the operands read backwards.
 */
#pragma once

#include "block.h"

enum { k_ghash_powers = 11 }; /* H^(2^0) to H^(2^10): exponents up to 2047 */

/* An element of GF(2^128): words of the block read as big-endian numbers, as they are and with their bits reversed. */
struct ghash_power {
	__u64 low;
	__u64 high;
	__u64 low_reversed;
	__u64 high_reversed;
};

struct ghash_key {
	struct ghash_power power[k_ghash_powers]; /* H^(2^i) */
	__u32 known; /* how many of them are computed; 0: no key */
	__u32 _pad;
};

struct ghash_element {
	__u64 low;
	__u64 high;
};

/* Patches of one record, on their way to a tag delta. */
struct ghash_delta {
	struct ghash_element sum; /* Horner's scheme up to block `next` - 1, which counts as H^0 */
	__u32 next;
	__u32 _pad;
};

static __always_inline __u64 reverse_bits_64(__u64 word)
{
	word = (word & 0x5555555555555555ULL) << 1 | (word >> 1 & 0x5555555555555555ULL);
	word = (word & 0x3333333333333333ULL) << 2 | (word >> 2 & 0x3333333333333333ULL);
	word = (word & 0x0f0f0f0f0f0f0f0fULL) << 4 | (word >> 4 & 0x0f0f0f0f0f0f0f0fULL);
	return __builtin_bswap64(word);
}

/* The lower 64 bits of the product of two polynomials over GF(2). Inlined six times its masks would fill the stack. */
__noinline __u64 multiply_no_carry(__u64 x, __u64 y)
{
	const __u64 m0 = 0x1111111111111111ULL, m1 = m0 << 1, m2 = m0 << 2, m3 = m0 << 3;
	__u64 x0 = x & m0, x1 = x & m1, x2 = x & m2, x3 = x & m3;
	__u64 y0 = y & m0, y1 = y & m1, y2 = y & m2, y3 = y & m3;

	return (((x0 * y0) ^ (x1 * y3) ^ (x2 * y2) ^ (x3 * y1)) & m0) |
	       (((x0 * y1) ^ (x1 * y0) ^ (x2 * y3) ^ (x3 * y2)) & m1) |
	       (((x0 * y2) ^ (x1 * y1) ^ (x2 * y0) ^ (x3 * y3)) & m2) |
	       (((x0 * y3) ^ (x1 * y2) ^ (x2 * y1) ^ (x3 * y0)) & m3);
}

/* x := x * y in the field of GCM. */
__noinline int ghash_multiply(struct ghash_element *x, const struct ghash_power *y)
{
	if (!x || !y)
		return -1;
	__u64 low = x->low, high = x->high;
	__u64 v0 = multiply_no_carry(low, y->low);
	__u64 v2 = multiply_no_carry(high, y->high);
	__u64 v1 = multiply_no_carry(low ^ high, y->low ^ y->high) ^ v0 ^ v2;

	low = reverse_bits_64(low);
	high = reverse_bits_64(high);
	__u64 r0 = multiply_no_carry(low, y->low_reversed);
	__u64 r2 = multiply_no_carry(high, y->high_reversed);
	__u64 r1 = multiply_no_carry(low ^ high, y->low_reversed ^ y->high_reversed) ^ r0 ^ r2;

	v1 ^= reverse_bits_64(r0) >> 1;
	v2 ^= reverse_bits_64(r1) >> 1;
	__u64 v3 = reverse_bits_64(r2) >> 1;

	/* Bits of a block are numbered from the left: shift once, then reduce by x^128 + x^7 + x^2 + x + 1. */
	v3 = v3 << 1 | v2 >> 63;
	v2 = v2 << 1 | v1 >> 63;
	v1 = v1 << 1 | v0 >> 63;
	v0 <<= 1;
	v2 ^= v0 ^ v0 >> 1 ^ v0 >> 2 ^ v0 >> 7;
	v1 ^= v0 << 63 ^ v0 << 62 ^ v0 << 57;
	v3 ^= v1 ^ v1 >> 1 ^ v1 >> 2 ^ v1 >> 7;
	v2 ^= v1 << 63 ^ v1 << 62 ^ v1 << 57;
	x->low = v2;
	x->high = v3;
	return 0;
}

static __always_inline void ghash_set_power(struct ghash_power *power, __u64 low, __u64 high)
{
	power->low = low;
	power->high = high;
	power->low_reversed = reverse_bits_64(low);
	power->high_reversed = reverse_bits_64(high);
}

/* h: AES_K(0^128). */
static __always_inline void ghash_init(struct ghash_key *key, const struct block *h)
{
	ghash_set_power(&key->power[0], __builtin_bswap64(h->words[1]), __builtin_bswap64(h->words[0]));
	key->known = 1;
}

/* x := x * H^exponent, exponent up to 2047; computes the powers it needs. -1: no key. */
__noinline int ghash_raise(struct ghash_element *x, struct ghash_key *key, __u32 exponent)
{
	if (!x || !key || !key->known || exponent >> k_ghash_powers)
		return -1;
	for (__u32 i = 0; i < k_ghash_powers; i++) {
		if (!(exponent >> i))
			break;
		if (i && key->known <= i) {
			struct ghash_element square = {key->power[i - 1].low, key->power[i - 1].high};

			ghash_multiply(&square, &key->power[i - 1]);
			ghash_set_power(&key->power[i], square.low, square.high);
			key->known = i + 1;
		}
		if (exponent >> i & 1)
			ghash_multiply(x, &key->power[i]);
	}
	return 0;
}

static __always_inline void ghash_delta_begin(struct ghash_delta *delta)
{
	memset(delta, 0, sizeof(*delta));
}

/*
 * The delta of ciphertext block `index`, from 0; blocks come in rising order, those that do not change may be left out.
 * Contiguous blocks cost one multiplication each. -1: no key, order, or index.
 */
__noinline int ghash_delta_add(struct ghash_delta *delta, struct ghash_key *key, const struct block *changed,
			       __u32 index)
{
	if (!delta || !key || !changed || !key->known || index < delta->next || index >= k_text_blocks)
		return -1;
	__u64 low = __builtin_bswap64(changed->words[1]), high = __builtin_bswap64(changed->words[0]);

	if (!(low | high))
		return 0;
	if (delta->sum.low | delta->sum.high) {
		if (index == delta->next)
			ghash_multiply(&delta->sum, &key->power[0]);
		else
			ghash_raise(&delta->sum, key, index + 1 - delta->next);
	}
	delta->sum.low ^= low;
	delta->sum.high ^= high;
	delta->next = index + 1;
	return 0;
}

/* What is to be XORed to the tag of a record of `blocks` ciphertext blocks. -1: no key, or blocks. */
__noinline int ghash_delta_finish(struct ghash_delta *delta, struct ghash_key *key, __u32 blocks,
				  struct block *tag_delta)
{
	if (!delta || !key || !tag_delta || blocks > k_text_blocks || blocks < delta->next)
		return -1;
	if (delta->sum.low | delta->sum.high) {
		/* The last one added is block next - 1: H^(blocks + 1 - (next - 1)). */
		if (ghash_raise(&delta->sum, key, blocks + 2 - delta->next))
			return -1;
	}
	tag_delta->words[0] = __builtin_bswap64(delta->sum.high);
	tag_delta->words[1] = __builtin_bswap64(delta->sum.low);
	return 0;
}

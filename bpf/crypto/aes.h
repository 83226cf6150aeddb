/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * AES-128 and AES-256, encryption only (FIPS 197), and counter mode as GCM numbers it (NIST SP 800-38D). Words are
 * little-endian: the first byte of a column is the lowest. Four tables hold SubBytes and MixColumns together (Daemen,
 * Rijmen: "The Design of Rijndael", 4.2), one for each row; S-box bytes are taken out of them where they stand alone.
 */
#pragma once

#include "aes_tables.h"
#include "block.h"

struct aes_key {
	__u32 round[60]; /* FIPS 197 5.2; four words a round, 11 or 15 rounds */
	__u32 rounds;    /* 10 or 14; 0: no key */
	__u32 _pad;
};

enum { k_gcm_first_counter = 2 }; /* of the text; 1 masks the tag: SP 800-38D 7.1 */

/* The tables as one register for all rows: left to itself the compiler loads the address of each again and again. */
static __always_inline const char *aes_base(void)
{
	const char *base = (const char *)&aes_tables;

	barrier_var(base);
	return base;
}

/* The entry of a row for the byte of the word that starts at bit `shift`. */
static __always_inline __u32 aes_row(const char *base, __u32 row, __u32 word, __u32 shift)
{
	__u32 offset = (shift ? word >> (shift - 2) : word << 2) & 0x3fc;

	return *(const __u32 *)(base + offset + row * sizeof(aes_tables.row[0]));
}

/* A column of SubBytes, ShiftRows and MixColumns: byte 0 of a, byte 1 of b, byte 2 of c, byte 3 of d. */
static __always_inline __u32 aes_mix(const char *base, __u32 a, __u32 b, __u32 c, __u32 d)
{
	return aes_row(base, 0, a, 0) ^ aes_row(base, 1, b, 8) ^ aes_row(base, 2, c, 16) ^ aes_row(base, 3, d, 24);
}

/* A column of SubBytes and ShiftRows, as the last round has it. */
static __always_inline __u32 aes_substitute(const char *base, __u32 a, __u32 b, __u32 c, __u32 d)
{
	return (aes_row(base, 2, a, 0) & 0xff) | (aes_row(base, 3, b, 8) & 0xff00) |
	       (aes_row(base, 0, c, 16) & 0xff0000) | (aes_row(base, 1, d, 24) & 0xff000000);
}

/* bytes: 16 or 32. -1: any other length. */
__noinline int aes_expand(struct aes_key *key, const struct raw_key *raw, __u32 bytes)
{
	const char *base = aes_base();
	__u32 constant = 1;

	if (!key || !raw)
		return -1;
	key->rounds = 0;
	if (bytes == 16) {
		__u32 w0 = raw->words[0], w1 = raw->words[1], w2 = raw->words[2], w3 = raw->words[3];

		key->round[0] = w0;
		key->round[1] = w1;
		key->round[2] = w2;
		key->round[3] = w3;
		for (__u32 i = 4; i < 44; i += 4) {
			__u32 turned = w3 >> 8 | w3 << 24;

			w0 ^= aes_substitute(base, turned, turned, turned, turned) ^ constant;
			w1 ^= w0;
			w2 ^= w1;
			w3 ^= w2;
			key->round[i] = w0;
			key->round[i + 1] = w1;
			key->round[i + 2] = w2;
			key->round[i + 3] = w3;
			constant = constant & 0x80 ? 0x1b : constant << 1;
		}
		key->rounds = 10;
		return 0;
	}
	if (bytes == 32) {
		for (__u32 i = 0; i < 8; i++)
			key->round[i] = raw->words[i];
		for (__u32 i = 8; i < 60; i++) {
			__u32 last = key->round[i - 1];

			if (i % 8 == 0) {
				last = last >> 8 | last << 24;
				last = aes_substitute(base, last, last, last, last) ^ constant;
				constant <<= 1;
			} else if (i % 8 == 4) {
				last = aes_substitute(base, last, last, last, last);
			}
			key->round[i] = key->round[i - 8] ^ last;
		}
		key->rounds = 14;
		return 0;
	}
	return -1;
}

/* The state between rounds. */
struct aes_state {
	__u32 s0, s1, s2, s3;
};

static __always_inline void aes_round(const char *base, struct aes_state *s, const __u32 *round_key)
{
	__u32 s0 = s->s0, s1 = s->s1, s2 = s->s2, s3 = s->s3;

	s->s0 = aes_mix(base, s0, s1, s2, s3) ^ round_key[0];
	s->s1 = aes_mix(base, s1, s2, s3, s0) ^ round_key[1];
	s->s2 = aes_mix(base, s2, s3, s0, s1) ^ round_key[2];
	s->s3 = aes_mix(base, s3, s0, s1, s2) ^ round_key[3];
}

/* Rounds from `first` to the last. Two loops of constant length: one whose end is the key's would verify slower. */
static __always_inline void aes_rounds(const char *base, struct aes_state *s, const struct aes_key *key, __u32 first)
{
	const __u32 *last = &key->round[40];

	for (__u32 r = first * 4; r < 40; r += 4)
		aes_round(base, s, &key->round[r]);
	if (key->rounds == 14) {
		for (__u32 r = 40; r < 56; r += 4)
			aes_round(base, s, &key->round[r]);
		last = &key->round[56];
	}
	__u32 s0 = s->s0, s1 = s->s1, s2 = s->s2, s3 = s->s3;

	s->s0 = aes_substitute(base, s0, s1, s2, s3) ^ last[0];
	s->s1 = aes_substitute(base, s1, s2, s3, s0) ^ last[1];
	s->s2 = aes_substitute(base, s2, s3, s0, s1) ^ last[2];
	s->s3 = aes_substitute(base, s3, s0, s1, s2) ^ last[3];
}

/* One block (FIPS 197 5.1). in and out may be the same. -1: no key. */
__noinline int aes_encrypt(const struct aes_key *key, const struct block *in, struct block *out)
{
	const char *base = aes_base();
	struct aes_state s;

	if (!key || !in || !out || !key->rounds)
		return -1;
	s.s0 = (__u32)in->words[0] ^ key->round[0];
	s.s1 = (__u32)(in->words[0] >> 32) ^ key->round[1];
	s.s2 = (__u32)in->words[1] ^ key->round[2];
	s.s3 = (__u32)(in->words[1] >> 32) ^ key->round[3];
	aes_rounds(base, &s, key, 1);
	out->words[0] = (__u64)s.s1 << 32 | s.s0;
	out->words[1] = (__u64)s.s3 << 32 | s.s2;
	return 0;
}

/*
 * What all counter blocks of a record have in common: only their last two bytes differ, so two columns after round 1
 * are the same for all, of the other two all but one byte's share, and of every column after round 2 two bytes' share.
 */
struct aes_ctr_loop {
	const struct aes_key *key;
	struct record_text *text;
	__u32 round_1[2];
	__u32 round_2[4];
	__u32 counter_key; /* the last word of round key 0 */
	__u32 first;
};

static long aes_ctr_step(__u32 step, struct aes_ctr_loop *loop)
{
	const struct aes_key *key = loop->key;
	const char *base = aes_base();
	__u32 block = loop->first + step;
	struct aes_state s;

	if (block >= k_text_blocks)
		return 1;
	__u32 s3 = bpf_htonl(block + k_gcm_first_counter) ^ loop->counter_key;
	__u32 t0 = loop->round_1[0] ^ aes_row(base, 3, s3, 24);
	__u32 t1 = loop->round_1[1] ^ aes_row(base, 2, s3, 16);

	s.s0 = loop->round_2[0] ^ aes_row(base, 0, t0, 0) ^ aes_row(base, 1, t1, 8);
	s.s1 = loop->round_2[1] ^ aes_row(base, 0, t1, 0) ^ aes_row(base, 3, t0, 24);
	s.s2 = loop->round_2[2] ^ aes_row(base, 2, t0, 16) ^ aes_row(base, 3, t1, 24);
	s.s3 = loop->round_2[3] ^ aes_row(base, 1, t0, 8) ^ aes_row(base, 2, t1, 16);
	aes_rounds(base, &s, key, 3);
	loop->text->blocks[block].words[0] ^= (__u64)s.s1 << 32 | s.s0;
	loop->text->blocks[block].words[1] ^= (__u64)s.s3 << 32 | s.s2;
	return 0;
}

/*
 * XORs the keystream of AES-GCM (SP 800-38D 6.5, 7.1) over blocks [first, first + count) of a record's text; block 0 has
 * counter 2. Whole blocks: see text_trim. -1: no key, or the blocks are not all inside the text.
 */
__noinline int aes_ctr(const struct aes_key *key, const struct nonce *nonce, struct record_text *text, __u32 first,
		       __u32 count)
{
	const char *base = aes_base();
	struct aes_ctr_loop loop;

	if (!key || !nonce || !text || first > k_text_blocks || count > k_text_blocks - first || !key->rounds)
		return -1;
	__u32 s0 = nonce->words[0] ^ key->round[0];
	__u32 s1 = nonce->words[1] ^ key->round[1];
	__u32 s2 = nonce->words[2] ^ key->round[2];
	__u32 s3 = key->round[3];

	loop.key = key;
	loop.text = text;
	loop.first = first;
	loop.counter_key = s3;
	loop.round_1[0] = aes_row(base, 0, s0, 0) ^ aes_row(base, 1, s1, 8) ^ aes_row(base, 2, s2, 16) ^ key->round[4];
	loop.round_1[1] = aes_row(base, 0, s1, 0) ^ aes_row(base, 1, s2, 8) ^ aes_row(base, 3, s0, 24) ^ key->round[5];
	__u32 t2 = aes_mix(base, s2, s3, s0, s1) ^ key->round[6];
	__u32 t3 = aes_mix(base, s3, s0, s1, s2) ^ key->round[7];

	loop.round_2[0] = aes_row(base, 2, t2, 16) ^ aes_row(base, 3, t3, 24) ^ key->round[8];
	loop.round_2[1] = aes_row(base, 1, t2, 8) ^ aes_row(base, 2, t3, 16) ^ key->round[9];
	loop.round_2[2] = aes_row(base, 0, t2, 0) ^ aes_row(base, 1, t3, 8) ^ key->round[10];
	loop.round_2[3] = aes_row(base, 0, t3, 0) ^ aes_row(base, 3, t2, 24) ^ key->round[11];
	bpf_loop(count, aes_ctr_step, &loop, 0);
	return 0;
}

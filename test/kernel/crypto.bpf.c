/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The ciphers of bpf/crypto as programs that a test can run: each works on the one entry of map `cases`. */
#include "crypto/aes.h"
#include "crypto/chacha20.h"
#include "crypto/ghash.h"
#include "crypto/poly1305.h"
#include "crypto/siphash.h"

KLOAK_LICENSE;

struct crypto_case {
	struct raw_key key;
	__u32 key_bytes;
	__u32 first;  /* block of the text */
	__u32 count;  /* blocks of the text */
	__u32 length; /* bytes of the text, or of the name */
	struct poly1305_aad aad;
	struct block in;
	struct block out;
	__u64 hash;
	struct nonce nonce;
	__u32 counter;
	struct dns_name name;
	struct record_text text;
	struct record_text delta;
	/* What the headers keep between calls. */
	struct aes_key aes;
	struct ghash_key ghash;
	struct ghash_delta sum;
	struct chacha20_block stream;
	struct siphash siphash;
};

/* crypto-programs.ts knows where its fields lie. */
_Static_assert(__builtin_offsetof(struct crypto_case, text) == 384, "text");
_Static_assert(__builtin_offsetof(struct crypto_case, aes.rounds) == 33424, "rounds");
_Static_assert(__builtin_offsetof(struct crypto_case, aes) == 33184, "aes");
_Static_assert(__builtin_offsetof(struct crypto_case, stream) == 33816, "stream");
_Static_assert(sizeof(struct crypto_case) == 33912, "size");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct crypto_case);
} cases SEC(".maps");

static __always_inline struct crypto_case *the_case(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cases, &zero);
}

SEC("syscall")
int hash_name(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c)
		return -1;
	c->hash = siphash_name(&c->name, c->length);
	return 0;
}

/* A run of whole blocks, as the mark of a record hashes them. */
SEC("syscall")
int hash_text(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c)
		return -1;
	siphash_init(&c->siphash);
	if (siphash_text(&c->siphash, &c->text, c->first, c->count))
		return -1;
	c->hash = siphash_finish(&c->siphash, c->count * k_block_bytes);
	return 0;
}

SEC("syscall")
int expand_key(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	return c ? aes_expand(&c->aes, &c->key, c->key_bytes) : -1;
}

SEC("syscall")
int encrypt_block(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c || aes_expand(&c->aes, &c->key, c->key_bytes))
		return -1;
	return aes_encrypt(&c->aes, &c->in, &c->out);
}

SEC("syscall")
int aes_stream(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c || aes_expand(&c->aes, &c->key, c->key_bytes))
		return -1;
	if (aes_ctr(&c->aes, &c->nonce, &c->text, c->first, c->count))
		return -1;
	text_trim(&c->text, c->length);
	return 0;
}

static long add_delta(__u32 index, struct crypto_case **c)
{
	struct crypto_case *the = *c;

	if (index >= k_text_blocks)
		return 1;
	return ghash_delta_add(&the->sum, &the->ghash, &the->delta.blocks[index], index) ? 1 : 0;
}

/* From key and `delta`, whose text is as long as `length`, to the tag delta in `out`. */
SEC("syscall")
int gcm_tag_delta(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c || aes_expand(&c->aes, &c->key, c->key_bytes))
		return -1;
	memset(&c->in, 0, sizeof(c->in));
	if (aes_encrypt(&c->aes, &c->in, &c->out))
		return -1;
	ghash_init(&c->ghash, &c->out);
	ghash_delta_begin(&c->sum);
	__u32 blocks = (c->length + k_block_bytes - 1) / k_block_bytes;

	bpf_loop(blocks, add_delta, &c, 0);
	return ghash_delta_finish(&c->sum, &c->ghash, blocks, &c->out);
}

SEC("syscall")
int chacha_block(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	return c ? chacha20_block(&c->key, &c->nonce, c->counter, &c->stream) : -1;
}

SEC("syscall")
int chacha_stream(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c || chacha20_xor(&c->key, &c->nonce, &c->text, c->first, c->count))
		return -1;
	text_trim(&c->text, c->length);
	return 0;
}

/* Poly1305 under the one-time key in `stream`. */
SEC("syscall")
int poly_tag(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	return c ? poly1305_tag(&c->stream, &c->aad, &c->text, c->length, &c->out) : -1;
}

/* Only loaded: what the programs above call verifies in a uprobe too, in one chain of frames. */
SEC("uprobe")
int every_cipher(void *context __attribute__((unused)))
{
	struct crypto_case *c = the_case();

	if (!c || aes_expand(&c->aes, &c->key, c->key_bytes) || aes_encrypt(&c->aes, &c->in, &c->out))
		return 0;
	ghash_init(&c->ghash, &c->out);
	aes_ctr(&c->aes, &c->nonce, &c->text, c->first, c->count);
	ghash_delta_add(&c->sum, &c->ghash, &c->in, c->first);
	ghash_delta_finish(&c->sum, &c->ghash, c->count, &c->out);
	chacha20_block(&c->key, &c->nonce, 0, &c->stream);
	chacha20_xor(&c->key, &c->nonce, &c->text, c->first, c->count);
	poly1305_tag(&c->stream, &c->aad, &c->text, c->length, &c->out);
	siphash_init(&c->siphash);
	siphash_text(&c->siphash, &c->text, c->first, c->count);
	c->hash = siphash_finish(&c->siphash, 16) ^ siphash_name(&c->name, c->length);
	return 0;
}

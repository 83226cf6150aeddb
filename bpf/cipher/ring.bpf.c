/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ring, under rustls: its sealing is Rust that compilers inline, but its ciphers are assembly, called like C. Read in ring
 * 0.17.3 to 0.17.14: src/aead/aes_gcm.rs, src/aead/gcm.rs, src/aead/chacha20_poly1305/, pregenerated/ *-x86_64-elf.S.
 *
 * AES-GCM, a record: the additional data, filled up with zeros to a block, enters the hash:
 *              gcm_ghash_{clmul,avx,vpclmulqdq_avx2_1}(Xi, Htable, block, length), before 0.17.9 gcm_gmult_clmul(Xi, Htable)
 *              then its text, in place, is encrypted, first by one of
 *              aes_gcm_enc_update_vaes_avx2(in, out, length, key, counter, Htable, Xi): its whole blocks
 *              aesni_gcm_encrypt(in, out, length, key, counter, Htable, Xi): what it likes of it
 *              aes_hw_ctr32_encrypt_blocks(in, out, blocks, key, counter): its whole blocks, or a copy of a last short one
 *              To open a record the ciphertext enters the hash between these two.
 * ChaCha20     chacha20_poly1305_seal{,_sse41,_avx2}(out, in, length, ad, ad length, data)
 *
 * So the header says how long the record is and what it is, the next call of the thread where it is and under which key
 * and nonce: both together are one record.
 */
#include "../core.h"
#include "../maps/workloads.h"

KLOAK_LICENSE;

#if defined(__TARGET_ARCH_x86)

#include "whole.h"

enum {
	/* AES_KEY (include/ring-core/aes.h): round keys, the first of which are the key, then the number of rounds but one. */
	k_rounds_at = 240,
	k_rounds_aes_128 = 9,
	k_rounds_aes_256 = 13,
	k_first_counter = 2, /* NIST SP 800-38D 7.1: 1 is the tag's */
};

/* What the running thread has let into the hash of a record: a block that can be a TLS record's additional data. */
struct ring_overture {
	__u8 block[k_block_bytes];
	__u8 aad_length; /* 0: none */
	__u8 _pad[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ring_overture);
} ring_overtures SEC(".maps");

/* struct { key[32]; counter; nonce[12]; … }: RFC 8439 2.3 */
struct ring_chacha_data {
	struct raw_key key;
	__u32 counter;
	struct nonce nonce;
};

static __always_inline __u8 ring_aad_length(const struct block *block)
{
	const __u8 *bytes = (const __u8 *)block;

	if (bytes[0] == k_content_application_data && bytes[1] == 3 && bytes[2] == 3 &&
	    !(block->words[0] >> k_record_header * 8) && !block->words[1])
		return k_record_header;
	if (bytes[k_sequence + 1] == 3 && bytes[k_sequence + 2] == 3 &&
	    !(block->words[1] >> (k_aad_tls12 - k_sequence) * 8))
		return k_aad_tls12;
	return 0;
}

/* A block enters the hash. What follows another than a header is not a record that is sealed. */
static __always_inline int ring_hash(const void *address)
{
	struct ring_overture *overture;
	struct block block;
	__u8 length;

	if (!current_workload())
		return 0;
	length = bpf_probe_read_user(&block, sizeof(block), address) ? 0 : ring_aad_length(&block);
	overture = bpf_task_storage_get(&ring_overtures, bpf_get_current_task_btf(), NULL,
					length ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	if (!overture)
		return 0;
	memcpy(overture->block, &block, sizeof(block));
	overture->aad_length = length;
	return 0;
}

/* gcm_ghash_clmul, gcm_ghash_avx, gcm_ghash_vpclmulqdq_avx2_1 */
SEC("uprobe")
int ring_ghash(struct pt_regs *ctx)
{
	return ring_hash((void *)ctx->rdx);
}

/* gcm_gmult_clmul: the block is in the hash already, which held nothing before. */
SEC("uprobe")
int ring_gmult(struct pt_regs *ctx)
{
	return ring_hash((void *)ctx->rdi);
}

/* The header, once. */
static __always_inline bool ring_frame(struct whole_record *record)
{
	struct ring_overture *overture = bpf_task_storage_get(&ring_overtures, bpf_get_current_task_btf(), NULL, 0);
	const __u8 *header;

	if (!overture || !overture->aad_length)
		return false;
	record->aad_length = overture->aad_length;
	memcpy(record->aad, overture->block, sizeof(record->aad));
	overture->aad_length = 0;
	header = record->aad;
	record->version = tls_1_3;
	if (record->aad_length == k_aad_tls12) {
		header += k_sequence;
		record->version = tls_1_2;
	}
	record->length = header[3] << 8 | header[4];
	if (record->version == tls_1_3)
		record->length -= k_tag_bytes;
	return record->length && record->length <= k_text_max;
}

static __noinline bool ring_gcm_read(struct pt_regs *ctx, struct whole_record *record)
{
	__u32 counter[4];
	__u32 rounds;

	if (!ring_frame(record))
		return false;
	record->text = ctx->rdi;
	if (bpf_probe_read_user(counter, sizeof(counter), (void *)ctx->r8) ||
	    counter[3] != bpf_htonl(k_first_counter) ||
	    bpf_probe_read_user(&rounds, sizeof(rounds), (void *)(ctx->rcx + k_rounds_at)))
		return false;
	memcpy(&record->nonce, counter, sizeof(record->nonce));
	if (rounds == k_rounds_aes_128) {
		record->algorithm = cipher_aes_128_gcm;
		return !bpf_probe_read_user(&record->key, 16, (void *)ctx->rcx);
	}
	record->algorithm = cipher_aes_256_gcm;
	return rounds == k_rounds_aes_256 && !bpf_probe_read_user(&record->key, 32, (void *)ctx->rcx);
}

/* aes_gcm_enc_update_vaes_avx2, aesni_gcm_encrypt, aes_hw_ctr32_encrypt_blocks */
SEC("uprobe")
int ring_gcm_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct whole_record record = {};

	if (workload && ring_gcm_read(ctx, &record) && whole_order(&record, workload, stack_ring))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

static __noinline bool ring_chacha20_read(struct pt_regs *ctx, struct whole_record *record)
{
	struct ring_chacha_data data;

	record->text = ctx->rsi;
	record->length = ctx->rdx;
	if (!ctx->rdx || ctx->rdx > k_text_max || bpf_probe_read_user(&data, sizeof(data), (void *)ctx->r9) ||
	    !whole_frame(record, ctx->rcx, ctx->r8))
		return false;
	record->algorithm = cipher_chacha20_poly1305;
	record->key = data.key;
	record->nonce = data.nonce;
	whole_fixed_nonce(record);
	return true;
}

/* chacha20_poly1305_seal, chacha20_poly1305_seal_sse41, chacha20_poly1305_seal_avx2 */
SEC("uprobe")
int ring_chacha20_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct whole_record record = {};

	if (workload && ring_chacha20_read(ctx, &record) && whole_order(&record, workload, stack_ring))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * OpenSSL 1.1.1 and 3.x, shared or inside an executable (Node.js): libssl seals every record through these exported
 * functions of libcrypto. Read in 1.1.1w, 3.0, 3.5, 3.6: ssl/record/ssl3_record{,_tls13}.c, ssl/record/methods/.
 *
 * TLS 1.3      EVP_CipherInit_ex(ctx, cipher, 0, 0, 0, enc); EVP_CipherInit_ex(ctx, 0, 0, key, 0, enc or -1)
 *   a record   EVP_CipherInit_ex(ctx, 0, 0, 0, nonce, 1); EVP_CipherUpdate(ctx, 0, &n, header, 5);
 *              EVP_CipherUpdate(ctx, out, &n, text, length): all is known here
 * TLS 1.2      EVP_CipherInit_ex(ctx, cipher, 0, key, 0, enc); EVP_CIPHER_CTX_ctrl(ctx, SET_IV_FIXED, 4, salt)
 *   AES-GCM    EVP_CIPHER_CTX_ctrl(ctx, TLS1_AAD, 13, aad); EVP_CipherUpdate (3.x) or EVP_Cipher (1.1.1), in place over
 *              explicit nonce | text | tag, whose nonce is made inside: it is read when BIO_write is called
 * TLS 1.2      EVP_CipherInit_ex(ctx, cipher, 0, key, iv, enc)
 *   ChaCha20   EVP_CIPHER_CTX_ctrl(ctx, TLS1_AAD, 13, aad); EVP_CipherUpdate or EVP_Cipher, in place over text | tag
 *
 * Who has a TLS protocol of his own and only the ciphers of libcrypto (Erlang's ssl: crypto_one_time_aead in
 * lib/crypto/c_src/aead.c) seals as TLS 1.3 does, in 1.2 too: the whole nonce, then 13 bytes of additional data, then the
 * text alone. Its contexts may live for one record.
 */
#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/seal_steps.h"
#include "../maps/workloads.h"
#include "key.h"
#include "report.h"
#include "stack.h"

KLOAK_LICENSE;

enum {
	/* include/openssl/evp.h */
	k_ctrl_set_iv_fixed = 0x12,
	k_ctrl_tls1_aad = 0x16,
	/* include/openssl/obj_mac.h; the first int of an EVP_CIPHER is its nid, also of one that a provider made. */
	k_nid_aes_128_gcm = 895,
	k_nid_aes_256_gcm = 901,
	k_nid_chacha20_poly1305 = 1018,
	/* Ciphers of TLS that cannot be patched. */
	k_nid_aes_128_cbc = 419,
	k_nid_aes_256_cbc = 427,
	k_nid_aes_128_ccm = 896,
	k_nid_aes_256_ccm = 902,
	k_nid_aes_128_cbc_sha1 = 916,
	k_nid_aes_256_cbc_sha1 = 918,
	k_nid_aes_128_cbc_sha256 = 948,
	k_nid_aes_256_cbc_sha256 = 950,

	k_tls13_header = 5,
	k_tls12_aad = 13,
	k_gcm_explicit = 8, /* RFC 5288 3 */
};

static __always_inline struct context_key openssl_context(struct pt_regs *ctx, __u32 workload)
{
	struct context_key key = {
		.address = argument_1(ctx), .process = bpf_get_current_pid_tgid() >> 32, .workload = workload};

	return key;
}

/* By the name of the cipher: a key of 32 bytes may be AES's or ChaCha20's. */
static __always_inline __u8 openssl_algorithm(const void *cipher)
{
	int nid;

	if (bpf_probe_read_user(&nid, sizeof(nid), cipher))
		return cipher_none;
	switch (nid) {
	case k_nid_aes_128_gcm:
		return cipher_aes_128_gcm;
	case k_nid_aes_256_gcm:
		return cipher_aes_256_gcm;
	case k_nid_chacha20_poly1305:
		return cipher_chacha20_poly1305;
	case k_nid_aes_128_cbc:
	case k_nid_aes_256_cbc:
	case k_nid_aes_128_ccm:
	case k_nid_aes_256_ccm:
	case k_nid_aes_128_cbc_sha1:
	case k_nid_aes_256_cbc_sha1:
	case k_nid_aes_128_cbc_sha256:
	case k_nid_aes_256_cbc_sha256:
		return cipher_unknown;
	default:
		return cipher_none;
	}
}

/* EVP_CipherInit_ex(ctx, cipher, engine, key, iv, enc); enc: 0 decrypts, -1 leaves it as it was. */
SEC("uprobe")
int openssl_cipher_init(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	const void *cipher = (void *)argument_2(ctx), *raw_key = (void *)argument_4(ctx), *iv = (void *)argument_5(ctx);
	struct context_key key;
	struct context *context;

	stay_on_own_stack(ctx);
	if (!workload)
		return 0;
	key = openssl_context(ctx, workload);
	if (cipher) {
		struct context fresh = {.name.workload = workload, .algorithm = openssl_algorithm(cipher)};

		/* The random generator comes by here more often than TLS does, with AES-CTR. */
		if (!fresh.algorithm) {
			context_forget(&key);
			return 0;
		}
		if (!(int)argument_6(ctx))
			fresh.flags = context_opens;
		if (!context_remember(&key, &fresh) && !(fresh.flags & context_opens))
			report_no_context(workload, fresh.algorithm, stack_openssl);
	}
	if (!raw_key && !iv)
		return 0;
	context = context_find(&key);
	if (!context || context->flags & context_opens || (context->flags & context_deaf && !raw_key))
		return 0;
	if (context->algorithm == cipher_unknown)
		return 0;
	if (raw_key)
		key_installed(context, raw_key);
	if (iv && !bpf_probe_read_user(&context->nonce, sizeof(context->nonce), iv))
		context->flags |= context_has_nonce;
	return 0;
}

/*
 * A context that does what only TLS does, and whose key nobody heard: it is older than the hooks, or was evicted. What it
 * seals cannot be patched; a placeholder in it gets its record.
 */
static __always_inline void openssl_missed(const struct context_key *key, __u8 version)
{
	struct context missed = {.name.workload = key->workload,
				 .algorithm = cipher_unknown,
				 .version = version,
				 .flags = context_keyless};

	context_remember(key, &missed);
}

/* EVP_CIPHER_CTX_ctrl(ctx, type, arg, ptr) */
SEC("uprobe")
int openssl_cipher_ctrl(struct pt_regs *ctx)
{
	int type = argument_2(ctx), length = argument_3(ctx);
	struct context_key key;
	struct context *context;
	__u32 workload;

	stay_on_own_stack(ctx);
	if (type != k_ctrl_tls1_aad && type != k_ctrl_set_iv_fixed)
		return 0;
	workload = current_workload();
	if (!workload)
		return 0;
	key = openssl_context(ctx, workload);
	context = context_find(&key);
	if (!context) {
		if (type == k_ctrl_tls1_aad && length == k_tls12_aad)
			openssl_missed(&key, tls_1_2);
		return 0;
	}
	if (context->flags & (context_deaf | context_opens) || context->algorithm == cipher_unknown)
		return 0;
	if (type == k_ctrl_set_iv_fixed) {
		if (length != sizeof(context->nonce.words[0]))
			return 0;
		if (bpf_probe_read_user(&context->nonce, sizeof(context->nonce.words[0]), (void *)argument_4(ctx)))
			count(counter_memory_unreadable);
		return 0;
	}
	context->flags &= ~(context_has_aad | context_bare);
	if (length != k_tls12_aad || bpf_probe_read_user(context->aad, k_tls12_aad, (void *)argument_4(ctx)))
		return 0;
	context->aad_length = k_tls12_aad;
	context->version = tls_1_2;
	context->flags |= context_has_aad;
	return 0;
}

static __always_inline bool openssl_is_header(const __u8 *aad)
{
	return aad[0] == k_content_application_data && aad[1] == 3 && aad[2] == 3;
}

/* The additional data of a TLS 1.2 record, RFC 5246 6.2.3.3, of whoever gives the nonce too. */
static __always_inline void openssl_bare(struct context *context, const void *aad)
{
	if (bpf_probe_read_user(context->aad, k_tls12_aad, aad) || context->aad[9] != 3 || context->aad[10] != 3)
		return;
	if (context->algorithm == cipher_chacha20_poly1305)
		nonce_xor_number(&context->nonce, context->aad); /* seal_begin wants the fixed part, as libssl has it */
	context->aad_length = k_tls12_aad;
	context->version = tls_1_2;
	context->flags |= context_has_aad | context_bare;
}

/* The header of a TLS 1.3 record. Other additional data is not TLS's. */
static __always_inline void openssl_header(struct context *context, const void *header, int length)
{
	context->flags &= ~(context_has_aad | context_bare);
	if (!(context->flags & context_has_nonce))
		return;
	if (length == k_tls12_aad) {
		openssl_bare(context, header);
		return;
	}
	if (length != k_tls13_header)
		return;
	memset(context->aad, 0, sizeof(context->aad));
	if (bpf_probe_read_user(context->aad, k_tls13_header, header) || !openssl_is_header(context->aad))
		return;
	context->aad_length = k_tls13_header;
	context->version = tls_1_3;
	context->flags |= context_has_aad;
}

/* One record. room: TLS 1.2 passes the room for the explicit nonce and the tag too. True: go on to seal it. */
static __always_inline bool openssl_seal(const struct context_key *name, const struct context *context, __u64 text,
					 int room)
{
	bool bare = context->flags & context_bare;
	bool gcm12 = context->version == tls_1_2 && context->algorithm != cipher_chacha20_poly1305 && !bare;
	int length = room;

	if (context->version == tls_1_2 && !bare)
		length -= k_tag_bytes + (gcm12 ? k_gcm_explicit : 0);
	if (length <= 0 || length > k_text_max)
		return false;
	return seal_order(name, text + (gcm12 ? k_gcm_explicit : 0), length, 0, stack_openssl, gcm12);
}

/* True: go on to seal the record that is in order. */
static __always_inline bool openssl_update(struct pt_regs *ctx, __u32 workload, __u64 out, __u64 in, int length)
{
	struct context_key key = openssl_context(ctx, workload);
	struct context *context = context_find(&key);
	__u8 header[k_tls13_header];

	if (!context) {
		if (!out && length == k_tls13_header && !bpf_probe_read_user(header, sizeof(header), (void *)in) &&
		    openssl_is_header(header))
			openssl_missed(&key, tls_1_3);
		return false;
	}
	if (context->flags & context_opens)
		return false;
	if (context->algorithm == cipher_unknown)
		return out && length > 0 && seal_order(&key, in, length, 0, stack_openssl, false);
	if (!(context->flags & context_keyed) || context->flags & context_deaf)
		return false;
	if (!out) {
		openssl_header(context, (void *)in, length);
		return false;
	}
	if (!(context->flags & context_has_aad))
		return false;
	context->flags &= context->version == tls_1_3 || context->flags & context_bare ?
				  ~(context_has_aad | context_has_nonce) :
				  ~context_has_aad;
	return openssl_seal(&key, context, in, length);
}

/* EVP_CipherUpdate(ctx, out, outl, in, inl) */
SEC("uprobe")
int openssl_cipher_update(struct pt_regs *ctx)
{
	__u32 workload = current_workload();

	if (workload && openssl_update(ctx, workload, argument_2(ctx), argument_4(ctx), argument_5(ctx)))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/* EVP_Cipher(ctx, out, in, inl): TLS 1.2 of OpenSSL 1.1.1. */
SEC("uprobe")
int openssl_cipher(struct pt_regs *ctx)
{
	__u32 workload = current_workload();

	if (workload && argument_2(ctx) &&
	    openssl_update(ctx, workload, argument_2(ctx), argument_3(ctx), (int)argument_4(ctx)))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/*
 * BIO_write(bio, data, length): the next thing that a thread does with a TLS 1.2 record that it has sealed with AES-GCM,
 * and the first where its explicit nonce stands in memory. header | explicit nonce | ciphertext | tag.
 */
SEC("uprobe")
int openssl_bio_write(struct pt_regs *ctx)
{
	struct sealing *sealing = sealing_find();
	__u8 head[k_tls13_header + k_gcm_explicit];

	if (!sealing || !sealing->waiting)
		return 0;
	sealing->waiting = 0;
	if (bpf_probe_read_user(head, sizeof(head), (void *)argument_2(ctx)))
		return 0;
	if (head[0] != sealing->type || (head[3] << 8 | head[4]) != (int)sealing->length + k_gcm_explicit + k_tag_bytes)
		return 0;
	memcpy(&sealing->nonce.words[1], head + k_tls13_header, k_gcm_explicit);
	bpf_tail_call(ctx, &seal_steps, seal_step_finish);
	return 0;
}

/* EVP_CIPHER_CTX_free(ctx), EVP_CIPHER_CTX_reset(ctx) */
SEC("uprobe")
int openssl_cipher_free(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct context_key key;

	if (!workload)
		return 0;
	key = openssl_context(ctx, workload);
	context_forget(&key);
	return 0;
}

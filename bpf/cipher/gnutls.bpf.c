/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * GnuTLS 3.6.16 to 3.8 on amd64, shared. Read in 3.6.16, 3.7.9, 3.8.13: lib/cipher.c (encrypt_packet,
 * encrypt_packet_tls13), lib/crypto-api.c, lib/accelerated/x86/aes-gcm-*.c, lib/nettle/cipher.c.
 *
 * AES-GCM is done by functions of libgnutls that stand in tables; each has the type of a public callback of
 * <gnutls/crypto.h>: set key, set nonce, seal. ChaCha20-Poly1305 is done by public functions of libnettle.
 *
 * TLS 1.3  gnutls_aead_cipher_encryptv(handle, nonce, …): text and inner type lie apart, and are encrypted piece by piece.
 *          The handle does not tell the key; but the first that is done is to hand the nonce on, which does.
 * TLS 1.2  AES-GCM: one call with key's owner, nonce, additional data and text, which is the whole record.
 *          ChaCha20: set nonce, additional data, then the text, of libnettle.
 */
#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/offers.h"
#include "../maps/seal_steps.h"
#include "../maps/workloads.h"
#include "key.h"
#include "stack.h"

KLOAK_LICENSE;

enum {
	k_header = 5,
	k_aad_tls12 = 13,
	k_sequence = 8,
	k_nonce_bytes = sizeof(struct nonce),
	k_texts = 2,           /* of a TLS 1.3 record: text, inner type with padding */
};

/* giovec_t, which is struct iovec */
struct gnutls_piece {
	__u64 data;
	__u64 length;
};

/* Arguments 7 and 8, of which the first is an address. */
static __always_inline bool gnutls_more_arguments(struct pt_regs *ctx, struct gnutls_piece *more)
{
#if defined(__TARGET_ARCH_x86) /* on the stack, after the address to return to */
	return !bpf_probe_read_user(more, sizeof(*more), (void *)(ctx->rsp + 8));
#else
	more->data = ctx->regs[6];
	more->length = ctx->regs[7];
	return true;
#endif
}

static __always_inline struct context_key gnutls_context(struct pt_regs *ctx, __u32 workload)
{
	struct context_key key = {
		.address = argument_1(ctx), .process = bpf_get_current_pid_tgid() >> 32, .workload = workload};

	return key;
}

static __always_inline void gnutls_key(struct pt_regs *ctx, __u8 algorithm)
{
	__u32 workload = current_workload();
	struct context fresh = {.name.workload = workload, .algorithm = algorithm};
	struct context_key key;

	stay_on_own_stack(ctx);
	if (!workload)
		return;
	key = gnutls_context(ctx, workload);
	if (algorithm == cipher_none) {
		context_forget(&key);
		return;
	}
	key_installed(&fresh, (void *)argument_2(ctx));
	context_remember(&key, &fresh);
}

/* gnutls_cipher_setkey_func(ctx, key, keysize) of AES-GCM: its size tells which. */
SEC("uprobe")
int gnutls_gcm_key(struct pt_regs *ctx)
{
	gnutls_key(ctx, argument_3(ctx) == 16 ? cipher_aes_128_gcm :
			argument_3(ctx) == 32 ? cipher_aes_256_gcm :
						cipher_none);
	return 0;
}

/* chacha_poly1305_set_key(ctx, key) */
SEC("uprobe")
int gnutls_chacha20_key(struct pt_regs *ctx)
{
	gnutls_key(ctx, cipher_chacha20_poly1305);
	return 0;
}

static __always_inline bool gnutls_is_header(const __u8 *header, __u32 length)
{
	return header[1] == 3 && header[2] == 3 && (__u32)(header[3] << 8 | header[4]) == length;
}

static __always_inline bool gnutls_is_header_tls13(const __u8 *header, __u32 length)
{
	return header[0] == k_content_application_data && gnutls_is_header(header, length + k_tag_bytes);
}

/*
 * gnutls_aead_cipher_encryptv(handle, nonce, nonce_len, auth_iov, auth_iovcnt, tag_size; iov, iovcnt, …)
 * Other uses of it than a record of TLS 1.3 are passed over.
 */
SEC("uprobe")
int gnutls_offer(struct pt_regs *ctx)
{
	struct gnutls_piece aad, pieces, texts[k_texts];
	struct offer *offer;

	stay_on_own_stack(ctx);
	if (!current_workload())
		return 0;
	offer = offer_take();
	if (!offer) {
		count(counter_memory_unreadable);
		return 0;
	}
	offer->nonce = 0;
	if (argument_3(ctx) != k_nonce_bytes || (int)argument_5(ctx) != 1 || !gnutls_more_arguments(ctx, &pieces) ||
	    (int)pieces.length != k_texts)
		return 0;
	if (bpf_probe_read_user(&aad, sizeof(aad), (void *)argument_4(ctx)) || aad.length != k_header ||
	    bpf_probe_read_user(offer->aad, k_header, (void *)aad.data) ||
	    bpf_probe_read_user(texts, sizeof(texts), (void *)pieces.data))
		return 0;
	if (!texts[1].length || texts[0].length > k_text_max || texts[1].length > k_text_max)
		return 0;
	offer->length = texts[0].length + texts[1].length;
	if (offer->length > k_text_max || !gnutls_is_header_tls13(offer->aad, offer->length))
		return 0;
	offer->text = texts[0].data;
	offer->type = texts[1].length == 1 ? texts[1].data : k_type_hidden;
	offer->nonce = argument_2(ctx);
	return 0;
}

static __always_inline bool gnutls_hears(const struct context *context)
{
	return context->flags & context_keyed && !(context->flags & context_deaf);
}

/* What was offered is sealed by whoever is given its nonce. True: go on to seal it. */
static __always_inline bool gnutls_accept(const struct context_key *name, struct offer *offer)
{
	struct context *context = context_find(name);
	__u64 nonce = offer->nonce;

	offer->nonce = 0;
	if (context) {
		if (!gnutls_hears(context))
			return false;
		if (bpf_probe_read_user(&context->nonce, k_nonce_bytes, (void *)nonce)) {
			count(counter_memory_unreadable);
			return false;
		}
		context->version = tls_1_3;
		context->aad_length = k_header;
		memset(context->aad, 0, sizeof(context->aad));
		memcpy(context->aad, offer->aad, k_header);
	}
	return seal_order(name, offer->text, offer->length, offer->type, stack_gnutls, false);
}

static __always_inline struct offer *gnutls_offered(__u64 nonce)
{
	struct offer *offer = offer_find();

	return offer && offer->nonce && offer->nonce == nonce ? offer : NULL;
}

/* gnutls_cipher_setiv_func(ctx, iv, ivsize) of AES-GCM */
SEC("uprobe")
int gnutls_gcm_nonce(struct pt_regs *ctx)
{
	struct offer *offer = gnutls_offered(argument_2(ctx));
	__u32 workload = offer ? current_workload() : 0;
	struct context_key name;

	if (!workload)
		return 0;
	name = gnutls_context(ctx, workload);
	if (gnutls_accept(&name, offer))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/* The additional data of TLS 1.2. */
static __always_inline bool gnutls_aad(struct context *context, __u64 aad, __u64 length)
{
	if (length != k_aad_tls12 || bpf_probe_read_user(context->aad, k_aad_tls12, (void *)aad))
		return false;
	context->version = tls_1_2;
	context->aad_length = k_aad_tls12;
	return true;
}

/*
 * gnutls_cipher_aead_encrypt_func(ctx, nonce, nonce_size, auth, auth_size, tag_size; plain, plain_size, …) of AES-GCM:
 * a whole record of TLS 1.2
 */
SEC("uprobe")
int gnutls_gcm_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct gnutls_piece text;
	struct context_key name;
	struct context *context;

	if (!workload || argument_3(ctx) != k_nonce_bytes || argument_5(ctx) != k_aad_tls12 ||
	    !gnutls_more_arguments(ctx, &text) || !text.length || text.length > k_text_max)
		return 0;
	name = gnutls_context(ctx, workload);
	context = context_find(&name);
	if (context && (!gnutls_hears(context) || !gnutls_aad(context, argument_4(ctx), argument_5(ctx)) ||
			!gnutls_is_header(context->aad + k_sequence, text.length) ||
			bpf_probe_read_user(&context->nonce, k_nonce_bytes, (void *)argument_2(ctx))))
		return 0;
	if (seal_order(&name, text.data, text.length, 0, stack_gnutls, false))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/* chacha_poly1305_set_nonce(ctx, nonce) */
SEC("uprobe")
int gnutls_chacha20_nonce(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct context_key name;
	struct context *context;
	struct offer *offer;

	if (!workload)
		return 0;
	name = gnutls_context(ctx, workload);
	offer = gnutls_offered(argument_2(ctx));
	if (offer) {
		if (gnutls_accept(&name, offer))
			bpf_tail_call(ctx, &seal_steps, seal_step_record);
		return 0;
	}
	context = context_find(&name);
	if (!context)
		return 0;
	context->flags &= ~(context_has_nonce | context_has_aad);
	if (!bpf_probe_read_user(&context->nonce, k_nonce_bytes, (void *)argument_2(ctx)))
		context->flags |= context_has_nonce;
	return 0;
}

/* chacha_poly1305_update(ctx, length, data): additional data of TLS 1.2 after a nonce; in TLS 1.3 the offer had it. */
SEC("uprobe")
int gnutls_chacha20_aad(struct pt_regs *ctx)
{
	__u32 workload = argument_2(ctx) == k_aad_tls12 ? current_workload() : 0;
	struct context_key name;
	struct context *context;

	if (!workload)
		return 0;
	name = gnutls_context(ctx, workload);
	context = context_find(&name);
	if (context && context->flags & context_has_nonce && gnutls_aad(context, argument_3(ctx), argument_2(ctx)))
		context->flags |= context_has_aad;
	return 0;
}

/* chacha_poly1305_encrypt(ctx, length, dst, src) */
SEC("uprobe")
int gnutls_chacha20_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	__u32 length = argument_2(ctx);
	struct context_key name;
	struct context *context;

	if (!workload || !argument_2(ctx) || argument_2(ctx) > k_text_max)
		return 0;
	name = gnutls_context(ctx, workload);
	context = context_find(&name);
	if (!context || !gnutls_hears(context) || !(context->flags & context_has_aad))
		return 0;
	context->flags &= ~(context_has_nonce | context_has_aad);
	if (!gnutls_is_header(context->aad + k_sequence, length))
		return 0;
	nonce_xor_number(&context->nonce, context->aad); /* seal_begin wants the fixed part */
	if (seal_order(&name, argument_4(ctx), length, 0, stack_gnutls, false))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

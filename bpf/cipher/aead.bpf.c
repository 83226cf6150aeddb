/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * BoringSSL and AWS-LC, under whatever protocol: their own libssl, rustls (aws-lc-rs), s2n, Bun's and Deno's. Every AEAD is
 * a table of functions (struct evp_aead_st, crypto/fipsmodule/cipher/internal.h) through which all records go, so these
 * are never inlined, and have the C calling convention. Read in AWS-LC 1.50 to 5.5, BoringSSL 2022 to 2026.
 *
 * init(ctx, key, key length, tag length): whose table it is tells the algorithm
 * seal_scatter(ctx, out, out_tag, *out_tag_len, max_out_tag_len, nonce, nonce_len, in, in_len, extra_in, extra_in_len,
 *              ad, ad_len): BoringSSL passes the inner type of a TLS 1.3 record as extra_in, others at the end of in
 * sealv(ctx, iovecs, iovecs' number, out_tag, its length, *out_tag_len, nonce, nonce_len, ivecs, ivecs' number): BoringSSL
 *              since 2025; the inner type is a vector of its own
 *
 * All is known at the entry, where the probes stand, or where nothing has been pushed yet: arguments are on the stack.
 */
#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/seal_steps.h"
#include "../maps/workloads.h"
#include "key.h"
#include "stack.h"

KLOAK_LICENSE;

#if defined(__TARGET_ARCH_x86)

enum {
	k_stack_arguments = 8, /* from the stack pointer: after the address to return to */
	k_aad_tls13 = 5,
	k_aad_tls12 = 13,
	k_sequence = 8,
	k_nonce = 12,
};

/* The arguments of seal_scatter that are on the stack. */
struct scatter_stack {
	__u64 nonce_length;
	__u64 in;
	__u64 in_length;
	__u64 extra;
	__u64 extra_length;
	__u64 aad;
	__u64 aad_length;
};

/* And those of sealv. */
struct sealv_stack {
	__u64 nonce;
	__u64 nonce_length;
	__u64 aads;
	__u64 aad_count;
};

struct crypto_iovec {
	__u64 out;
	__u64 in;
	__u64 length;
};

struct crypto_ivec {
	__u64 in;
	__u64 length;
};

/* One call, by whichever function. */
struct aead_record {
	__u64 context;
	__u64 text;
	__u64 nonce;
	__u64 aad;
	__u64 extra;        /* where the inner type is, unless it ends the text */
	__u64 extra_length; /* 0 or 1 */
	__u64 length;       /* of the text */
	__u64 aad_length;
};

/* A probe's first two arguments; the key is that of a TLS connection as long as nothing else is seen. */
static __always_inline void aead_init(struct pt_regs *ctx, __u8 algorithm)
{
	__u32 workload = current_workload();
	struct context_key name = {
		.address = ctx->rdi, .process = bpf_get_current_pid_tgid() >> 32, .workload = workload};
	struct context fresh = {.name.workload = workload, .algorithm = algorithm};

	stay_on_own_stack(ctx);
	if (!workload)
		return;
	key_installed(&fresh, (void *)ctx->rsi);
	if (fresh.flags & context_keyed)
		context_remember(&name, &fresh);
	else
		context_forget(&name);
}

/* AES-GCM's init */
SEC("uprobe")
int aead_gcm_init(struct pt_regs *ctx)
{
	__u64 length = ctx->rdx;

	if (length == 16)
		aead_init(ctx, cipher_aes_128_gcm);
	else if (length == 32)
		aead_init(ctx, cipher_aes_256_gcm);
	return 0;
}

/* ChaCha20-Poly1305's init */
SEC("uprobe")
int aead_chacha20_init(struct pt_regs *ctx)
{
	if (ctx->rdx == 32)
		aead_init(ctx, cipher_chacha20_poly1305);
	return 0;
}

/* The additional data of a TLS record, and so what kind of record it is; other uses of the AEAD have none like it. */
static __always_inline bool aead_frame(const struct aead_record *record, struct context *context)
{
	__u32 length = record->length + record->extra_length;
	const __u8 *header;

	memset(context->aad, 0, sizeof(context->aad));
	if (record->aad_length == k_aad_tls13) {
		if (bpf_probe_read_user(context->aad, k_aad_tls13, (void *)record->aad))
			return false;
		header = context->aad;
		length += k_tag_bytes;
		if (header[0] != k_content_application_data)
			return false;
		context->version = tls_1_3;
	} else if (record->aad_length == k_aad_tls12 && !record->extra_length) {
		if (bpf_probe_read_user(context->aad, k_aad_tls12, (void *)record->aad))
			return false;
		header = context->aad + k_sequence;
		context->version = tls_1_2;
	} else {
		return false;
	}
	context->aad_length = record->aad_length;
	return header[1] == 3 && header[2] == 3 && (__u32)(header[3] << 8 | header[4]) == length;
}

/*
 * The nonce. False: it is the one that was heard last, so one function of the library has called another for the same
 * record, as AES-GCM's do.
 */
static __always_inline bool aead_nonce(const struct aead_record *record, struct context *context)
{
	struct nonce nonce;

	if (bpf_probe_read_user(&nonce, sizeof(nonce), (void *)record->nonce))
		return false;
	if (context->algorithm != cipher_chacha20_poly1305) {
		if (context->flags & context_has_nonce && !__builtin_memcmp(&context->nonce, &nonce, sizeof(nonce)))
			return false;
		context->flags |= context_has_nonce;
	} else if (context->version == tls_1_2) {
		nonce_xor_number(&nonce, context->aad); /* seal_begin wants the fixed part (RFC 7905 2) */
	}
	context->nonce = nonce;
	return true;
}

/* A context whose key nobody heard, that seals what can only be a TLS record: older than the hooks, or evicted. */
static __always_inline struct context *aead_missed(const struct aead_record *record, const struct context_key *name)
{
	struct context missed = {
		.name.workload = name->workload, .algorithm = cipher_unknown, .flags = context_keyless};

	if (!aead_frame(record, &missed))
		return NULL;
	context_remember(name, &missed);
	return context_find(name);
}

/*
 * The context is told what the next record is. True: go on to seal it. Not inlined, like what reads the arguments: the
 * stack that one of them needs is the other's too.
 */
static __noinline bool aead_order(const struct aead_record *record, __u32 workload)
{
	struct context_key name = {
		.address = record->context, .process = bpf_get_current_pid_tgid() >> 32, .workload = workload};
	struct context *context = context_find(&name);
	__u64 length = record->length + record->extra_length;

	if (!record->length || length > k_text_max || record->extra_length > 1)
		return false;
	if (!context)
		context = aead_missed(record, &name);
	if (!context || context->flags & context_deaf || !aead_frame(record, context))
		return false;
	if (context->algorithm != cipher_unknown && !aead_nonce(record, context))
		return false;
	return seal_order(&name, record->text, length, record->extra_length ? record->extra : 0, stack_boringssl,
			  false);
}

/* The text in one piece, and perhaps the inner type in another. */
static __always_inline bool aead_read_vectors(struct aead_record *record, struct pt_regs *ctx,
					      const struct sealv_stack *stack)
{
	struct crypto_iovec vectors[2] = {};
	struct crypto_ivec aad;

	if (stack->aad_count != 1 || bpf_probe_read_user(&aad, sizeof(aad), (void *)stack->aads))
		return false;
	if (ctx->rdx == 1 ? bpf_probe_read_user(vectors, sizeof(vectors[0]), (void *)ctx->rsi) :
	    ctx->rdx == 2 ? bpf_probe_read_user(vectors, sizeof(vectors), (void *)ctx->rsi) :
			    true)
		return false;
	record->text = vectors[0].in;
	record->length = vectors[0].length;
	record->extra = vectors[1].in;
	record->extra_length = vectors[1].length;
	record->aad = aad.in;
	record->aad_length = aad.length;
	record->nonce = stack->nonce;
	return true;
}

/* By the length of the nonce, 12 in TLS, it is known which of the two has been called: no pointer has this value. */
static __noinline bool aead_read(struct aead_record *record, struct pt_regs *ctx)
{
	union {
		struct scatter_stack scatter;
		struct sealv_stack vectors;
	} stack;

	if (bpf_probe_read_user(&stack, sizeof(stack), (void *)(ctx->rsp + k_stack_arguments)))
		return false;
	record->context = ctx->rdi;
	if (stack.scatter.nonce_length != k_nonce)
		return stack.vectors.nonce_length == k_nonce && aead_read_vectors(record, ctx, &stack.vectors);
	record->text = stack.scatter.in;
	record->length = stack.scatter.in_length;
	record->extra = stack.scatter.extra;
	record->extra_length = stack.scatter.extra_length;
	record->aad = stack.scatter.aad;
	record->aad_length = stack.scatter.aad_length;
	record->nonce = ctx->r9;
	return true;
}

/* seal_scatter, sealv */
SEC("uprobe")
int aead_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct aead_record record = {};

	if (workload && aead_read(&record, ctx) && aead_order(&record, workload))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

#endif

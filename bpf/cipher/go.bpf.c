/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Go's crypto/tls on amd64: every record is sealed by one of two assembly functions, whose arguments are all that there
 * is to know of it: key, nonce, text and where the record is being made. Assembly is called by ABI0, with arguments on
 * the stack, whatever the compiler does elsewhere. Unchanged in 1.19 to 1.26: crypto/aes/aes_gcm.go, then
 * crypto/internal/fips140/aes/gcm/gcm_asm.go; golang.org/x/crypto/chacha20poly1305/chacha20poly1305_amd64.go;
 * crypto/tls/conn.go, (*halfConn).encrypt.
 *
 * There is no call that installs a key, and none whose absence could be missed: a connection is heard from whichever
 * record on. The probes stand on the branch by which a function asks for more stack, after which it is run again from
 * its start: that hit is told by the flags, and passed over.
 *
 * Nothing here belongs to a thread: a goroutine runs now on this one, now on that.
 */
#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/seal_steps.h"
#include "../maps/workloads.h"
#include "key.h"
#include "report.h"

KLOAK_LICENSE;

#if defined(__TARGET_ARCH_x86)

enum {
	k_arguments = 8, /* from the stack pointer: after the address to return to */
	k_header = 5,
	k_aad_tls12 = 13,
	k_explicit = 8, /* RFC 5288 3 */
	/* Words of an expanded AES key. It begins with the key itself (FIPS 197 5.2). */
	k_schedule_aes_128 = 44,
	k_schedule_aes_256 = 60,
	k_chacha_state = 16, /* words: RFC 8439 2.3 */
	/* The branch is `jbe`: taken with CF or ZF. */
	k_carry = 0x01,
	k_zero = 0x40,
};

struct go_slice {
	__u64 data;
	__u64 length;
	__u64 capacity;
};

/* func gcmAesEnc(productTable *[256]byte, dst, src []byte, ctr, T *[16]byte, ks []uint32) */
struct go_gcm_call {
	__u64 table;
	struct go_slice out;
	struct go_slice text;
	__u64 counter;
	__u64 hash;
	struct go_slice schedule;
};

/* func chacha20Poly1305Seal(dst []byte, key []uint32, src, ad []byte) */
struct go_chacha_call {
	struct go_slice out;
	struct go_slice state;
	struct go_slice text;
	struct go_slice aad;
};

/* One call, whatever the cipher. */
struct go_record {
	__u64 text;
	__u32 length; /* of the text */
	__u8 algorithm;
	__u8 version;
	__u8 aad_length;
	__u8 aad[k_aad_tls12];
	struct nonce nonce;
	struct raw_key key;
};

/* The workload that calls; 0: none, or the call is about to be made once more. */
static __always_inline __u32 go_caller(struct pt_regs *ctx)
{
	return ctx->eflags & (k_carry | k_zero) ? 0 : current_workload();
}

static __always_inline bool go_take_text(struct go_record *record, const struct go_slice *slice)
{
	record->text = slice->data;
	record->length = slice->length;
	return slice->length && slice->length <= k_text_max;
}

static __always_inline bool go_header(const __u8 *header, __u32 length)
{
	return header[1] == 3 && header[2] == 3 && (__u32)(header[3] << 8 | header[4]) == length;
}

static __always_inline bool go_header_tls13(const __u8 *header, __u32 length)
{
	return header[0] == k_content_application_data && go_header(header, length + k_tag_bytes);
}

/*
 * True: go on to seal it. The kernel's context is named by the key: Go's own may lie where another lay before, or move.
 */
static __noinline bool go_order(const struct go_record *record, __u32 workload)
{
	struct context_key name = {.address = (__u64)record->key.words[1] << 32 | record->key.words[0],
				   .process = bpf_get_current_pid_tgid() >> 32,
				   .workload = workload};
	struct context *context = context_find(&name);

	if (!context || context->algorithm != record->algorithm ||
	    __builtin_memcmp(&context->key, &record->key, sizeof(record->key))) {
		struct context fresh = {.name.workload = workload,
					.algorithm = record->algorithm,
					.flags = context_keyed,
					.key = record->key};

		if (!context_remember(&name, &fresh)) {
			report_no_context(workload, record->algorithm, stack_go);
			return false;
		}
		context = context_find(&name);
	}
	if (!context || context->flags & context_deaf)
		return false;
	context->version = record->version;
	context->nonce = record->nonce;
	context->aad_length = record->aad_length;
	memcpy(context->aad, record->aad, sizeof(context->aad));
	return seal_order(&name, record->text, record->length, 0, stack_go, false);
}

/*
 * The additional data is not among the arguments. In TLS 1.3 it is the record's header, which stands before the
 * ciphertext; in TLS 1.2 it is made of that header and the explicit nonce after it, which is the record's number. Other
 * uses of AES-GCM have no such thing there.
 */
static __always_inline bool go_gcm_frame(struct go_record *record, const struct go_gcm_call *call)
{
	__u8 head[k_header + k_explicit];

	if (bpf_probe_read_user(head, k_header, (void *)(call->out.data - k_header)))
		return false;
	if (go_header_tls13(head, record->length)) {
		record->version = tls_1_3;
		record->aad_length = k_header;
		memcpy(record->aad, head, k_header);
		return true;
	}
	if (bpf_probe_read_user(head, sizeof(head), (void *)(call->out.data - sizeof(head))) ||
	    !go_header(head, record->length) || __builtin_memcmp(head + k_header, &record->nonce.words[1], k_explicit))
		return false;
	record->version = tls_1_2;
	record->aad_length = k_aad_tls12;
	memcpy(record->aad, head + k_header, k_explicit);
	memcpy(record->aad + k_explicit, head, k_header);
	return true;
}

static __noinline bool go_gcm_read(__u64 arguments, struct go_record *record)
{
	struct go_gcm_call call;

	if (bpf_probe_read_user(&call, sizeof(call), (void *)arguments) || !go_take_text(record, &call.text))
		return false;
	if (bpf_probe_read_user(&record->nonce, sizeof(record->nonce), (void *)call.counter) ||
	    !go_gcm_frame(record, &call))
		return false;
	if (call.schedule.length == k_schedule_aes_128)
		record->algorithm = cipher_aes_128_gcm;
	else if (call.schedule.length == k_schedule_aes_256)
		record->algorithm = cipher_aes_256_gcm;
	else
		return false;
	return record->algorithm == cipher_aes_128_gcm ?
		       !bpf_probe_read_user(&record->key, 16, (void *)call.schedule.data) :
		       !bpf_probe_read_user(&record->key, 32, (void *)call.schedule.data);
}

static __noinline bool go_chacha20_read(__u64 arguments, struct go_record *record)
{
	__u32 state[k_chacha_state];
	struct go_chacha_call call;

	if (bpf_probe_read_user(&call, sizeof(call), (void *)arguments) || !go_take_text(record, &call.text) ||
	    call.state.length != k_chacha_state)
		return false;
	if (call.aad.length == k_header) {
		if (bpf_probe_read_user(record->aad, k_header, (void *)call.aad.data) ||
		    !go_header_tls13(record->aad, record->length))
			return false;
		record->version = tls_1_3;
	} else if (call.aad.length == k_aad_tls12) {
		if (bpf_probe_read_user(record->aad, k_aad_tls12, (void *)call.aad.data) ||
		    !go_header(record->aad + k_explicit, record->length))
			return false;
		record->version = tls_1_2;
	} else {
		return false;
	}
	record->aad_length = call.aad.length;
	if (bpf_probe_read_user(state, sizeof(state), (void *)call.state.data))
		return false;
	memcpy(&record->key, &state[4], sizeof(record->key));
	memcpy(&record->nonce, &state[13], sizeof(record->nonce));
	if (record->version == tls_1_2)
		nonce_xor_number(&record->nonce, record->aad); /* seal_begin wants the fixed part */
	record->algorithm = cipher_chacha20_poly1305;
	return true;
}

/* gcmAesEnc */
SEC("uprobe")
int go_gcm_seal(struct pt_regs *ctx)
{
	__u32 workload = go_caller(ctx);
	struct go_record record = {};

	if (workload && go_gcm_read(ctx->rsp + k_arguments, &record) && go_order(&record, workload))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/* chacha20Poly1305Seal */
SEC("uprobe")
int go_chacha20_seal(struct pt_regs *ctx)
{
	__u32 workload = go_caller(ctx);
	struct go_record record = {};

	if (workload && go_chacha20_read(ctx->rsp + k_arguments, &record) && go_order(&record, workload))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

#endif

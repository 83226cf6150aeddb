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
#include "../maps/workloads.h"

KLOAK_LICENSE;

#if defined(__TARGET_ARCH_x86)

#include "whole.h"

enum {
	k_arguments = 8, /* from the stack pointer: after the address to return to */
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

/* The workload that calls; 0: none, or the call is about to be made once more. */
static __always_inline __u32 go_caller(struct pt_regs *ctx)
{
	return ctx->eflags & (k_carry | k_zero) ? 0 : current_workload();
}

static __always_inline bool go_take_text(struct whole_record *record, const struct go_slice *slice)
{
	record->text = slice->data;
	record->length = slice->length;
	return slice->length && slice->length <= k_text_max;
}

/*
 * The additional data is not among the arguments. In TLS 1.3 it is the record's header, which stands before the
 * ciphertext; in TLS 1.2 it is made of that header and the explicit nonce after it, which is the record's number. Other
 * uses of AES-GCM have no such thing there.
 */
static __always_inline bool go_gcm_frame(struct whole_record *record, const struct go_gcm_call *call)
{
	__u8 head[k_record_header + k_explicit];

	if (bpf_probe_read_user(head, k_record_header, (void *)(call->out.data - k_record_header)))
		return false;
	if (whole_header_tls13(head, record->length)) {
		record->version = tls_1_3;
		record->aad_length = k_record_header;
		memcpy(record->aad, head, k_record_header);
		return true;
	}
	if (bpf_probe_read_user(head, sizeof(head), (void *)(call->out.data - sizeof(head))) ||
	    !whole_header(head, record->length) ||
	    __builtin_memcmp(head + k_record_header, &record->nonce.words[1], k_explicit))
		return false;
	record->version = tls_1_2;
	record->aad_length = k_aad_tls12;
	memcpy(record->aad, head + k_record_header, k_explicit);
	memcpy(record->aad + k_explicit, head, k_record_header);
	return true;
}

static __noinline bool go_gcm_read(__u64 arguments, struct whole_record *record)
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

static __noinline bool go_chacha20_read(__u64 arguments, struct whole_record *record)
{
	__u32 state[k_chacha_state];
	struct go_chacha_call call;

	if (bpf_probe_read_user(&call, sizeof(call), (void *)arguments) || !go_take_text(record, &call.text) ||
	    call.state.length != k_chacha_state)
		return false;
	if (!whole_frame(record, call.aad.data, call.aad.length))
		return false;
	if (bpf_probe_read_user(state, sizeof(state), (void *)call.state.data))
		return false;
	memcpy(&record->key, &state[4], sizeof(record->key));
	memcpy(&record->nonce, &state[13], sizeof(record->nonce));
	whole_fixed_nonce(record);
	record->algorithm = cipher_chacha20_poly1305;
	return true;
}

/* gcmAesEnc */
SEC("uprobe")
int go_gcm_seal(struct pt_regs *ctx)
{
	__u32 workload = go_caller(ctx);
	struct whole_record record = {};

	if (workload && go_gcm_read(ctx->rsp + k_arguments, &record) && whole_order(&record, workload, stack_go))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

/* chacha20Poly1305Seal */
SEC("uprobe")
int go_chacha20_seal(struct pt_regs *ctx)
{
	__u32 workload = go_caller(ctx);
	struct whole_record record = {};

	if (workload && go_chacha20_read(ctx->rsp + k_arguments, &record) && whole_order(&record, workload, stack_go))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

#endif

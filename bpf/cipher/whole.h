/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For a stack in which all that there is to know of a record is known at once: key, nonce, text, additional data. No call
 * installs a key, and none is missed; a context is made for what is heard, and named by its key.
 */
#pragma once

#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/seal_steps.h"
#include "key.h"
#include "report.h"

enum {
	k_record_header = 5,
	k_aad_tls12 = 13,
	k_sequence = 8,
};

/* One record, whatever the cipher. */
struct whole_record {
	__u64 text;
	__u32 length; /* of the text */
	__u8 algorithm;
	__u8 version;
	__u8 aad_length;
	__u8 aad[k_aad_tls12];
	struct nonce nonce;
	struct raw_key key;
};

static __always_inline bool whole_header(const __u8 *header, __u32 length)
{
	return header[1] == 3 && header[2] == 3 && (__u32)(header[3] << 8 | header[4]) == length;
}

static __always_inline bool whole_header_tls13(const __u8 *header, __u32 length)
{
	return header[0] == k_content_application_data && whole_header(header, length + k_tag_bytes);
}

/* The version, by additional data that must name the text's length. False: no record of TLS. */
static __always_inline bool whole_frame(struct whole_record *record, __u64 aad, __u64 length)
{
	if (length == k_record_header) {
		if (bpf_probe_read_user(record->aad, k_record_header, (void *)aad) ||
		    !whole_header_tls13(record->aad, record->length))
			return false;
		record->version = tls_1_3;
	} else if (length == k_aad_tls12) {
		if (bpf_probe_read_user(record->aad, k_aad_tls12, (void *)aad) ||
		    !whole_header(record->aad + k_sequence, record->length))
			return false;
		record->version = tls_1_2;
	} else {
		return false;
	}
	record->aad_length = length;
	return true;
}

/* With ChaCha20-Poly1305 in TLS 1.2 seal_begin wants the fixed part of the nonce (RFC 7905 2). */
static __always_inline void whole_fixed_nonce(struct whole_record *record)
{
	if (record->version == tls_1_2)
		nonce_xor_number(&record->nonce, record->aad);
}

/*
 * True: go on to seal it. The kernel's context is named by the key: the library's own may lie where another lay before, or
 * move.
 */
static __noinline bool whole_order(const struct whole_record *record, __u32 workload, __u32 stack)
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
			report_no_context(workload, record->algorithm, stack);
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
	return seal_order(&name, record->text, record->length, 0, stack, false);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Verb `key installed`: a library tells a cipher context its key. */
#pragma once

#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/events.h"

static __always_inline __u32 key_bytes(__u8 algorithm)
{
	return algorithm == cipher_aes_128_gcm ? 16 : 32;
}

/*
 * Only kept: what it costs to make a key_state of it waits for the first application data. A handshake key, and that of
 * a server whose answers are no requests, never need one.
 */
static __always_inline void key_installed(struct context *context, const void *key)
{
	context->flags = 0;
	context->sealed = 0;
	context->version = tls_unknown;
	context->aad_length = 0;
	if (context->algorithm == cipher_aes_128_gcm ? bpf_probe_read_user(&context->key, 16, key) :
						       bpf_probe_read_user(&context->key, 32, key)) {
		count(counter_memory_unreadable);
		return;
	}
	context->flags = context_keyed;
}

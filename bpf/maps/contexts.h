/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A library's cipher context, by its address in its process: which key it holds, and what it has been told for the next
 * record. Not LRU, so that one workload cannot evict another's. Many are freed without a word: user space sweeps those
 * whose process has ended, and those that are idle.
 */
#pragma once

#include "../core.h"
#include "../crypto/block.h"
#include "../types/record.h"
#include "shares.h"

struct context_key {
	__u64 address;
	__u32 process; /* thread group id in the initial pid namespace */
	__u32 workload;
};

enum context_flag {
	context_keyed = 1,     /* `key` is valid */
	context_named = 2,     /* `name` is valid */
	context_deaf = 4,      /* its first words were not an HTTP/1.1 request: not heard any more */
	context_has_nonce = 8, /* the library has given the next record's nonce */
	context_has_aad = 16,
	context_opens = 32,    /* it decrypts: known only so as not to be taken for one whose key was missed */
	context_keyless = 64,  /* it seals TLS records under a key that was installed before anybody listened */
	context_bare = 128,    /* the next record of TLS 1.2 is given as text alone, and its nonce is all there */
};

struct context {
	__u64 used_ns; /* CLOCK_MONOTONIC of the last record, or when it was made; ~0 where records are not looked at */
	struct key_name name;
	struct raw_key key;
	struct nonce nonce; /* of the next record; TLS 1.2: the fixed part, 4 bytes with GCM */
	struct nonce first_nonce; /* TLS 1.3, under this key */
	__u8 aad[13]; /* of the next record */
	__u8 aad_length;
	__u8 algorithm; /* enum cipher_algorithm */
	__u8 version; /* enum tls_version */
	__u8 flags; /* enum context_flag, several */
	__u8 _pad[7];
	__u32 sealed; /* TLS 1.3: records under this key before it had a key_state */
	__u32 _pad2;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_contexts);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct context_key);
	__type(value, struct context);
} contexts SEC(".maps");

static __always_inline struct context *context_find(const struct context_key *key)
{
	return bpf_map_lookup_elem(&contexts, key);
}

/* false: there is no room. It stays unknown, and is not heard. */
static __always_inline bool context_remember(const struct context_key *key, struct context *context)
{
	context->used_ns = context->flags & context_opens ? ~0ull : bpf_ktime_get_ns();
	if (!bpf_map_update_elem(&contexts, key, context, BPF_EXIST))
		return true;
	if (share_take(key->workload, table_contexts, 1)) {
		if (!bpf_map_update_elem(&contexts, key, context, BPF_NOEXIST))
			return true;
		share_give(key->workload, table_contexts, 1);
	}
	count(counter_contexts_full);
	return false;
}

static __always_inline void context_forget(const struct context_key *key)
{
	if (!bpf_map_delete_elem(&contexts, key))
		share_give(key->workload, table_contexts, 1);
}

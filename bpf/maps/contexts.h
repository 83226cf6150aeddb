/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A library's cipher context, by its address in its process: which key it holds, and what it has been told for the next
 * record. LRU: contexts are freed without a word, and what is evicted is only no longer heard.
 */
#pragma once

#include "../core.h"
#include "../crypto/block.h"
#include "../types/record.h"

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
};

struct context {
	struct key_name name;
	struct raw_key key;
	struct nonce nonce;       /* of the next record; TLS 1.2: the fixed part, 4 bytes with GCM */
	struct nonce first_nonce; /* TLS 1.3, under this key */
	__u8 aad[13];         /* of the next record */
	__u8 aad_length;
	__u8 algorithm; /* enum cipher_algorithm */
	__u8 version;   /* enum tls_version */
	__u8 flags;     /* enum context_flag, several */
	__u8 _pad[7];
	__u32 sealed;   /* TLS 1.3: records under this key before it had a key_state */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct context_key);
	__type(value, struct context);
} contexts SEC(".maps");

static __always_inline struct context *context_find(const struct context_key *key)
{
	return bpf_map_lookup_elem(&contexts, key);
}

static __always_inline void context_remember(const struct context_key *key, const struct context *context)
{
	bpf_map_update_elem(&contexts, key, context, BPF_ANY);
}

static __always_inline void context_forget(const struct context_key *key)
{
	bpf_map_delete_elem(&contexts, key);
}

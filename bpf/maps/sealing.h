/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The record that the running thread is sealing. Storage of the task, not of the CPU: uprobe programs can be preempted
 * (since 6.0 only migration is off), and another thread's probe on the same CPU would find our plaintext under its own.
 */
#pragma once

#include "../core.h"
#include "../crypto/aes.h"
#include "../crypto/poly1305.h"
#include "../http/h1.h"
#include "../types/record.h"
#include "contexts.h"

/* Apart from the text there is padding too: what stands in the last block is not looked for. */
#define k_type_hidden (~0ull)

/* What the program of a stack has found out about a record. */
struct seal_order {
	struct context_key context;
	__u64 text;
	__u64 type_at;     /* where the inner type stands if not behind the text, or k_type_hidden; 0: there */
	__u32 length;      /* of the text, in TLS 1.3 with inner type and padding */
	__u8 stack;        /* enum tls_stack */
	__u8 nonce_later;  /* TLS 1.2 GCM of a library that makes the explicit nonce as it seals */
	__u8 _pad[2];
};

struct sealing {
	struct seal_order order;
	__u64 serial; /* of the key's state */
	struct key_name key;
	struct aes_key aes; /* scratch of context_name */
	struct dns_name name;     /* scratch of request_host */
	__u64 host;               /* hash of the request's Host, without port */
	__u64 host_suffix;        /* and of what follows its first dot; 0: no dot */
	__u8 candidate[64];       /* scratch of placeholder_find: text that may be a placeholder's */
	struct poly1305_aad aad;  /* as it enters the tag */
	struct chacha20_block one_time; /* scratch of publish_tag_poly1305, like the next */
	struct block tags[2];
	struct nonce nonce;
	__u8 edge[k_edits_max][2]; /* base64: what to XOR to the characters that an edit shares with its neighbours */
	__u8 waiting;   /* TLS 1.2 GCM: parsed, to be published when the nonce can be read */
	__u8 type;      /* inner content type */
	__u8 flags;     /* enum mark_flag, several */
	__u8 host_known; /* `host` and `host_suffix` are this request's */
	__u8 complete;   /* all of the text has been copied */
	__u8 refused;    /* enum reason: of the first placeholder that stays */
	__u8 nameless;   /* there is no room for its fingerprint */
	__u8 _pad;
	__u32 index;    /* of the record under its key */
	__u32 length;   /* of the plaintext: with inner type and padding in TLS 1.3 */
	__u32 blocks;   /* of 16 bytes, the last perhaps short */
	__u32 head;     /* blocks from the start that are copied, computed and proven */
	__u32 tail;     /* the first of those up to the end */
	__u32 edit;     /* scratch of seal_chunks, like the next */
	__u32 piece;
	__u32 end; /* the first block of those that were copied to know the inner type: the last, or that before */
	struct edit refusal; /* the first placeholder that stays, as far as known; sealing->refused says why */
	struct patch patch;
	struct h1_parser overheard; /* of a record that cannot be patched: never anything but lost */
	struct region_chunk chunk;
	struct h1_scan scan; /* scan.text: the plaintext, and from seal_encrypt on the ciphertext */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sealing);
} sealings SEC(".maps");

/* Of the running thread, made when there is none; NULL without memory. */
static __always_inline struct sealing *sealing_take(void)
{
	return bpf_task_storage_get(&sealings, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline struct sealing *sealing_find(void)
{
	return bpf_task_storage_get(&sealings, bpf_get_current_task_btf(), NULL, 0);
}

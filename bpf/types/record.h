/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the cipher side tells the wire side about a sealed record. */
#pragma once

#include "common.h"
#include "secret.h"

/* A traffic key by what it does, not by where it lies: AES_K(0^128) for AES, a block of keystream for ChaCha20. */
struct key_name {
	__u32 workload;
	__u32 _pad;
	__u8 id[16];
};

/* Value of map `fingerprints`, keyed by a record's first 16 ciphertext bytes. Only the first record of a key and those
 * that carry a patch are entered; the others are found by their index in the key's ring. */
struct sighting {
	struct key_name key;
	__u64 serial; /* of the key */
	__u32 index;  /* of the record under its key, from 0 */
	__u32 _pad;
	__u64 sealed_ns; /* CLOCK_MONOTONIC */
};

enum mark_flag {
	mark_has_patch = 1,   /* map `patches` has an entry for it: edits, or a reason why not */
	mark_idle_after = 2,  /* after this record the parser stands between two requests */
	mark_unproven = 4,    /* the cipher side could not follow (memory, order): closes the flow */
};

/*
 * One sealed record in the ring of its key. The ciphertext that the kernel computed is hashed: blocks [0, head) and
 * [tail, all), a last short block zero-padded, then one block {length, index, head, tail} of little-endian u32.
 */
struct record_mark {
	__u64 mac;          /* SipHash-2-4 under the data plane's own key */
	__u32 index;
	__u16 length; /* bytes of ciphertext without tag (and without explicit nonce); in TLS 1.3 with the inner type */
	__u16 head_blocks; /* at least 1 */
	__u16 tail_block; /* at most the last block */
	__u8 type; /* inner content type: 23 application data, 22 handshake, 21 alert */
	__u8 flags; /* enum mark_flag */
	__u32 _pad;
};

/* 4 MB of records of 16 KB may wait in the socket, the most that tcp_wmem lets it have unless it is raised. */
enum { k_mark_ring = 256 };

/* Key of `patches` (chunk 0) and of `region_chunks`. */
struct patch_key {
	__u64 serial;
	__u32 index;
	__u32 chunk;
};

struct edit {
	__u32 secret;
	__u16 offset; /* in the record's plaintext */
	__u16 length; /* as encoded */
	__u8 encoding;
	__u8 slot; /* enum slot, one */
	__u8 host_allowed; /* the request's own Host is a host that this secret allows */
	__u8 proof; /* enum proof of the secret */
	struct header_name header; /* for the audit record */
};

/*
 * Value of map `patches`: the edits of one record, or (edit_count 0) why a placeholder in it stays. The bytes are in
 * `region_chunks`. All edits are applied, or none.
 */
struct patch {
	__u64 host; /* hash of the request's Host, port stripped */
	__u64 sealed_ns;
	__u32 workload;
	__u32 process; /* thread group id in the initial pid namespace */
	char command[16];
	__u8 tag_delta[k_tag_bytes];
	__u16 length; /* as in the record's mark */
	__u16 region_bytes; /* of ciphertext in region_chunks: every edit lies inside, and all header text of its requests */
	__u8 algorithm; /* enum cipher_algorithm */
	__u8 version; /* enum tls_version */
	__u8 stack; /* enum tls_stack */
	__u8 protocol; /* enum protocol */
	__u8 reason; /* enum reason: edits[edit_count] is a placeholder that stays, as far as it is known */
	__u8 edit_count;
	__u8 keeps; /* 1: an edit lies in a header that the server may be told to send itself again (RFC 7541 6.1) */
	__u8 _pad[5];
	__u8 fingerprint[k_fingerprint_bytes];
	struct edit edits[k_edits_max];
};

enum { k_region_chunk_bytes = 256 };

/* 256 bytes of a patched record: what must stand on the wire before the patch, and what is XORed to it. */
struct region_chunk {
	__u8 ciphertext[k_region_chunk_bytes];
	__u8 delta[k_region_chunk_bytes];
	__u32 workload;
	__u32 _pad;
};

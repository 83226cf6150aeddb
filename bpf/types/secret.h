/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Secrets, their placeholders and where they may go, as user space compiles them for the kernel. */
#pragma once

#include "common.h"

/*
 * Key of map `tokens`: the first 16 bytes of a placeholder from its marker on ("kloak:" and what follows). A placeholder
 * with fewer than 16 bytes from there is entered by its first 8, zero-padded. Workload 0 holds every token that any
 * workload has, so that a placeholder of somebody else's is told from text that only looks like one.
 */
struct token_key {
	__u32 workload;
	__u32 _pad;
	__u8 token[k_token_bytes];
};

struct header_name {
	__u8 length;
	char text[k_header_name_max]; /* lower case, zero-padded */
};

/* Value of map `secrets`, keyed by a number that user space gives out once: a new value is a new number. */
struct secret {
	__u16 length;        /* bytes of the value, and of its placeholder */
	__u16 marker_offset; /* where "kloak:" starts in the placeholder (length of the prefix) */
	__u8 proof;          /* enum proof */
	__u8 slots;          /* enum slot, several */
	__u8 header_count;   /* of headers[] */
	__u8 _pad;
	__u16 huffman_bits;  /* of the value, and of its placeholder, in HPACK's Huffman code */
	__u16 huffman_start; /* where "kloak:" starts there */
	struct header_name headers[4]; /* for slot_named_header */
};

/*
 * Map `secret_chunks`: the placeholder as it stands in the text under one encoding, and what turns it into the secret,
 * 64 bytes at a time. Raw: `delta` is the XOR of the bytes. Base64: the characters that hold at least one bit of the
 * placeholder; of a first or last character shared with its neighbour `expected` is the character with the neighbour's
 * bits zero, and `delta` the XOR of the two 6-bit values; of all others the XOR of the characters. Huffman: the bytes that
 * hold at least one bit of it, a neighbour's bits zero in both.
 */
struct secret_chunk_key {
	__u32 secret;
	__u16 encoding; /* enum encoding */
	__u16 index;    /* offset / 64 */
};

enum { k_secret_chunk_bytes = 64 };

struct secret_chunk {
	__u8 expected[k_secret_chunk_bytes];
	__u8 delta[k_secret_chunk_bytes];
};

enum host_kind {
	host_exact = 1,    /* `name` hashes the whole name */
	host_wildcard = 2, /* `name` hashes what follows the first dot */
};

/* Key of map `hosts`. Secret 0: the name is allowed by some secret, so its address is worth attesting. */
struct host_key {
	__u32 secret;
	__u32 kind; /* enum host_kind */
	__u64 name; /* SipHash-2-4 of the lower-case name without trailing dot, under the data plane's own key */
};

enum attest_mode { attest_certificate = 0, attest_dns = 1, attest_none = 2 };

/* Value of `hosts` and `networks`. */
struct host_rule {
	__u16 ports[8]; /* host byte order; unused are 0 */
	__u8 port_count; /* 0: any port */
	__u8 attest;     /* enum attest_mode */
	__u8 _pad[6];
};

/* Key of the LPM trie `networks`, for IP and CIDR hosts; IPv4 as ::ffff:a.b.c.d. prefix counts `secret` too. */
struct network_key {
	__u32 prefix; /* bits: 32 + those of the address */
	__u32 secret; /* network byte order, so that the trie compares it first */
	__u8 address[16];
};

/* Key of map `attestations`; name is 0 for a destination without SNI (IP and CIDR hosts). */
struct attestation_key {
	__u8 address[16];
	__u64 name;
	__u16 port; /* host byte order */
	__u8 mode;  /* enum attest_mode */
	__u8 _pad[5];
};

struct attestation {
	__u64 expires_ns; /* CLOCK_MONOTONIC */
	__u8 granted;     /* 1: this address is that host; 0: it is not */
	__u8 _pad[7];
};

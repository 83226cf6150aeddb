/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What is known of the packet at hand, and room to work in. Per CPU: tc programs run with bottom halves off and do not
 * nest. In map memory rather than on the stack because its numbers change with every turn of a loop: on the stack the
 * verifier would follow each value they can take.
 */
#pragma once

#include "../core.h"
#include "../maps/flows.h"
#include "../maps/patches.h"
#include "../types/secret.h"

/* Set before load. */
volatile const __u32 require_socket = 1;               /* substitute only in packets that a TCP socket has sent */
volatile const __u64 attest_hold_ns = 10000000000ull;  /* longest wait for an attestation */
volatile const __u64 attest_ask_ns = 1000000000ull;    /* between two questions for one, per flow */
volatile const __u64 tell_ns = 0;                      /* between two reports of substitutions, per flow */
volatile const __u64 patch_age_ns = 60000000000ull;    /* a record that leaves later than this stays as it is */

enum walk_flag {
	walk_ipv4 = 1,
	walk_socket = 2, /* sent by the TCP socket that owns these ports */
	walk_held = 4,   /* ends before a record that cannot be decided yet */
	walk_unread = 8, /* a part of its payload could not be read */
	walk_altered = 16,
	walk_marked = 32, /* the record at hand is in its key's ring as it stands on the wire */
};

enum tcp_flag { tcp_fin = 1, tcp_syn = 2, tcp_rst = 4, tcp_ack = 16, tcp_urgent = 32 };

struct walk {
	struct flow_key key;
	struct flow_key fresh_key; /* of the other direction */
	struct fragment_key fragment;
	__u64 now;
	__u64 checksum; /* what the patches so far add to the checksum of the payload, not folded */
	__u32 transport; /* offset of the TCP header */
	__u32 payload;   /* offset of the payload */
	__u32 length;    /* of the payload */
	__u32 sequence;  /* of its first byte */
	__u32 acknowledged;
	__u32 at;        /* offset of the next byte to look at */
	__u32 end;       /* offset after the payload */
	__u32 record_at; /* offset of the first byte in this packet of the record whose header is being read */
	__u8 tcp_flags;
	__u8 flags; /* enum walk_flag */
	__u8 carry_before; /* bytes of that record that have left in earlier packets */
	__u8 fragmented;
	__u8 attest;    /* enum attest_mode of the last verdict */
	__u8 edit;      /* that the last verdict is about */
	__u8 last_fragment;
	__u8 _pad[1];
	struct patch_key patch;
	struct patch_key chunk;
	struct key_name name;
	struct fingerprint fingerprint;
	struct host_key host;
	struct network_key network;
	struct attestation_key attestation;
	struct flow fresh;
	struct host_name host_name;
	__u8 bytes[64];
	/* Two windows of a region chunk; the second half is never used, but the verifier adds the bounds of offset and size. */
	__u8 before[2 * k_region_chunk_bytes];
	__u8 after[2 * k_region_chunk_bytes];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

/* Makes new entries of large maps without a copy on the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hello);
} empty_hello SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct outstanding);
} empty_outstanding SEC(".maps");

static __always_inline struct walk *walk_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&walks, &zero);
}

/* a is before b, modulo 2^32 (RFC 9293 3.4). */
static __always_inline bool sequence_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

static __always_inline __u32 walk_sequence(const struct walk *walk, __u32 offset)
{
	return walk->sequence + (offset - walk->payload);
}

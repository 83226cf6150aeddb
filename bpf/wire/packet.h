/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From the Ethernet header to the TCP payload. Everything is copied out: payload pages of GSO packets are not linear. */
#pragma once

#include "walk.h"

enum packet_kind {
	packet_other = 0, /* no TCP that we understand: passed as it is */
	packet_tcp = 1,
	packet_rest = 2, /* TCP, but a later fragment */
	packet_broken = 3, /* TCP, but its header is cut; or what a receiver would find in it we do not */
};

enum {
	k_ethernet_bytes = 14,
	k_ipv4_more_fragments = 0x2000,
	k_ipv4_fragment_offset = 0x1fff,
	k_ipv6_headers_max = 6,
	k_vlan_tags_max = 2, /* in the frame, beside the one that the device has taken into skb->vlan_tci */
};

enum ether_type { ether_ipv4 = 0x0800, ether_ipv6 = 0x86dd, ether_vlan = 0x8100, ether_qinq = 0x88a8 };

enum { k_socket_stream = 1 }; /* SOCK_STREAM of include/linux/net.h */

enum next_header { next_hop = 0, next_tcp = 6, next_routing = 43, next_fragment = 44, next_destination = 60 };

static __always_inline __u32 big_endian_16(const __u8 *bytes)
{
	return (__u32)bytes[0] << 8 | bytes[1];
}

static __always_inline __u32 big_endian_32(const __u8 *bytes)
{
	return big_endian_16(bytes) << 16 | big_endian_16(bytes + 2);
}

static __always_inline void packet_map_ipv4(__u8 *to, const __u8 *from)
{
	memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	memcpy(to + 12, from, 4);
}

/* A header that cannot be read: too short a packet is nobody's segment, but what may be one does not leave unseen. */
static __always_inline int packet_unread(const struct __sk_buff *skb, __u32 end)
{
	return skb->len < end ? packet_other : packet_broken;
}

/* Finds the TCP header of an IPv4 packet. */
static __always_inline int packet_ipv4(struct __sk_buff *skb, struct walk *walk, __u32 at)
{
	__u8 header[20];

	if (bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return packet_unread(skb, at + sizeof(header));
	if (header[0] >> 4 != 4 || header[9] != next_tcp)
		return packet_other;
	__u32 size = (header[0] & 15) * 4;
	__u32 total = big_endian_16(header + 2);

	walk->flags |= walk_ipv4;
	packet_map_ipv4(walk->key.source, header + 12);
	packet_map_ipv4(walk->key.destination, header + 16);
	walk->transport = at + size;
	/* BIG TCP over IPv4 (6.3, commit b1a78b9b9886): total length 0 says that it is the packet's. */
	walk->end = total ? at + total : skb->len;
	if (size < sizeof(header) || walk->end > skb->len)
		return packet_other;
	__u32 fragment = big_endian_16(header + 6);

	if (fragment & (k_ipv4_more_fragments | k_ipv4_fragment_offset)) {
		walk->fragmented = 1;
		walk->fragment.identification = big_endian_16(header + 4);
		walk->last_fragment = !(fragment & k_ipv4_more_fragments);
		if (fragment & k_ipv4_fragment_offset)
			return packet_rest;
	}
	return packet_tcp;
}

/*
 * The same for IPv6, through the extension headers that may stand before TCP (RFC 8200 4). Linux reads on through any
 * number of them: where we do not there may be a segment that a flow does not know of, and proof 3 has a gap.
 */
static __always_inline int packet_ipv6(struct __sk_buff *skb, struct walk *walk, __u32 at)
{
	__u8 header[40];

	if (bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return packet_unread(skb, at + sizeof(header));
	if (header[0] >> 4 != 6)
		return packet_other;
	__u32 total = big_endian_16(header + 4);
	__u32 next = header[6];

	memcpy(walk->key.source, header + 8, 16);
	memcpy(walk->key.destination, header + 24, 16);
	/* A jumbogram (RFC 2675; how the kernel marks BIG TCP) has length 0. */
	walk->end = total ? at + sizeof(header) + total : skb->len;
	if (walk->end > skb->len)
		return packet_other;
	at += sizeof(header);
	for (int i = 0; i < k_ipv6_headers_max; i++) {
		if (next == next_tcp) {
			walk->transport = at;
			return packet_tcp;
		}
		if (next != next_hop && next != next_routing && next != next_fragment && next != next_destination)
			return packet_other;
		if (bpf_skb_load_bytes(skb, at, header, 8))
			return packet_broken;
		if (next == next_fragment) {
			walk->fragment.identification = big_endian_32(header + 4);
			walk->last_fragment = !(header[3] & 1);
			if (big_endian_16(header + 2) & ~7u) {
				walk->fragmented = 1;
				/* What follows an extension header stands in the first fragment alone. */
				return header[0] == next_tcp || header[0] == next_destination ? packet_rest :
												packet_other;
			}
			if (header[3] & 1) /* else an atomic fragment (RFC 6946): whole */
				walk->fragmented = 1;
			at += 8;
		} else {
			at += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	return packet_broken;
}

/* Fills all of `walk` that comes from the headers but for key.workload. egress: from the workload. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct walk *walk)
{
	__u32 at = k_ethernet_bytes;
	__u8 bytes[20];
	__u32 type;
	int kind;

	walk->flags = 0;
	walk->fragmented = 0;
	walk->checksum = 0;
	if (bpf_skb_load_bytes(skb, 12, bytes, 2))
		return packet_unread(skb, k_ethernet_bytes);
	type = big_endian_16(bytes);
	/* Tags that the device did not take into skb->vlan_tci. */
	for (int i = 0; i < k_vlan_tags_max; i++) {
		if (type != ether_vlan && type != ether_qinq)
			break;
		if (bpf_skb_load_bytes(skb, at + 2, bytes, 2))
			return packet_unread(skb, at + 4);
		type = big_endian_16(bytes);
		at += 4;
	}
	/* Linux takes off any number of tags with VLAN 0. */
	if (type == ether_vlan || type == ether_qinq)
		return packet_broken;
	if (type == ether_ipv4)
		kind = packet_ipv4(skb, walk, at);
	else if (type == ether_ipv6)
		kind = packet_ipv6(skb, walk, at);
	else
		return packet_other;
	if (kind != packet_tcp)
		return kind;
	if (bpf_skb_load_bytes(skb, walk->transport, bytes, sizeof(bytes)))
		return packet_broken;
	walk->key.source_port = big_endian_16(bytes);
	walk->key.destination_port = big_endian_16(bytes + 2);
	walk->sequence = big_endian_32(bytes + 4);
	walk->acknowledged = big_endian_32(bytes + 8);
	walk->payload = walk->transport + (bytes[12] >> 4) * 4;
	walk->tcp_flags = bytes[13];
	if (walk->payload > walk->end || walk->payload < walk->transport + sizeof(bytes))
		return packet_broken;
	walk->length = walk->end - walk->payload;
	walk->at = walk->payload;
	if (walk->tcp_flags & tcp_syn)
		walk->sequence++; /* of the first byte: a SYN takes one number (and may carry data, RFC 7413) */
	return packet_tcp;
}

/*
 * Was this packet made by the TCP socket that its ports name? With CAP_NET_RAW a workload makes packets of its own: one
 * record for us, another, at the same sequence numbers, for the server. skb->sk survives the way over a veth; it does
 * not survive forwarding inside the workload. A raw socket for TCP has that protocol, and as its port the protocol's
 * number, which may be a connection's port too: only its type tells.
 */
static __always_inline bool packet_from_socket(struct __sk_buff *skb, const struct walk *walk)
{
	struct bpf_sock *socket = skb->sk;

	if (!require_socket)
		return true;
	if (!socket)
		return false;
	socket = bpf_sk_fullsock(socket);
	return socket && socket->type == k_socket_stream && socket->protocol == next_tcp &&
	       socket->src_port == walk->key.source_port && bpf_ntohs(socket->dst_port) == walk->key.destination_port;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* One TCP connection of a workload as the wire side sees it, and the patches that still have to stand in for it. */
#pragma once

#include "common.h"
#include "record.h"

/* Addresses are 16 bytes whatever the family; IPv4 as ::ffff:a.b.c.d. Source is the workload. */
struct flow_key {
	__u32 workload;
	__u16 source_port; /* host byte order, as all ports here */
	__u16 destination_port;
	__u8 source[16];
	__u8 destination[16];
};

enum flow_state {
	flow_opaque = 0,  /* nothing is looked at: the workload is the server, or there is nothing to find */
	flow_loose = 1,   /* start unknown, or not TLS: records are looked for only to report what stays inert */
	flow_tracked = 2, /* seen from its SYN, every byte in order */
	flow_dead = 3,    /* reset by the workload: no payload leaves any more */
};

/* How far the TLS session has come, judged by what the client sends. */
enum flow_phase {
	phase_hello = 0,    /* handshake messages in the clear */
	phase_changed = 1,  /* after ChangeCipherSpec */
	phase_finished = 2, /* TLS 1.3: one encrypted record, the Finished, has passed */
	phase_bound = 3,    /* record for record at one key */
	phase_lost = 4,     /* records are known by fingerprint alone: proof 3 has failed */
};

/* Unusable until a ClientHello is complete: what has not been read is not known to be absent. */
enum flow_sni { sni_unusable = 0, sni_none = 1, sni_name = 2, sni_encrypted = 3 };

/* What is done with the bytes of the record at hand. */
enum record_kind { record_header = 0, record_skip = 1, record_hello = 2, record_hash = 3 };

enum flow_flag {
	flow_ipv4 = 1,
	flow_hello_seen = 2,     /* one ClientHello is complete */
	flow_other_message = 4,  /* a handshake message in the clear that is no ClientHello: this is not TLS 1.3 */
	flow_may_rebind = 8,     /* the last record was a KeyUpdate between two requests */
	flow_has_freed = 16,     /* `freed` is valid */
	flow_early_data = 32,    /* a ClientHello offers TLS 1.3 early data */
	flow_answered = 64,      /* the peer has accepted this very SYN */
	flow_keeps_secret = 128, /* the server may be told by an index to send itself a secret again */
};

/* FIN or RST was seen of: */
enum flow_closing { closing_workload = 1, closing_peer = 2 };

struct flow {
	__u64 serial;   /* unique while the host is up: key of `outstanding` and `hellos` */
	__u64 used_ns;  /* CLOCK_MONOTONIC of the last packet, either way */
	__u64 host;     /* hash of the SNI; 0: none */
	__u64 parent;   /* hash of what follows its first dot; 0: none */
	__u64 hold_ns;  /* since when a record waits for an attestation; 0: none does */
	__u64 asked_ns; /* when the agent was last asked for one */
	__u64 told_ns;  /* when it was last told of a substitution */
	__u64 key_serial;
	__u64 mac;     /* that the record at hand must have */
	__u64 hash[4]; /* SipHash state over it so far */
	__u8 block[k_block_bytes]; /* of it, not yet hashed */
	__u8 key_id[16];
	__u32 busy;   /* 1 while a CPU works on it */
	__u32 next;   /* TCP sequence number of the first byte not seen */
	__u32 freed;  /* sequence number after the last patched record that was acknowledged */
	__u32 record; /* sequence number of the header of the record at hand */
	__u32 index;  /* of the next record under the key */
	__u32 mark_index; /* of the record at hand */
	__u16 fragment;   /* bytes of the record at hand after its header */
	__u16 at;         /* bytes of it consumed, header included */
	__u16 length;     /* of its ciphertext without nonce and tag */
	__u16 head_blocks; /* as in its mark */
	__u16 tail_block;
	__u8 carry[32];   /* its first bytes: header, nonce, fingerprint */
	__u8 carry_have;
	__u8 carry_need;
	__u8 kind;      /* enum record_kind */
	__u8 prefix;    /* bytes of explicit nonce */
	__u8 mark_type; /* inner content type */
	__u8 mark_flags;
	__u8 state;  /* enum flow_state */
	__u8 phase;  /* enum flow_phase */
	__u8 sni;    /* enum flow_sni */
	__u8 flags;  /* enum flow_flag */
	__u8 version; /* enum tls_version, once bound */
	__u8 closed;  /* enum reason: why nothing is substituted, under any proof */
	__u8 outstanding; /* patched records not yet acknowledged */
	__u8 closing; /* enum flow_closing, several: user space may sweep it once idle */
	__u8 rebound; /* a KeyUpdate has been followed */
	__u8 told_attest; /* mode of the verdict by which that was done */
	__u8 _pad[6];
};

_Static_assert(sizeof(struct flow) <= 304, "100,000 flows must fit in 32 MB");

enum { k_outstanding = 16 };

/* A record that is patched whenever it passes, until the peer has acknowledged all of it. */
struct outstanding_record {
	__u64 serial; /* of the key */
	__u32 index;
	__u32 sequence; /* TCP, of the record's header */
	__u16 length;   /* of its ciphertext without nonce and tag */
	__u16 region_bytes;
	__u8 prefix;   /* bytes of explicit nonce */
	__u8 used;     /* 0: this slot is free */
	__u8 touched;  /* a patched byte has been written to a packet: no way back */
	__u8 reported;
	__u8 attest;   /* enum attest_mode that allowed it */
	__u8 proven;   /* found in its key's ring, not by fingerprint alone */
	__u8 dropped;  /* bytes of it have not left because they could not be patched */
	__u8 _pad[1];
	__u32 dropped_end; /* TCP, after the last of these */
};

/* Value of map `outstanding`, keyed by flow.serial; made with the first substitution. */
struct outstanding {
	struct outstanding_record records[k_outstanding];
	__u32 workload;
	__u32 _pad;
};

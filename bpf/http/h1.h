/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/1.1 requests (RFC 9112): what the framing parser remembers between records, and what it finds in one. The parser
 * itself is h1_parse.h. It is stricter than any server: what two servers could read in two ways is not parsed at all.
 */
#pragma once

#include "../crypto/block.h"
#include "../crypto/siphash.h"
#include "../types/common.h"
#include "../types/secret.h"

enum h1_state {
	h1_idle = 0, /* between two requests; zero, so that a new key starts here */
	h1_method,
	h1_target,
	h1_version,
	h1_line_start,
	h1_name,
	h1_value_start,
	h1_value,
	h1_value_lf,
	h1_block_lf,
	h1_body,
	h1_chunk_size,
	h1_chunk_extension,
	h1_chunk_size_lf,
	h1_chunk_data,
	h1_chunk_cr,
	h1_chunk_lf,
	h1_last_cr,
	h1_last_lf,
	h1_opaque, /* another protocol: a tunnel, an upgrade */
	h1_lost,   /* not a request that everybody reads alike; only markers are looked for, for the audit */
	h1_http2,  /* HTTP/2, which h2_parse.h reads */
	h1_http2_data, /* in a payload of HTTP/2 that is not read */
	h1_http2_body, /* in a DATA frame that is */
};

/* What a header means to framing, to the slots and to the search. */
enum h1_field {
	h1_field_plain = 0,
	h1_field_host,
	h1_field_content_length,
	h1_field_transfer_encoding,
	h1_field_upgrade,
	h1_field_credentials, /* may hold base64 */
};

enum h1_flag {
	h1_has_host = 1,
	h1_has_length = 2,
	h1_is_chunked = 4,
	h1_is_http_1_0 = 8,
	h1_is_tunnel = 16,     /* CONNECT, Upgrade: what follows the request is not HTTP */
	h1_value_ended = 32,   /* white space after a value that may hold none */
	h1_in_base64 = 64,
	h1_is_forbidden = 128, /* this header is a slot only for a secret that names it */
};

enum {
	k_h1_method_max = 32,
	k_h1_host_max = 255,   /* with its port */
	k_h1_seen_max = 8,     /* secrets substituted in one request */
	k_h1_found_max = 16,   /* markers in one record */
};

/* Between records. One for each key. */
struct h1_parser {
	__u64 left;    /* bytes of the body, or of the chunk, still to come */
	__u64 window;  /* the last 8 bytes of the slot, the latest lowest */
	__u64 decoded; /* the same of the decoded base64 */
	__u64 name[5]; /* of the header, lower case, zero-padded, cut at 39 */
	__u32 length;  /* of the element being read, so far */
	__u32 base64_length;  /* characters of base64 read */
	__u32 seen[k_h1_seen_max];
	__u16 host_length;
	__u8 seen_count;
	__u8 state; /* enum h1_state */
	__u8 field; /* enum h1_field */
	__u8 flags; /* enum h1_flag, several */
	__u8 slot;  /* enum slot: header, path, query or body */
	__u8 base64_bits; /* of the last character; with the next one's they make a byte */
	struct dns_name host; /* as it stands there, but lower case */
};

enum { k_h1_percent_bytes = 8 }; /* of "kloak%3a" */

/* How a marker is written, besides HTTP/2's Huffman code. */
enum h1_code {
	h1_code_none = 0,
	h1_code_base64,
	h1_code_percent, /* "kloak%3a", in a target or a body */
};

/* A marker in a slot. Offsets are in the record, and negative where the thing began in an earlier one. */
struct h1_found {
	/* raw: of "kloak:"; base64: of the decoded text's "kloak:", from the decoded text's start; Huffman: in bits */
	__s32 marker;
	__s32 base64; /* where the base64 text starts */
	__u8 code; /* enum h1_code */
	__u8 slot; /* enum slot; 0 where the parser had lost its way */
	__u8 forbidden;
	__u8 is_huffman; /* from here on: HTTP/2, but for `to` and `refused` in a body */
	struct header_name header;
	__u32 from; /* the string's bytes in this frame, or the body's in this record: all of the placeholder must lie there */
	__u32 to; /* 0: a header block of HTTP/1.1, which is in one piece */
	__u16 entry; /* of the dynamic table, counted from 1, into which the field goes; 0: none */
	__u8 token_bytes;
	__u8 refused; /* enum reason: of the whole header block, or body */
	__u8 token[k_token_bytes]; /* from the marker on, decoded */
};

/* The work on one record. */
struct h1_scan {
	__u32 position; /* of the next byte */
	__u32 end;
	__u32 head_end; /* the text before it has been read */
	__u32 tail; /* and that from here on: the first byte read after one that was skipped, or `end` */
	__u8 skipped; /* a body has been passed over */
	__u8 found_count;
	__u8 found_lost; /* there were more than k_h1_found_max */
	__u8 reads_bodies; /* a body is a slot: markers in it are looked for */
	__u32 body_from; /* where the DATA at hand, or what the record has of it, begins: HTTP/2 */
	struct h1_found found[k_h1_found_max];
	struct record_text text;
};

_Static_assert(sizeof(struct h1_found) == 80, "no padding");
_Static_assert(sizeof(struct h1_parser) % 8 == 0, "no padding");

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/2 requests (RFC 9113) and their compressed headers (RFC 7541): what the parser remembers between records beside
 * struct h1_parser, of which it uses what belongs to the field and the request at hand. The parser is h2_parse.h;
 * docs/http2.md says what it takes for certain.
 */
#pragma once

#include "h1.h"

/* Where in a frame. */
enum h2_part {
	h2_preface = 0, /* what follows "PRI "; zero, so that a new state starts here */
	h2_header,
	h2_pad_length,
	h2_priority,
	h2_block, /* a piece of a header block */
	h2_data_pad_length, /* of a body that is read */
};

/* Where in a header block. */
enum h2_field_state {
	h2_field_start = 0,
	h2_field_index,
	h2_name_length,
	h2_name_length_more,
	h2_name,
	h2_value_length,
	h2_value_length_more,
	h2_value,
};

/* RFC 7541 6: what a field's first byte says. */
enum h2_form {
	h2_indexed = 0,
	h2_inserted, /* a literal that enters the dynamic table */
	h2_literal,
	h2_resize,
};

/* What a field means to the request. The pseudo-header fields first: they may stand once, and before all others. */
enum h2_kind {
	h2_method = 0,
	h2_scheme,
	h2_path,
	h2_authority,
	h2_protocol, /* RFC 8441 4 */
	h2_host,
	h2_content_length,
	h2_credentials,
	h2_plain,
	h2_refused, /* no request may have it: connection-specific fields, unknown pseudo-header fields */
};

enum h2_flag {
	/* Bits 0 to h2_content_length: such a field has been there. */
	h2_bodiless = 1 << 7,   /* END_STREAM */
	h2_regular = 1 << 8,    /* a field that is no pseudo-header field */
	h2_any_field = 1 << 9,
	h2_bad = 1 << 10,       /* not a request that everybody reads alike: nothing is replaced in it */
	h2_named_host = 1 << 11, /* `host` and `suffix` are the request's */
	h2_repeats = 1 << 12,   /* a field with a marker is sent again by its index */
	h2_misused = 1 << 13,   /* a field that holds a secret is sent again where that cannot be judged */
	h2_last_frame = 1 << 14, /* END_HEADERS */
	h2_open = 1 << 15,      /* between HEADERS and END_HEADERS */
};

enum h2_entry_flag { h2_entry_bad = 1, h2_entry_bad_name = 2, h2_entry_marked = 4 };

/* Why h2_parse has returned before the end of the record. */
enum h2_stop {
	h2_goes_on = 0,
	h2_stop_host,  /* the parser's host is complete: its hash is wanted */
	h2_stop_block, /* a header block has ended, with something to decide */
	h2_stop_data,  /* a DATA frame has ended, with markers in it */
};

enum {
	/* All that fit in the 4,096 bytes that a table has unless both sides agree on more (RFC 7541 4.1: 32 each at least). */
	k_h2_entries = 128,
	k_h2_static = 61,
	k_h2_references_max = 4, /* secrets sent again by index in one request */
	k_h2_integer_bits = 28,
	k_h2_streams = 16, /* requests whose bodies may be on their way at once: the latest */
};

/* A request whose body may follow: by what a secret in it is judged. */
struct h2_stream {
	__u64 host;
	__u64 suffix;
	__u32 number;
	__u32 seen[k_h1_seen_max]; /* secrets substituted in it */
	__u8 seen_count;
	__u8 _pad[3];
};

/* One entry of the encoder's dynamic table, as far as a later reference to it matters. */
struct h2_entry {
	__u64 name[5]; /* as in struct h1_parser */
	__u64 host; /* of :authority and host: the value's hash. Of a secret: that of the request it was first sent in */
	__u64 suffix;
	__u32 secret; /* the server's table holds this secret here, if the wire side has let it; 0: none */
	__u8 kind; /* enum h2_kind */
	__u8 flags; /* enum h2_entry_flag */
	__u8 _pad[2];
};

struct h2_reference {
	__u64 host; /* of the request in which the secret was first sent */
	__u32 secret;
	__u32 _pad;
};

struct h2_state {
	__u64 used_ns; /* CLOCK_MONOTONIC of the last record, for the sweeper */
	__u64 frame; /* the bytes of a frame's header read so far, the latest lowest */
	__u64 host; /* of the request at hand, as in struct sealing */
	__u64 suffix;
	__u32 fragment; /* bytes of the header block still to come in this frame */
	__u32 from; /* where in the record it, or what the record has of it, begins */
	__u32 padding; /* behind it */
	__u32 stream; /* of the open header block */
	__u32 newest; /* highest stream so far: a block on another is trailers */
	__u32 inserted; /* entries that have ever entered the table */
	__u32 before; /* and those before this header block */
	__u32 integer;
	__u32 string; /* bytes of the string still to come */
	__u16 flags; /* enum h2_flag, of the header block */
	__u8 part; /* enum h2_part */
	__u8 have; /* bytes of it */
	__u8 state; /* enum h2_field_state */
	__u8 form; /* enum h2_form */
	__u8 kind; /* enum h2_kind */
	__u8 shift; /* of the integer's next byte */
	__u8 huffman; /* the string is coded */
	__u8 half; /* the high half of its byte has been read */
	__u8 node; /* of huffman_table */
	__u8 value; /* enum h2_entry_flag, of the value at hand */
	__u8 capturing; /* the last marker found wants more characters for its token */
	__u8 reference_count;
	__u8 keeps; /* a secret has been put into the table */
	__u8 stop; /* enum h2_stop */
	__u32 stream_count; /* that have ever been in `streams` */
	__u32 body; /* of whose request the DATA at hand is: its number among them, from 1; 0: not known */
	__u32 misused; /* the secret that was sent again where it may not be; 0: none, or not known */
	struct h2_reference references[k_h2_references_max];
	struct h2_stream streams[k_h2_streams]; /* number i at i % k_h2_streams */
	struct h2_entry entries[k_h2_entries]; /* entry number i at i % k_h2_entries */
};

_Static_assert(sizeof(struct h2_entry) == 64, "no padding");
_Static_assert(sizeof(struct h2_stream) == 56, "no padding");
_Static_assert(sizeof(struct h2_state) % 8 == 0, "no padding");

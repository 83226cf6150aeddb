/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Sizes and small enums that user space and both sides of the data plane share. */
#pragma once

#include <linux/types.h>

enum {
	k_block_bytes = 16,        /* an AES block, a GHASH block, a Poly1305 block */
	k_fingerprint_bytes = 16,  /* the name of a record: its first ciphertext bytes */
	k_tag_bytes = 16,
	k_record_max = 16384,      /* RFC 8446 5.1: longest TLSPlaintext.fragment */
	k_host_max = 253,          /* RFC 1035 2.3.4, without the root's dot */
	k_header_name_max = 39,    /* longest header name that a slot may name */
	k_marker_bytes = 6,        /* "kloak:" */
	k_token_bytes = 16,
	k_edits_max = 32,          /* placeholders replaced in one record */
};

enum cipher_algorithm {
	cipher_none = 0,
	cipher_aes_128_gcm = 1,
	cipher_aes_256_gcm = 2,
	cipher_chacha20_poly1305 = 3,
	cipher_unknown = 255, /* a TLS cipher that the data plane cannot patch */
};

enum { k_content_alert = 21, k_content_handshake = 22, k_content_application_data = 23 }; /* RFC 8446 5.1 */

enum tls_version { tls_unknown = 0, tls_1_2 = 2, tls_1_3 = 3 };

enum tls_stack {
	stack_unknown = 0,
	stack_openssl = 1,
	stack_go = 2,
	stack_gnutls = 3,
	stack_java = 4,
	stack_boringssl = 5,
	stack_ring = 6,
};

enum proof { proof_flow = 0, proof_record = 1, proof_none = 2 };

enum protocol { protocol_unknown = 0, protocol_http_1 = 1, protocol_http_2 = 2 };

/*
 * How a placeholder stands in the text. base64_N: N bytes of the same group of three stand before it. huffman_N: N bits of
 * its first byte belong to what stands before it (RFC 7541 5.2). percent_…: the colon alone is percent-encoded (RFC 3986
 * 2.1), with a hexadecimal digit of that case; so is the secret's byte in its place.
 */
enum encoding {
	encoding_raw = 0,
	encoding_base64_0 = 1,
	encoding_base64_1 = 2,
	encoding_base64_2 = 3,
	encoding_huffman_0 = 4,
	encoding_huffman_1 = 5,
	encoding_huffman_2 = 6,
	encoding_huffman_3 = 7,
	encoding_huffman_4 = 8,
	encoding_huffman_5 = 9,
	encoding_huffman_6 = 10,
	encoding_huffman_7 = 11,
	encoding_percent_upper = 12,
	encoding_percent_lower = 13,
};

/* Bits of secret.slots, and the kind of a found slot. */
enum slot { slot_header = 1, slot_named_header = 2, slot_query = 4, slot_path = 8, slot_body = 16, slot_any = 32 };

/* Why a placeholder went out as it was. Order is free: user space reads the names from BTF. */
enum reason {
	reason_none = 0,
	reason_host_not_allowed,
	reason_port_not_allowed,
	reason_no_sni,
	reason_encrypted_sni,
	reason_not_attested,
	reason_attestation_failed,
	reason_not_bound,
	reason_slot_not_allowed,
	reason_second_occurrence,
	reason_split_over_records,
	reason_unparsable_request,
	reason_unknown_cipher,
	reason_unknown_key,
	reason_unreadable_memory,
	reason_flow_older_than_agent,
	reason_unproven_record,
	reason_unproven_flow,
	reason_other_workload,
	reason_tables_full,
	reason_too_late,
	reason_expired,
};

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Verb `record sealed`: a library is about to encrypt a record. seal_begin copies and parses it; seal_end, at once or
 * when the nonce has become readable, encrypts the copy and publishes it.
 */
#pragma once

#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/keys.h"
#include "../maps/sealing.h"
#include "../maps/secrets.h"
#include "copy.h"
#include "encrypt.h"
#include "key_state.h"
#include "parse.h"
#include "publish.h"
#include "report.h"

/* The key_state of a context; NULL while it has none. A new one is made for application data. */
static __noinline struct key_state *seal_key(struct context *context, struct sealing *sealing, __u32 stack)
{
	struct key_name name;
	struct key_state *key;

	if (!(context->flags & context_named)) {
		/* TLS 1.3 has a key for the handshake alone; TLS 1.2 sends its Finished under the key of the data. */
		if (context->version == tls_1_3 && sealing->type != k_content_application_data)
			goto early;
		key_make_name(context, sealing);
	}
	name = context->name;
	sealing->key = name;
	key = key_find(&name);
	if (key)
		return key->serial ? key : NULL;
	if (context->version == tls_1_3 && sealing->type != k_content_application_data)
		goto early;
	if (!context->sealed)
		context->first_nonce = context->nonce;
	key = key_make(&name);
	if (!key) {
		count(counter_keys_full);
		sealing->refused = reason_tables_full;
		return NULL;
	}
	key_begin(key, context, stack);
	return key;
early:
	if (!context->sealed)
		context->first_nonce = context->nonce;
	context->sealed++;
	return NULL;
}

/* The number that the protocol itself gives the record; ~0: not one of this key. */
static __always_inline __u64 seal_sequence(const struct context *context, const struct key_state *key)
{
	__u64 sequence;

	if (context->version == tls_1_2) {
		memcpy(&sequence, context->aad, sizeof(sequence)); /* RFC 5246 6.2.3.3: seq_num first */
		return bpf_be64_to_cpu(sequence);
	}
	/* RFC 8446 5.3: the nonce is the sequence number XOR a secret that is the same for all records. */
	if (context->nonce.words[0] != key->first_nonce.words[0])
		return ~0ull;
	sequence = (__u64)(context->nonce.words[1] ^ key->first_nonce.words[1]) |
		   (__u64)(context->nonce.words[2] ^ key->first_nonce.words[2]) << 32;
	return bpf_be64_to_cpu(sequence);
}

static __always_inline void seal_close(struct key_state *key, __u8 reason)
{
	if (!key->closed)
		key->closed = reason;
	key->parser.state = h1_lost;
}

/*
 * Where nothing can be replaced, under a closed key or a cipher that is not ours, a placeholder still deserves to be
 * told why. Only the start of a record is searched.
 */
__noinline int seal_listen(struct sealing *sealing, struct h1_parser *parser, __u64 text, __u32 reason)
{
	__u32 bytes;

	if (!sealing || !parser || parser->state == h1_opaque)
		return -1;
	bytes = sealing->length - (sealing->order.type_at ? 1 : 0);
	if (bytes > k_listen_max)
		bytes = k_listen_max;
	if (bpf_probe_read_user(&sealing->scan.text, bytes, (void *)text))
		return -1;
	parser->state = h1_lost;
	parse_text(sealing, parser, bytes);
	if (sealing->refused == reason_unparsable_request)
		sealing->refused = reason;
	if (sealing->refused)
		report_refusal(sealing);
	return 0;
}

/* What cannot be vouched for any more: what led there may be the placeholder at hand, or anything. */
static __always_inline void seal_misused(struct sealing *sealing, struct key_state *key, int reason)
{
	seal_close(key, reason);
	sealing->refused = reason;
	report_refusal(sealing);
}

/* Nobody knows what the record says: a placeholder, or a request's end. */
static __always_inline void seal_unreadable(struct sealing *sealing, struct key_state *key)
{
	count(counter_memory_unreadable);
	seal_misused(sealing, key, reason_unreadable_memory);
}

/* Copies and parses. 0: go on with seal_end. */
__noinline int seal_read(struct sealing *sealing, struct key_state *key, __u64 text, __u32 content)
{
	int reason;

	if (!sealing || !key)
		return -1;
	if (key->closed) {
		seal_listen(sealing, &key->parser, text, key->closed);
		return -1;
	}
	sealing->scan.reads_bodies = body_is_slot(sealing->order.context.workload);
	if (sealing->type != k_content_application_data) {
		if (copy_start(sealing, text, 0))
			goto unreadable;
	} else {
		if (copy_start(sealing, text, parse_needs_text(sealing, &key->parser)))
			goto unreadable;
		if (!sealing->complete) {
			key->parser.left -= content;
		} else {
			parse_text(sealing, &key->parser, content);
			if (h1_is_http2(key->parser.state)) {
				reason = parse_http2(sealing, &key->parser);
				if (reason) {
					seal_misused(sealing, key, reason);
					return -1;
				}
			}
		}
	}
	if (sealing->type != k_content_application_data)
		sealing->complete = 0;
	if (key->parser.state == h1_lost || key->parser.state == h1_opaque)
		key->closed = reason_unparsable_request;
	parse_regions(sealing, key);
	if (key->parser.state == h1_idle)
		sealing->flags |= mark_idle_after;
	return 0;
unreadable:
	seal_unreadable(sealing, key);
	return -1;
}

static __always_inline void seal_reset(struct sealing *sealing, __u8 algorithm, __u8 version)
{
	sealing->length = sealing->order.length;
	sealing->waiting = 0;
	sealing->flags = 0;
	sealing->refused = 0;
	memset(&sealing->refusal, 0, sizeof(sealing->refusal));
	sealing->patch.edit_count = 0;
	sealing->patch.keeps = 0;
	sealing->patch.protocol = protocol_http_1;
	sealing->patch.host = 0;
	sealing->patch.workload = sealing->order.context.workload;
	sealing->patch.algorithm = algorithm;
	sealing->patch.version = version;
	sealing->patch.stack = sealing->order.stack;
	sealing->key.workload = sealing->order.context.workload;
}

/* A record under no key that could serve. */
static __always_inline void seal_without_key(struct sealing *sealing, __u32 reason)
{
	sealing->refused = 0;
	memset(&sealing->overheard, 0, sizeof(sealing->overheard));
	seal_listen(sealing, &sealing->overheard, sealing->order.text, reason);
}

/* A record of a cipher that cannot be patched, or under a key that was missed; context may be NULL. */
static __always_inline void seal_overhear(const struct context *context, struct sealing *sealing)
{
	bool keyless = !context || context->flags & context_keyless;

	seal_reset(sealing, cipher_unknown, context ? context->version : tls_unknown);
	seal_without_key(sealing, keyless ? reason_unknown_key : reason_unknown_cipher);
}

/* Returns the taken key if seal_end is to follow. */
static __always_inline struct key_state *seal_begin(struct context *context, struct sealing *sealing)
{
	__u32 length = sealing->order.length, stack = sealing->order.stack;
	__u64 text = sealing->order.text;
	struct key_state *key;
	int content;

	seal_reset(sealing, context->algorithm, context->version);
	sealing->blocks = (length + k_block_bytes - 1) / k_block_bytes;
	sealing->nonce = context->nonce;
	if (context->version == tls_1_2) {
		sealing->type = context->aad[8];
		if (context->algorithm == cipher_chacha20_poly1305)
			nonce_xor_number(&sealing->nonce, context->aad);
	}
	memset(&sealing->aad, 0, sizeof(sealing->aad));
	memcpy(&sealing->aad.text, context->aad, sizeof(context->aad));
	sealing->aad.bytes = context->aad_length;
	content = copy_end(sealing, text, context->version);
	key = seal_key(context, sealing, stack);
	if (!key && sealing->refused)
		seal_without_key(sealing, reason_tables_full);
	if (!key || !key_take(key))
		return NULL;
	key->used_ns = bpf_ktime_get_ns();
	context->used_ns = key->used_ns;
	if (content == copy_unreadable && !key->closed) {
		seal_unreadable(sealing, key);
		key_release(key);
		return NULL;
	}
	/*
	 * Proof 3 of four, second half: every record under the key is heard, in its order, with its true content length
	 * and type. After one that is not, the rest of the connection is not vouched for.
	 */
	if (content < 0 || seal_sequence(context, key) != key->sealed)
		seal_close(key, reason_unproven_flow);
	sealing->serial = key->serial;
	sealing->index = key->sealed++;
	if (seal_read(sealing, key, text, content)) {
		key_release(key);
		return NULL;
	}
	if (key->closed && sealing->index <= 1 && !sealing->refused && !sealing->patch.edit_count) {
		/* The first words were no request: a server, HTTP/2, another protocol. It needs no memory, and no time. */
		struct key_name name = sealing->key;

		context->flags |= context_deaf;
		key_forget(&name);
		return NULL;
	}
	return key;
}

/* Releases the key. The first records, one of which is the first with data, can only be found by their fingerprints. */
static __always_inline void seal_end(struct key_state *key, struct sealing *sealing)
{
	__u32 chunks = 0, named = sealing->index <= 1;

	seal_encrypt(key, sealing);
	if (named || sealing->patch.edit_count || sealing->refused)
		seal_claim(sealing, named);
	/* Called one by one rather than by each other: the verifier adds up the stacks of a chain of calls, to 512 bytes. */
	if (sealing->patch.edit_count)
		chunks = seal_chunks(key);
	if (chunks && (key->algorithm == cipher_chacha20_poly1305 ? seal_tag_poly1305(key, sealing, chunks) :
								    seal_tag_ghash(key, sealing, chunks)))
		chunks = 0;
	if (sealing->patch.edit_count && !chunks) {
		seal_take_back(sealing);
		sealing->patch.edit_count = 0;
		sealing->refusal = sealing->patch.edits[0];
		sealing->refused = reason_tables_full;
	}
	seal_publish(key, named);
	key_release(key);
}

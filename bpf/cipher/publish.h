/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Hands a sealed record to the wire side: what it must look like, and what to XOR to it. */
#pragma once

#include "../core.h"
#include "../crypto/ghash.h"
#include "../crypto/poly1305.h"
#include "../maps/events.h"
#include "../maps/keys.h"
#include "../maps/patches.h"
#include "../maps/secrets.h"
#include "../maps/sealing.h"
#include "encrypt.h"
#include "report.h"

enum { k_region_chunks_max = (k_text_max + k_region_chunk_bytes - 1) / k_region_chunk_bytes };

static __always_inline __u32 publish_chunks(const struct sealing *sealing)
{
	return (sealing->patch.region_bytes + k_region_chunk_bytes - 1) / k_region_chunk_bytes;
}

static __always_inline bool publish_claim_patch(const struct sealing *sealing)
{
	__u32 workload = sealing->key.workload;

	if (!share_take(workload, table_patches, 1))
		return false;
	if (!sealing->patch.edit_count || share_take(workload, table_region_chunks, publish_chunks(sealing)))
		return true;
	share_give(workload, table_patches, 1);
	return false;
}

/* Takes up room for what is to be published of a record. Without room for its patch its placeholders stay. */
__noinline int seal_claim(struct sealing *sealing, __u32 named)
{
	bool wanted;

	if (!sealing)
		return -1;
	wanted = sealing->patch.edit_count || sealing->refused;
	sealing->nameless = !share_take(sealing->key.workload, table_fingerprints, 1);
	if (!wanted || (!sealing->nameless && publish_claim_patch(sealing)))
		return 0;
	if (!named && !sealing->nameless)
		share_give(sealing->key.workload, table_fingerprints, 1);
	count(counter_patches_full);
	if (sealing->patch.edit_count) {
		sealing->refusal = sealing->patch.edits[0];
		sealing->refused = reason_tables_full;
		sealing->patch.edit_count = 0;
	}
	report_refusal(sealing);
	sealing->refused = 0;
	return 0;
}

/* The edits cannot be made after all: gives back what seal_claim took for them, and deletes what has been entered. */
__noinline int seal_take_back(const struct sealing *sealing)
{
	struct patch_key key = {};
	__u32 chunks;

	if (!sealing)
		return -1;
	key.serial = sealing->serial;
	key.index = sealing->index;
	chunks = publish_chunks(sealing);
	region_chunks_delete(&key, chunks);
	share_give(sealing->key.workload, table_region_chunks, chunks);
	return 0;
}

/* Enters the ciphertext, with nothing to be XORed to it yet. Returns the chunks entered. */
static __always_inline __u32 publish_ciphertext(struct sealing *sealing, struct patch_key *key)
{
	__u32 chunk;

	for (chunk = 0; chunk < k_region_chunks_max; chunk++) {
		__u32 at = chunk * k_region_chunk_bytes;
		__u32 take = k_region_chunk_bytes;

		if (at >= sealing->patch.region_bytes)
			break;
		if (take > sizeof(sealing->scan.text) - at)
			take = sizeof(sealing->scan.text) - at;
		bpf_probe_read_kernel(sealing->chunk.ciphertext, take, (const __u8 *)&sealing->scan.text + at);
		key->chunk = chunk;
		if (bpf_map_update_elem(&region_chunks, key, &sealing->chunk, BPF_ANY)) {
			count(counter_patches_full);
			return 0;
		}
	}
	return chunk;
}

/* One 64-byte piece of an edit: its delta goes to one chunk or two. */
struct delta_loop {
	struct region_chunk *low;
	struct region_chunk *high;
	const struct secret_chunk *source;
	__u32 to; /* in `low` */
	__u32 take;
	__u16 first_edge; /* base64: k_is_edge and the delta of the first character; raw: 0 */
	__u16 last_edge;
	__u32 _pad;
};

enum { k_is_edge = 0x100 };

static long delta_step(__u32 index, struct delta_loop *loop)
{
	struct region_chunk *target = loop->low;
	__u32 to = loop->to + index;
	__u8 delta;

	if (index >= k_secret_chunk_bytes || index >= loop->take)
		return 1;
	delta = loop->source->delta[index];
	if (index == 0 && loop->first_edge)
		delta = loop->first_edge;
	if (index == loop->take - 1 && loop->last_edge)
		delta = loop->last_edge;
	if (to >= k_region_chunk_bytes)
		target = loop->high;
	forget_range(to);
	target->delta[to % k_region_chunk_bytes] = delta;
	return 0;
}

__noinline int publish_delta(struct sealing *sealing, struct patch_key *where, __u32 which, __u32 piece)
{
	struct delta_loop loop = {};
	struct patch_key key;
	struct secret_chunk_key source;
	const struct edit *edit;
	__u32 at;

	if (!sealing || !where || which >= k_edits_max)
		return -1;
	edit = &sealing->patch.edits[which];
	source.secret = edit->secret;
	source.encoding = edit->encoding;
	source.index = piece;
	loop.source = secret_chunk_find(&source);
	key = *where;
	at = edit->offset + piece * k_secret_chunk_bytes;
	key.chunk = at / k_region_chunk_bytes;
	loop.low = bpf_map_lookup_elem(&region_chunks, &key);
	key.chunk = (at + k_secret_chunk_bytes - 1) / k_region_chunk_bytes;
	loop.high = bpf_map_lookup_elem(&region_chunks, &key);
	if (!loop.low || !loop.source)
		return -1;
	if (!loop.high)
		loop.high = loop.low; /* the piece ends before */
	loop.to = at % k_region_chunk_bytes;
	loop.take = edit->length - piece * k_secret_chunk_bytes;
	if (loop.take > k_secret_chunk_bytes)
		loop.take = k_secret_chunk_bytes;
	if (edit->encoding >= encoding_base64_0 && edit->encoding <= encoding_base64_2) {
		if (piece == 0)
			loop.first_edge = k_is_edge | sealing->edge[which][0];
		if (piece * k_secret_chunk_bytes + loop.take == edit->length)
			loop.last_edge = k_is_edge | sealing->edge[which][1];
	}
	bpf_loop(k_secret_chunk_bytes, delta_step, &loop, 0);
	return 0;
}

/* The delta of one chunk into GHASH. */
__noinline int publish_ghash(struct ghash_delta *delta, struct ghash_key *key, const struct region_chunk *chunk,
			     __u32 index)
{
	if (!delta || !key || !chunk)
		return -1;
	for (__u32 i = 0; i < k_region_chunk_bytes / k_block_bytes; i++)
		ghash_delta_add(delta, key, (const struct block *)&chunk->delta[i * k_block_bytes],
				index * (k_region_chunk_bytes / k_block_bytes) + i);
	return 0;
}

/* XORs the delta of one chunk to the text; a second time takes it away. */
__noinline int publish_toggle(struct record_text *text, const struct region_chunk *chunk, __u32 index)
{
	const struct block *delta;

	if (!text || !chunk)
		return -1;
	delta = (const struct block *)chunk->delta;
	for (__u32 i = 0; i < k_region_chunk_bytes / k_block_bytes; i++) {
		__u32 at = index * (k_region_chunk_bytes / k_block_bytes) + i;
		struct block *block;

		forget_range(at);
		if (at >= k_text_blocks)
			break;
		block = &text->blocks[at];
		block->words[0] ^= delta[i].words[0];
		block->words[1] ^= delta[i].words[1];
	}
	return 0;
}

static __always_inline void publish_toggle_all(struct sealing *sealing, struct patch_key *where, __u32 chunks)
{
	struct patch_key key = *where;

	for (__u32 i = 0; i < k_region_chunks_max; i++) {
		const struct region_chunk *chunk;

		key.chunk = i;
		if (i >= chunks)
			break;
		chunk = region_chunk_find(&key);
		if (chunk)
			publish_toggle(&sealing->scan.text, chunk, i);
	}
}

/* Poly1305 is not linear over XOR: the tag before, and the tag after. */
__noinline int seal_tag_poly1305(const struct key_state *state, struct sealing *sealing, __u32 chunks)
{
	struct patch_key where = {};
	struct block *tags;

	if (!state || !sealing)
		return -1;
	where.serial = state->serial;
	where.index = sealing->index;
	tags = sealing->tags;
	chacha20_block(&state->chacha, &sealing->nonce, 0, &sealing->one_time);
	poly1305_tag(&sealing->one_time, &sealing->aad, &sealing->scan.text, sealing->length, &tags[0]);
	publish_toggle_all(sealing, &where, chunks);
	poly1305_tag(&sealing->one_time, &sealing->aad, &sealing->scan.text, sealing->length, &tags[1]);
	publish_toggle_all(sealing, &where, chunks);
	tags[0].words[0] ^= tags[1].words[0];
	tags[0].words[1] ^= tags[1].words[1];
	memcpy(sealing->patch.tag_delta, &tags[0], sizeof(tags[0]));
	return 0;
}

/* GHASH is: the tag of the difference. */
__noinline int seal_tag_ghash(struct key_state *state, struct sealing *sealing, __u32 chunks)
{
	struct ghash_delta delta;
	struct patch_key key = {};
	struct block tag = {};

	if (!state || !sealing)
		return -1;
	key.serial = state->serial;
	key.index = sealing->index;
	ghash_delta_begin(&delta);
	for (__u32 i = 0; i < k_region_chunks_max; i++) {
		const struct region_chunk *chunk;

		key.chunk = i;
		if (i >= chunks)
			break;
		chunk = region_chunk_find(&key);
		if (chunk)
			publish_ghash(&delta, &state->ghash, chunk, i);
	}
	if (ghash_delta_finish(&delta, &state->ghash, sealing->blocks, &tag))
		return -1;
	memcpy(sealing->patch.tag_delta, &tag, sizeof(tag));
	return 0;
}

enum {
	k_pieces_max = k_text_max / k_secret_chunk_bytes + k_edits_max
}; /* of all edits: each may end with a short one */

struct pieces_loop {
	struct sealing *sealing;
	struct patch_key key;
};

/* The next piece of the edits. Stops before all are made if one cannot be. */
static long pieces_step(__u32 index, struct pieces_loop *loop)
{
	struct sealing *sealing = loop->sealing;
	__u32 which = sealing->edit, piece = sealing->piece;

	(void)index;
	forget_range(which);
	if (which >= sealing->patch.edit_count || which >= k_edits_max ||
	    publish_delta(sealing, &loop->key, which, piece))
		return 1;
	piece++;
	if (piece * k_secret_chunk_bytes >= sealing->patch.edits[which].length) {
		piece = 0;
		sealing->edit = which + 1;
	}
	sealing->piece = piece;
	return 0;
}

/* The chunks of all edits, with their deltas. Returns how many; 0: the edits cannot be made. */
__noinline __u32 seal_chunks(struct key_state *state)
{
	struct sealing *sealing = sealing_find(); /* as map value: 6.1 takes no other memory for a map's new value */
	struct pieces_loop loop = {};
	__u32 chunks;

	if (!sealing || !state)
		return 0;
	loop.sealing = sealing;
	loop.key.serial = state->serial;
	loop.key.index = sealing->index;
	memset(&sealing->chunk, 0, sizeof(sealing->chunk));
	sealing->chunk.workload = sealing->key.workload;
	chunks = publish_ciphertext(sealing, &loop.key);
	if (!chunks)
		return 0;
	sealing->edit = 0;
	sealing->piece = 0;
	bpf_loop(k_pieces_max, pieces_step, &loop, 0);
	return sealing->edit < sealing->patch.edit_count ? 0 : chunks;
}

static __always_inline void publish_patch(struct sealing *sealing, struct key_state *state)
{
	struct patch_key key = {.serial = state->serial, .index = sealing->index};

	sealing->patch.sealed_ns = state->used_ns;
	sealing->patch.process = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(sealing->patch.command, sizeof(sealing->patch.command));
	sealing->patch.length = sealing->length;
	if (!bpf_map_update_elem(&patches, &key, &sealing->patch, BPF_ANY)) {
		sealing->flags |= mark_has_patch;
		return;
	}
	count(counter_patches_full);
	share_give(sealing->key.workload, table_patches, 1);
	if (sealing->patch.edit_count)
		seal_take_back(sealing);
}

static __always_inline void ghash_absorb(struct ghash_element *sum, const struct ghash_key *key, __u64 first,
					 __u64 second)
{
	sum->high ^= __builtin_bswap64(first);
	sum->low ^= __builtin_bswap64(second);
	ghash_multiply(sum, &key->power[0]);
}

/*
 * A TLS 1.3 record shorter than its fingerprint, such as the first of a client that writes byte by byte: the tag, which
 * follows the ciphertext on the wire, makes up the rest.
 */
__noinline int seal_lengthen(const struct key_state *state, struct sealing *sealing)
{
	struct block *text, *tag;
	__u8 *bytes;
	__u32 length;

	if (!state || !sealing)
		return -1;
	text = &sealing->scan.text.blocks[0];
	tag = &sealing->tags[0];
	length = sealing->length;
	if (state->algorithm == cipher_chacha20_poly1305) {
		chacha20_block(&state->chacha, &sealing->nonce, 0, &sealing->one_time);
		poly1305_tag(&sealing->one_time, &sealing->aad, &sealing->scan.text, length, tag);
	} else { /* NIST SP 800-38D 7.1 */
		struct ghash_element sum = {};

		tag->words[0] = (__u64)sealing->nonce.words[1] << 32 | sealing->nonce.words[0];
		tag->words[1] = (__u64)bpf_htonl(1) << 32 | sealing->nonce.words[2];
		aes_encrypt(&state->aes, tag, tag);
		ghash_absorb(&sum, &state->ghash, sealing->aad.text.words[0], sealing->aad.text.words[1]);
		ghash_absorb(&sum, &state->ghash, text->words[0], text->words[1]);
		ghash_absorb(&sum, &state->ghash, bpf_cpu_to_be64((__u64)sealing->aad.bytes * 8),
			     bpf_cpu_to_be64((__u64)length * 8));
		tag->words[0] ^= __builtin_bswap64(sum.high);
		tag->words[1] ^= __builtin_bswap64(sum.low);
	}
	bytes = (__u8 *)text;
	for (__u32 i = 0; i < k_fingerprint_bytes; i++)
		if (i >= length)
			bytes[i] = ((const __u8 *)tag)[(i - length) & (k_tag_bytes - 1)];
	return 0;
}

static __always_inline void publish_fingerprint(struct sealing *sealing, const struct key_state *state)
{
	struct sighting sighting = {
		.key = sealing->key, .serial = state->serial, .index = sealing->index, .sealed_ns = state->used_ns};
	struct fingerprint fingerprint;

	memcpy(&fingerprint, sealing->patch.fingerprint, sizeof(fingerprint));
	if (!bpf_map_update_elem(&fingerprints, &fingerprint, &sighting, BPF_ANY))
		return;
	count(counter_patches_full);
	share_give(sealing->key.workload, table_fingerprints, 1);
}

/*
 * Chunks, patch, mark, fingerprint: in this order, so that whoever finds one finds all that it leads to.
 * named: the wire side has no other way to find this record than its fingerprint.
 */
__noinline int seal_publish(struct key_state *state, __u32 named)
{
	struct sealing *sealing = sealing_find();
	struct record_mark *mark;
	__u64 mac;

	if (!sealing || !state)
		return -1;
	if (!sealing->patch.edit_count)
		sealing->patch.region_bytes = 0;
	sealing->patch.reason = sealing->refused;
	if (sealing->refused) {
		__u32 at = sealing->patch.edit_count;

		if (at < k_edits_max)
			sealing->patch.edits[at] = sealing->refusal;
		else
			report_refusal(sealing);
	}
	mark = &state->ring[sealing->index % k_mark_ring];
	mac = seal_hash(sealing);
	if (sealing->length < k_fingerprint_bytes)
		seal_lengthen(state, sealing);
	memcpy(sealing->patch.fingerprint, &sealing->scan.text, k_fingerprint_bytes);
	if (sealing->patch.edit_count || sealing->refused)
		publish_patch(sealing, state);
	mark->mac = mac;
	mark->index = sealing->index;
	mark->length = sealing->length;
	mark->head_blocks = sealing->head;
	mark->tail_block = sealing->tail;
	mark->type = sealing->type;
	mark->flags = sealing->flags;
	if (!sealing->nameless && (named || (sealing->flags & mark_has_patch)))
		publish_fingerprint(sealing, state);
	count(counter_records_sealed);
	return 0;
}

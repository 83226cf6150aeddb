/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which record is this? The record layer of one flow (RFC 8446 5.1): names each record, streams what its proof needs,
 * and decides about its patch when header and name are complete.
 */
#pragma once

#include "../crypto/siphash.h"
#include "../maps/events.h"
#include "../maps/keys.h"
#include "outstanding.h"
#include "verdict.h"
#include "walk.h"

enum {
	k_header_bytes = 5,
	k_explicit_nonce_bytes = 8,
	/* The longest name: header, explicit nonce, fingerprint. */
	k_carry_bytes = k_header_bytes + k_explicit_nonce_bytes + k_fingerprint_bytes,
	k_fragment_max = 16384 + 2048, /* RFC 5246 6.2.3; TLS 1.3 allows less */
};

enum record_type { type_change_cipher_spec = 20, type_alert = 21, type_handshake = 22, type_application_data = 23 };

/* What to do with the record whose header and, where it is needed, fingerprint are in flow.carry. */
enum record_step {
	record_go = 0,    /* flow.kind says how its bytes are looked at */
	record_hold = 1,
	record_more = 2,  /* the fingerprint is needed after all */
	record_broken = 3, /* no TLS, or not at a record's start */
};

/* Proof 3 has failed: from here on records are known by fingerprint alone. */
static __always_inline void record_lose(struct flow *flow)
{
	flow->phase = phase_lost;
	flow->flags &= ~flow_may_rebind;
	/*
	 * The server keeps a secret in its header table, and what it is told from now on nobody has heard: an index of one
	 * byte could have it sent to another tenant. No payload leaves any more.
	 */
	if (flow->flags & flow_keeps_secret)
		flow->state = flow_dead;
}

/* Explicit nonces are the business of TLS 1.2 with AES-GCM alone (RFC 5288 3; RFC 7905 2 has none). */
static __always_inline __u32 record_prefix(__u32 version, __u32 algorithm)
{
	return version == tls_1_2 && algorithm != cipher_chacha20_poly1305 ? k_explicit_nonce_bytes : 0;
}

/* The key that walk->name names, if it is still the one of this serial. */
static __always_inline struct key_state *record_key(const struct walk *walk, __u64 serial)
{
	struct key_state *key = key_find(&walk->name);

	return key && key->serial == serial ? key : NULL;
}

/*
 * Reads mark `index` of the key into the flow. false: there is none, it has been overwritten, or it is of a record of
 * another length. The cipher side may be writing the ring at this moment: a mixture fails by its hash.
 */
static __always_inline bool record_mark(struct flow *flow, const struct key_state *key, __u32 index)
{
	const struct record_mark *mark = &key->ring[index % k_mark_ring];

	if (mark->index != index || !mark->head_blocks)
		return false;
	flow->mac = mark->mac;
	flow->mark_index = index;
	flow->length = mark->length;
	flow->head_blocks = mark->head_blocks;
	flow->tail_block = mark->tail_block;
	flow->mark_type = mark->type;
	flow->mark_flags = mark->flags;
	flow->prefix = record_prefix(key->version, key->algorithm);
	return flow->fragment == flow->prefix + flow->length + k_tag_bytes;
}

static __always_inline void record_hash_begin(struct flow *flow)
{
	struct siphash state;

	siphash_init(&state);
	memcpy(flow->hash, state.v, sizeof(state.v));
	flow->kind = record_hash;
}

/*
 * Decides about patch walk->patch, if there is one, for the record at hand. Everything that the flow knows of the
 * record (prefix, marks) must stand in the flow already.
 */
__noinline int record_consider(struct flow *flow)
{
	struct walk *walk = walk_get();
	struct patch *patch;
	int result;

	if (!flow || !walk)
		return record_go;
	walk->patch.chunk = 0;
	patch = bpf_map_lookup_elem(&patches, &walk->patch);
	if (!patch)
		return record_go;
	result = verdict(flow, patch);
	if (result == verdict_patch &&
	    (patch->length + flow->prefix + k_tag_bytes != flow->fragment || patch->region_bytes > patch->length))
		result = reason_unproven_record;
	if (result == verdict_patch) {
		result = outstanding_take(flow, patch);
		if (!result) {
			if (patch->keeps)
				flow->flags |= flow_keeps_secret;
			return record_go;
		}
		result = result == outstanding_all_used ? verdict_hold : reason_tables_full;
	}
	if (result == verdict_hold) {
		count(counter_segments_held);
		return record_hold;
	}
	report_patch(flow, patch, event_refused, result, walk->edit);
	/* Another workload's entry is not ours to delete: it may still be needed where it belongs. */
	if (result != reason_other_workload)
		patch_forget(walk->patch.serial, walk->patch.index, patch->region_bytes);
	return record_go;
}

/*
 * Looks the record up by its fingerprint, `prefix` bytes after its header, into walk->name and walk->patch. The entry of
 * a record that has been found is of no more use unless it is decided about again.
 */
static __always_inline const struct sighting *record_sighting(struct flow *flow, struct walk *walk, __u32 prefix)
{
	const struct sighting *sighting;

	if (flow->carry_have < k_header_bytes + prefix + k_fingerprint_bytes)
		return NULL;
	if (prefix)
		memcpy(walk->fingerprint.bytes, flow->carry + k_header_bytes + k_explicit_nonce_bytes,
		       k_fingerprint_bytes);
	else
		memcpy(walk->fingerprint.bytes, flow->carry + k_header_bytes, k_fingerprint_bytes);
	sighting = sighting_find(&walk->fingerprint);
	if (!sighting)
		return NULL;
	walk->name = sighting->key;
	walk->patch.serial = sighting->serial;
	walk->patch.index = sighting->index;
	return sighting;
}

static __always_inline void record_bind(struct flow *flow, struct walk *walk, const struct key_state *key)
{
	if (flow->phase == phase_bound)
		flow->rebound = 1;
	memcpy(flow->key_id, walk->name.id, sizeof(flow->key_id));
	flow->key_serial = key->serial;
	flow->version = key->version;
	flow->index = 0;
	flow->phase = phase_bound;
	flow->flags &= ~flow_may_rebind;
	/* From here on the ring serves. */
	sighting_forget(&walk->fingerprint, walk->name.workload);
}

/* May a flow in its present phase be bound to this key at its record 0, which is the record at hand? */
static __always_inline bool record_may_bind(const struct flow *flow, const struct walk *walk,
					    const struct key_state *key)
{
	/* Proof 4. */
	if (walk->name.workload != walk->key.workload || walk->patch.index)
		return false;
	if (flow->phase == phase_bound)
		return (flow->flags & flow_may_rebind) && key->serial != flow->key_serial &&
		       key->version == flow->version;
	if (!(flow->flags & flow_hello_seen))
		return false;
	/*
	 * Proof 3: the peer has begun anew as well. A workload can end a connection so that only we hear of it (a reset
	 * whose TTL ends on this host), and go on with it from a new socket of the same port.
	 */
	if (!(flow->flags & flow_answered))
		return false;
	/*
	 * Proof 3: nothing under this key precedes. TLS 1.3: exactly one encrypted record, the Finished, under another
	 * key; a handshake message in the clear other than ClientHello would be TLS 1.2, where the same text under
	 * ChaCha20-Poly1305 could follow records that nobody heard. A client certificate comes in records of its own
	 * with OpenSSL, and closes the flow.
	 */
	if (key->version == tls_1_3)
		return flow->phase == phase_finished && !(flow->flags & (flow_other_message | flow_early_data)) &&
		       flow->mark_type != type_handshake;
	/* TLS 1.2: the Finished is the first record after ChangeCipherSpec. */
	return flow->phase == phase_changed && flow->carry[0] == type_handshake && flow->mark_type == type_handshake;
}

/*
 * A record of a flow that is not bound (or may be bound anew). Returns record_go with flow.kind set if it is known by
 * its fingerprint, record_more if it is not, or record_hold.
 */
__noinline int record_by_fingerprint(struct flow *flow)
{
	struct walk *walk = walk_get();
	const struct sighting *sighting;
	struct key_state *key;
	struct patch *patch;
	__u32 prefix = k_explicit_nonce_bytes;

	if (!flow || !walk)
		return record_more;
	/* A shorter record has no name: 16 bytes of its ciphertext and tag. */
	sighting = record_sighting(flow, walk, k_explicit_nonce_bytes);
	if (!sighting) {
		prefix = 0;
		sighting = record_sighting(flow, walk, 0);
	}
	if (!sighting)
		return record_more;
	count(counter_records_matched);
	walk->flags &= ~walk_marked;
	key = record_key(walk, walk->patch.serial);
	flow->mark_type = type_application_data;
	flow->mark_flags = 0;
	if (key && record_mark(flow, key, walk->patch.index) && flow->prefix == prefix) {
		if (!(flow->mark_flags & mark_unproven))
			walk->flags |= walk_marked;
		if ((walk->flags & walk_marked) && record_may_bind(flow, walk, key)) {
			record_bind(flow, walk, key);
			record_hash_begin(flow);
			flow->index = 1;
			if (flow->carry[0] != type_application_data || !(flow->mark_flags & mark_has_patch))
				return record_go;
			/* A hold comes back here as record 0 of a bound flow. */
			if (record_consider(flow) == record_hold) {
				flow->index = 0;
				return record_hold;
			}
			return record_go;
		}
	}
	/* The old key goes on after all: its next record has a fingerprint too if it has a patch. */
	if (flow->phase == phase_bound)
		return record_more;
	/* TLS 1.3's Finished is under a key of its own: its record 0, of type handshake. */
	if (flow->carry[0] == type_application_data && flow->phase <= phase_changed &&
	    flow->mark_type == type_handshake && !walk->patch.index && (flow->flags & flow_hello_seen)) {
		sighting_forget(&walk->fingerprint, walk->name.workload);
		return record_more;
	}
	record_lose(flow);
	flow->prefix = prefix;
	flow->kind = record_skip;
	if (walk->flags & walk_marked)
		record_hash_begin(flow);
	/* Nothing is replaced but in application data, where its bytes cannot come to light. */
	if (flow->carry[0] != type_application_data)
		return record_go;
	walk->patch.chunk = 0;
	patch = bpf_map_lookup_elem(&patches, &walk->patch);
	if (!patch) {
		if (walk->name.workload == walk->key.workload)
			sighting_forget(&walk->fingerprint, walk->name.workload);
		return record_go;
	}
	if (record_prefix(patch->version, patch->algorithm) != prefix)
		walk->flags &= ~walk_marked;
	return record_consider(flow);
}

/* A record of a bound flow: the next of its key, or the proof fails and it is looked for by fingerprint. */
__noinline int record_by_index(struct flow *flow)
{
	struct walk *walk = walk_get();
	struct key_state *key;
	__u32 type;

	if (!flow || !walk)
		return record_more;
	walk->flags &= ~walk_marked;
	walk->name.workload = walk->key.workload;
	memcpy(walk->name.id, flow->key_id, sizeof(flow->key_id));
	key = record_key(walk, flow->key_serial);
	/* Proof 3: known, the next in order, of the same key, of this length. */
	if (!key || !record_mark(flow, key, flow->index))
		goto lost;
	type = flow->carry[0];
	/* TLS 1.2 tells the type in the clear; TLS 1.3 in the last block, which the hash covers. */
	if (flow->version == tls_1_3 ? type != type_application_data : type != flow->mark_type)
		goto lost;
	/* Renegotiation: who is at the other end is no longer what the first ClientHello said. */
	if (flow->version == tls_1_2 && type == type_handshake && flow->index)
		goto lost;
	count(counter_records_matched);
	flow->flags &= ~flow_may_rebind;
	walk->patch.serial = key->serial;
	walk->patch.index = flow->index;
	/* Not key->closed: it may speak of a later record. What is not followed any more has no mark. */
	if (flow->mark_flags & mark_unproven)
		record_lose(flow);
	else
		walk->flags |= walk_marked;
	record_hash_begin(flow);
	if ((flow->mark_flags & mark_has_patch) && type == type_application_data &&
	    record_consider(flow) == record_hold)
		return record_hold;
	flow->index++;
	return record_go;
lost:
	record_lose(flow);
	return record_more;
}

/* Header complete: does the record's name need more than that? */
static __always_inline bool record_wants_fingerprint(const struct flow *flow)
{
	__u32 type = flow->carry[0];

	if (type == type_application_data)
		return flow->phase != phase_bound || (flow->flags & flow_may_rebind);
	return type == type_handshake && flow->phase == phase_changed;
}

static __always_inline bool record_plausible(const struct flow *flow)
{
	__u32 type = flow->carry[0];

	return type >= type_change_cipher_spec && type <= type_application_data && flow->carry[1] == 3 &&
	       flow->carry[2] <= 4 && flow->fragment <= k_fragment_max;
}

/* Header, and fingerprint where it is wanted, are complete. */
static __always_inline int record_identify(struct flow *flow)
{
	__u32 type = flow->carry[0];
	int result;

	flow->kind = record_skip;
	flow->prefix = 0;
	if (!record_plausible(flow))
		return record_broken;
	if (flow->state == flow_loose) {
		/* Fingerprints alone; record_lose has been said when the flow became so. */
		if (type == type_application_data)
			record_by_fingerprint(flow);
		return record_go;
	}
	if (type == type_application_data) {
		if (flow->phase == phase_bound && (flow->flags & flow_may_rebind)) {
			/* After a KeyUpdate between requests: record 0 of the new key, or the old one goes on. */
			result = record_by_fingerprint(flow);
			if (result != record_more)
				return result;
		}
		if (flow->phase == phase_bound) {
			result = record_by_index(flow);
			if (result != record_more)
				return result;
			if (flow->carry_have == k_header_bytes)
				return record_more;
		}
		result = record_by_fingerprint(flow);
		if (result != record_more)
			return result;
		/* Unheard, or the Finished. */
		if (flow->phase <= phase_changed && (flow->flags & flow_hello_seen) &&
		    !(flow->flags & flow_other_message))
			flow->phase = phase_finished;
		else
			record_lose(flow);
		flow->kind = record_skip;
		return record_go;
	}
	if (flow->phase == phase_bound) {
		if (record_by_index(flow) == record_more)
			flow->kind = record_skip;
		return record_go;
	}
	if (type == type_handshake && flow->phase == phase_changed) {
		result = record_by_fingerprint(flow);
		if (result != record_more)
			return result;
		/* The second ClientHello after a HelloRetryRequest may follow a ChangeCipherSpec (RFC 8446 D.4). */
		if (flow->carry[k_header_bytes] == k_message_client_hello) {
			flow->phase = phase_hello;
			flow->kind = record_hello;
			return record_go;
		}
		record_lose(flow);
		return record_go;
	}
	if (type == type_handshake && flow->phase == phase_hello) {
		flow->kind = record_hello;
		return record_go;
	}
	if (type == type_change_cipher_spec && flow->phase <= phase_changed)
		flow->phase = phase_changed;
	else if (type != type_alert || flow->phase > phase_changed)
		record_lose(flow);
	return record_go;
}

static __always_inline void record_hash_words(struct flow *flow, const __u64 *words, __u32 count)
{
	struct siphash state;

	memcpy(state.v, flow->hash, sizeof(state.v));
	for (__u32 i = 0; i < count; i++)
		siphash_word(&state, words[i]);
	memcpy(flow->hash, state.v, sizeof(state.v));
}

/* The record's last byte has passed. */
__noinline int record_end(struct flow *flow)
{
	if (!flow)
		return 0;
	if (flow->kind == record_hash) {
		__u32 blocks = (flow->length + k_block_bytes - 1) / k_block_bytes;
		__u32 head = flow->head_blocks < blocks ? flow->head_blocks : blocks;
		__u32 tail = flow->tail_block > head ? flow->tail_block : head;
		struct siphash state;
		__u64 mac;

		memcpy(state.v, flow->hash, sizeof(state.v));
		siphash_word(&state, flow->length | (__u64)flow->mark_index << 32);
		siphash_word(&state, flow->head_blocks | (__u64)flow->tail_block << 32);
		if (tail < blocks)
			head += blocks - tail;
		mac = siphash_finish(&state, (head + 1) * k_block_bytes);
		/* Proofs 2 and 3: this was the record that the cipher side followed, to its last block. */
		if (mac != flow->mac) {
			if (flow->phase == phase_lost && !flow->closed)
				flow->closed = reason_unproven_record;
			record_lose(flow);
		} else if (flow->phase == phase_bound && flow->version == tls_1_3 &&
			   flow->mark_type == type_handshake && (flow->mark_flags & mark_idle_after)) {
			flow->flags |= flow_may_rebind;
		}
	}
	flow->kind = record_header;
	flow->carry_have = 0;
	flow->carry_need = k_header_bytes;
	flow->at = 0;
	return 0;
}

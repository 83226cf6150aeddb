/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Writes outstanding patches into a packet, however TCP has cut the stream: every copy of every byte is compared with
 * the ciphertext that the kernel computed, and XORed, on its own. bpf_skb_store_bytes un-shares the packet first: the
 * copy in the workload's send queue, its captures and its error queue stay as they are.
 */
#pragma once

#include "../maps/events.h"
#include "checksum.h"
#include "outstanding.h"
#include "report.h"
#include "walk.h"

enum { k_window_words = k_region_chunk_bytes / 8 };

struct apply {
	struct __sk_buff *skb;
	struct outstanding_record *record;
	struct walk *walk;
	__s32 from; /* the payload's first byte, counted from the ciphertext's */
	__s32 to;   /* after its last */
	__u32 chunk;
	__s32 failed; /* enum apply_result */
};

enum apply_result { apply_done = 0, apply_mismatch = 1, apply_failed = 2 };

/*
 * The piece [start, start + size) of a window that stands at `offset` of the packet: `before` holds the window with the
 * piece as it was, `after` as it shall be.
 */
static __always_inline int apply_store(struct apply *apply, __u32 offset, __u32 start, __u32 size)
{
	struct walk *walk = apply->walk;
	__u64 *before = (__u64 *)walk->before, *after = (__u64 *)walk->after;
	__u64 change = 0, altered = 0;

	if (bpf_skb_store_bytes(apply->skb, offset, &walk->after[start], size, 0))
		return apply_failed;
	/* Outside the piece both windows must be equal for the checksum: take the piece as stored into `before`'s twin. */
	for (int i = 0; i < k_window_words; i++)
		after[i] = before[i];
	if (bpf_skb_load_bytes(apply->skb, offset, &walk->after[start], size))
		return apply_failed;
	for (int i = 0; i < k_window_words; i++) {
		change += checksum_change(before[i], after[i]);
		altered |= before[i] ^ after[i];
	}
	if (!altered)
		return apply_done;
	checksum_add(walk, change, (start ^ (offset - walk->payload)) & 1);
	walk->flags |= walk_altered;
	apply->record->touched = 1;
	return apply_done;
}

/* Helpers want sizes of 1 to 256 that the verifier can see, whatever the compiler does to the comparisons before. */
static __always_inline __u32 apply_bound(__u32 size)
{
	size--;
	asm volatile("%0 &= 255" : "+r"(size));
	return size + 1;
}

static long apply_chunk(__u32 step, struct apply *apply)
{
	struct outstanding_record *record = apply->record;
	struct walk *walk = apply->walk;
	__s32 window = (apply->chunk + step) * k_region_chunk_bytes;
	__s32 from = apply->from > window ? apply->from : window;
	__s32 to = window + k_region_chunk_bytes;
	const struct region_chunk *chunk;
	const __u64 *ciphertext, *delta;
	__u64 *before = (__u64 *)walk->before, *after = (__u64 *)walk->after;
	__u64 different = 0, altered = 0;

	if (to > record->region_bytes)
		to = record->region_bytes;
	if (to > apply->to)
		to = apply->to;
	if (from >= to)
		return 1;
	walk->chunk.serial = record->serial;
	walk->chunk.index = record->index;
	walk->chunk.chunk = apply->chunk + step;
	chunk = region_chunk_find(&walk->chunk);
	if (!chunk) {
		apply->failed = apply_failed;
		return 1;
	}
	ciphertext = (const __u64 *)chunk->ciphertext;
	delta = (const __u64 *)chunk->delta;
	for (int i = 0; i < k_window_words; i++)
		before[i] = ciphertext[i];
	__u32 start = (from - window) & (k_region_chunk_bytes - 1);
	__u32 size = apply_bound(to - from);
	__u32 offset = walk->payload + (from - apply->from);

	if (bpf_skb_load_bytes(apply->skb, offset, &walk->before[start], size)) {
		apply->failed = apply_failed;
		return 1;
	}
	/* Proof 2: what leaves is the ciphertext of the text that was parsed, to its last header. */
	for (int i = 0; i < k_window_words; i++) {
		different |= before[i] ^ ciphertext[i];
		after[i] = before[i] ^ delta[i];
		altered |= delta[i];
	}
	if (different) {
		apply->failed = apply_mismatch;
		return 1;
	}
	if (altered)
		apply->failed = apply_store(apply, offset, start, size);
	return !!apply->failed;
}

/* The tag has nothing to be compared with: of its own it carries no text. */
static __always_inline int apply_tag(struct apply *apply, const struct patch *patch)
{
	struct walk *walk = apply->walk;
	__s32 window = apply->record->length;
	__s32 from = apply->from > window ? apply->from : window;
	__s32 to = window + k_tag_bytes < apply->to ? window + k_tag_bytes : apply->to;
	__u64 *after = (__u64 *)walk->after;

	if (from >= to)
		return apply_done;
	__u32 start = (from - window) & (k_tag_bytes - 1);
	__u32 size = apply_bound(to - from);
	__u32 offset = walk->payload + (from - apply->from);

	memset(walk->before, 0, k_region_chunk_bytes);
	if (bpf_skb_load_bytes(apply->skb, offset, &walk->before[start], size))
		return apply_failed;
	memcpy(walk->after, walk->before, k_tag_bytes);
	after[0] ^= ((const __u64 *)patch->tag_delta)[0];
	after[1] ^= ((const __u64 *)patch->tag_delta)[1];
	return apply_store(apply, offset, start, size);
}

/* Patches what the packet has of one record. */
__noinline int apply_record(struct __sk_buff *skb, struct outstanding_record *record)
{
	struct walk *walk = walk_get();
	struct patch_key key = {};
	const struct patch *patch;
	struct apply apply = {};
	__s32 to;

	if (!record || !walk)
		return apply_failed;
	apply.from = walk->sequence - (record->sequence + 5 + record->prefix);
	apply.to = apply.from + walk->length;
	to = record->length + k_tag_bytes;
	if (apply.to <= 0 || apply.from >= to)
		return apply_done;
	key.serial = record->serial;
	key.index = record->index;
	patch = patch_find(&key);
	if (!patch)
		return apply_failed;
	apply.skb = skb;
	apply.record = record;
	apply.walk = walk;
	apply.chunk = apply.from > 0 ? apply.from / k_region_chunk_bytes : 0;
	bpf_loop(k_record_max / k_region_chunk_bytes + 1, apply_chunk, &apply, 0);
	if (apply.failed)
		return apply.failed;
	return apply_tag(&apply, patch);
}

/* A record that does not match goes on as it is, if nothing of it has ever left otherwise. */
__noinline int apply_refuse(struct flow *flow, struct outstanding_record *record)
{
	struct patch_key key = {};
	struct patch *patch;

	if (!flow || !record)
		return 0;
	key.serial = record->serial;
	key.index = record->index;
	patch = bpf_map_lookup_elem(&patches, &key);
	if (patch)
		report_patch(flow, patch, event_refused, reason_unproven_record, 0);
	flow->closed = reason_unproven_record;
	outstanding_free(flow, record);
	return 0;
}

/*
 * A report costs the agent more than the patch costs the kernel. Where nobody keeps them, it needs one now and then: what is
 * in use has its verdict renewed.
 */
static __always_inline bool apply_tells(struct flow *flow, const struct walk *walk)
{
	if (tell_ns && flow->told_ns && flow->told_attest == walk->attest && walk->now - flow->told_ns < tell_ns)
		return false;
	flow->told_ns = walk->now;
	flow->told_attest = walk->attest;
	return true;
}

/* All of the record has passed, patched. */
__noinline int apply_report(struct flow *flow, struct outstanding_record *record)
{
	struct walk *walk = walk_get();
	struct patch_key key = {};
	struct patch *patch;

	if (!flow || !record || !walk)
		return 0;
	key.serial = record->serial;
	key.index = record->index;
	patch = bpf_map_lookup_elem(&patches, &key);
	if (!patch)
		return 0;
	walk->attest = record->attest;
	if (apply_tells(flow, walk))
		for (__u32 i = 0; i < k_edits_max; i++)
			if (i < patch->edit_count)
				report_patch(flow, patch, event_substituted, reason_none, i);
	if (patch->reason && patch->edit_count < k_edits_max) /* beside them, one that stays */
		report_patch(flow, patch, event_refused, patch->reason, patch->edit_count);
	record->reported = 1;
	return 0;
}

/* The packet's bytes of a record have left, or (left: false) could not. What has not left is not told as substituted. */
static __always_inline void apply_note(struct outstanding_record *record, const struct walk *walk, bool left)
{
	__u32 end = outstanding_end(record), packet_end = walk->sequence + walk->length;

	if (!sequence_before(record->sequence, packet_end) || !sequence_before(walk->sequence, end))
		return;
	if (sequence_before(packet_end, end))
		end = packet_end;
	if (!left) {
		if (!record->dropped || sequence_before(record->dropped_end, end))
			record->dropped_end = end;
		record->dropped = 1;
	} else if (sequence_before(walk->sequence, record->dropped_end) && !sequence_before(end, record->dropped_end)) {
		record->dropped = 0;
	}
}

/* A patch could not be applied. Always false: the packet must not leave. */
static __always_inline bool apply_drop(struct outstanding *waiting, const struct walk *walk)
{
	count(counter_patch_failed);
	for (int i = 0; i < k_outstanding; i++)
		if (waiting->records[i].used)
			apply_note(&waiting->records[i], walk, false);
	return false;
}

/* Applies everything outstanding. false: the packet must not leave. */
static __always_inline bool apply_all(struct __sk_buff *skb, struct flow *flow, struct walk *walk)
{
	struct outstanding *waiting;

	if (!flow->outstanding)
		return !(walk->flags & walk_altered) || !checksum_store(skb, walk);
	waiting = outstanding_find(flow->serial);
	if (!waiting)
		return false;
	for (int i = 0; i < k_outstanding; i++) {
		struct outstanding_record *record = &waiting->records[i];
		__u8 touched = record->touched;
		int result;

		if (!record->used)
			continue;
		result = apply_record(skb, record);
		if (result == apply_mismatch && !touched) {
			/* What has been written already is in this packet alone: it is dropped, and comes again. */
			touched = record->touched;
			record->touched = 0;
			apply_refuse(flow, record);
			if (!touched)
				continue;
		}
		if (result)
			return apply_drop(waiting, walk);
	}
	if ((walk->flags & walk_altered) && checksum_store(skb, walk))
		return apply_drop(waiting, walk);
	for (int i = 0; i < k_outstanding; i++) {
		struct outstanding_record *record = &waiting->records[i];

		if (!record->used || record->reported)
			continue;
		if (record->dropped)
			apply_note(record, walk, true);
		if (!record->dropped && !sequence_before(flow->next, outstanding_end(record)))
			apply_report(flow, record);
	}
	return true;
}

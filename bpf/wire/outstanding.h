/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The life of a patch on the wire side: taken up when its record first passes, dropped when the peer has it. */
#pragma once

#include "walk.h"

/* Deletes all that the cipher side published about one record. */
__noinline int patch_forget(__u64 serial, __u32 index, __u32 region_bytes)
{
	struct patch_key key = {.serial = serial, .index = index};
	const struct patch *patch = patch_find(&key);
	struct fingerprint fingerprint;
	__u32 workload = 0;

	if (patch) {
		workload = patch->workload;
		memcpy(fingerprint.bytes, patch->fingerprint, sizeof(fingerprint.bytes));
		sighting_forget(&fingerprint, workload);
	}
	if (!bpf_map_delete_elem(&patches, &key))
		share_give(workload, table_patches, 1);
	/* 65 chunks at most: 16,385 bytes. */
	share_give(workload, table_region_chunks, region_chunks_delete(&key, region_bytes / k_region_chunk_bytes + 1));
	return 0;
}

static __always_inline __u32 outstanding_end(const struct outstanding_record *record)
{
	return record->sequence + 5 + record->prefix + record->length + k_tag_bytes;
}

/* Frees a record that will not pass again. */
static __always_inline void outstanding_free(struct flow *flow, struct outstanding_record *record)
{
	__u32 end = outstanding_end(record);

	record->used = 0;
	if (flow->outstanding)
		flow->outstanding--;
	if (record->touched && (!(flow->flags & flow_has_freed) || sequence_before(flow->freed, end))) {
		flow->freed = end;
		flow->flags |= flow_has_freed;
	}
	patch_forget(record->serial, record->index, record->region_bytes);
}

/* Frees what the peer has acknowledged, unless it says so of bytes that it cannot have. */
__noinline int outstanding_acknowledge(struct flow *flow, __u32 acknowledged)
{
	struct outstanding *waiting;

	if (!flow)
		return 0;
	waiting = outstanding_find(flow->serial);
	if (!waiting)
		return 0;
	for (int i = 0; i < k_outstanding; i++) {
		struct outstanding_record *record = &waiting->records[i];

		if (record->used && !sequence_before(acknowledged, outstanding_end(record)) &&
		    !sequence_before(flow->next, outstanding_end(record)))
			outstanding_free(flow, record);
	}
	return 0;
}

/* Frees everything: the connection is over. */
__noinline int outstanding_clear(struct flow *flow)
{
	struct outstanding *waiting;

	if (!flow)
		return 0;
	waiting = outstanding_find(flow->serial);
	if (!waiting)
		return 0;
	for (int i = 0; i < k_outstanding; i++) {
		struct outstanding_record *record = &waiting->records[i];

		if (record->used)
			outstanding_free(flow, record);
	}
	outstanding_delete(flow->serial, waiting->workload);
	return 0;
}

enum { outstanding_no_memory = -1, outstanding_all_used = -2 };

/*
 * Takes up walk->patch, which passes as the record at hand of the flow: 0, or one of the above. Lookups use the serial
 * in the flow, so that an entry that user space sweeps with its flow cannot be taken for another's.
 */
__noinline int outstanding_take(struct flow *flow, struct patch *patch)
{
	struct walk *walk = walk_get();
	struct outstanding *waiting;
	__u32 zero = 0;

	if (!flow || !patch || !walk)
		return outstanding_no_memory;
	waiting = outstanding_find(flow->serial);
	if (!waiting) {
		struct outstanding *empty = bpf_map_lookup_elem(&empty_outstanding, &zero);

		waiting = empty ? outstanding_make(flow->serial, walk->key.workload, empty) : NULL;
		if (!waiting)
			return outstanding_no_memory;
	}
	for (int i = 0; i < k_outstanding; i++) {
		struct outstanding_record *record = &waiting->records[i];

		if (record->used)
			continue;
		record->serial = walk->patch.serial;
		record->index = walk->patch.index;
		record->sequence = flow->record;
		record->length = patch->length;
		record->region_bytes = patch->region_bytes;
		record->prefix = flow->prefix;
		record->touched = 0;
		record->reported = 0;
		record->dropped = 0;
		record->attest = walk->attest;
		record->proven = !!(walk->flags & walk_marked);
		record->used = 1;
		flow->outstanding++;
		return 0;
	}
	return outstanding_all_used;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Traffic keys of the workloads: the cipher side's memory of one direction of one TLS connection. Root only: this map
 * holds session keys. Not LRU, so that one workload cannot evict another's: entries go with their flow, or by time.
 */
#pragma once

#include "../core.h"
#include "../crypto/aes.h"
#include "../crypto/ghash.h"
#include "../http/h1.h"
#include "../types/record.h"
#include "shares.h"

struct key_state {
	__u64 serial;    /* unique while the data plane is loaded; never 0 */
	__u64 used_ns;   /* CLOCK_MONOTONIC of the last record */
	__u32 busy;      /* 1 while a probe works on it: a TLS connection never seals two records at once */
	__u32 sealed;    /* records sealed so far: the index of the next */
	__u8 algorithm;  /* enum cipher_algorithm */
	__u8 version;    /* enum tls_version, once known */
	__u8 stack;      /* enum tls_stack */
	__u8 closed;     /* enum reason: nothing more is substituted under this key */
	struct nonce first_nonce; /* TLS 1.3: of record 0; a nonce XOR this is its record's index */
	struct raw_key chacha; /* with ChaCha20 */
	struct aes_key aes;
	struct ghash_key ghash;
	struct h1_parser parser;
	struct record_mark ring[k_mark_ring]; /* record i at i % k_mark_ring */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, k_keys);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key_name);
	__type(value, struct key_state);
} keys SEC(".maps");

/* A key_state of zeros: too large for the stack that bpf_map_update_elem would otherwise copy it from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct key_state);
} blank_key SEC(".maps");

static __always_inline struct key_state *key_find(const struct key_name *name)
{
	return bpf_map_lookup_elem(&keys, name);
}

/* Makes the entry of a key that has none; NULL when there is no room, or another thread has been faster. */
static __always_inline struct key_state *key_make(const struct key_name *name)
{
	__u32 zero = 0;
	struct key_state *blank = bpf_map_lookup_elem(&blank_key, &zero);

	if (!blank || !share_take(name->workload, table_keys, 1))
		return NULL;
	if (bpf_map_update_elem(&keys, name, blank, BPF_NOEXIST)) {
		share_give(name->workload, table_keys, 1);
		return NULL;
	}
	return key_find(name);
}

static __always_inline void key_forget(const struct key_name *name)
{
	if (!bpf_map_delete_elem(&keys, name))
		share_give(name->workload, table_keys, 1);
}

/* A TLS connection never seals two records at once. Who finds the key taken is a process that wants to confuse us. */
static __always_inline bool key_take(struct key_state *key)
{
	if (__sync_val_compare_and_swap(&key->busy, 0, 1) == 0)
		return true;
	key->closed = reason_unproven_flow;
	return false;
}

static __always_inline void key_release(struct key_state *key)
{
	__sync_lock_test_and_set(&key->busy, 0);
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A record that the running thread has been told to seal by a call that does not say under which key: the next call, by
 * which the key's owner is given that record's nonce, does. Storage of the task, for the reason that sealings are.
 */
#pragma once

#include "../core.h"

struct offer {
	__u64 nonce;  /* where it stands; 0: nothing is offered */
	__u64 text;
	__u64 type;   /* where the inner type stands, if apart from the text */
	__u32 length; /* of text and type */
	__u8 aad[5];
	__u8 _pad[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct offer);
} offers SEC(".maps");

/* Of the running thread, made when there is none; NULL without memory. */
static __always_inline struct offer *offer_take(void)
{
	return bpf_task_storage_get(&offers, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline struct offer *offer_find(void)
{
	return bpf_task_storage_get(&offers, bpf_get_current_task_btf(), NULL, 0);
}

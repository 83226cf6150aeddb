/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * How the program of a stack goes on when it knows what a record is sealed with: to those of cipher/seal.bpf.c. They are by
 * far the longest, and so are loaded and verified once, not with each function of each stack.
 */
#pragma once

#include "../core.h"
#include "contexts.h"
#include "sealing.h"

enum seal_step {
	seal_step_record, /* the record of sealing->order */
	seal_step_finish, /* what the first has left to do when the nonce is known */
	seal_step_count,
};

/* Which they are is said in the object that has them. */
#ifndef SEAL_STEPS
#define SEAL_STEPS
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, seal_step_count);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct pt_regs *));
} seal_steps SEC(".maps") SEAL_STEPS;

/* True: go on with bpf_tail_call(ctx, &seal_steps, seal_step_record). The arguments are as in struct seal_order. */
static __always_inline bool seal_order(const struct context_key *context, __u64 text, __u32 length, __u64 type_at,
				       __u8 stack, bool nonce_later)
{
	struct sealing *sealing = sealing_take();

	if (!sealing) {
		count(counter_memory_unreadable);
		return false;
	}
	sealing->order.context = *context;
	sealing->order.text = text;
	sealing->order.type_at = type_at;
	sealing->order.length = length;
	sealing->order.stack = stack;
	sealing->order.nonce_later = nonce_later;
	return true;
}

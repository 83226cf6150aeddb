/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Since 6.13 (commit e00931c02568) larger programs of this type run on a private stack, one for each CPU. A uprobe
 * program can be preempted, and another thread's then overwrites its stack. The verifier gives no private stack to a
 * program that has a tail call, even one that it proves to be never taken and removes.
 */
#pragma once

#include "../core.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} no_programs SEC(".maps");

volatile const __u8 never;

static __always_inline void stay_on_own_stack(void *context)
{
	if (never)
		bpf_tail_call(context, &no_programs, 0);
}

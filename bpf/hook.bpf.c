/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What an agent puts on a function of a file, when hooks are to outlive it: a program that does nothing but go on to the
 * one that stands at its place in `programs`. The kernel cannot replace the program of a uprobe's link (no update_prog in
 * bpf_uprobe_multi_link_lops), and two links at once would hear a record twice; one entry of this map changes at once.
 * Loaded once for each hooked function, with its own `place`.
 */
#include "core.h"

volatile const __u32 place;

/* Emptied by the kernel when no descriptor and no file in bpffs refers to it any more. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

SEC("uprobe")
int hook(struct pt_regs *ctx)
{
	bpf_tail_call(ctx, &programs, place);
	return 0;
}

KLOAK_LICENSE;

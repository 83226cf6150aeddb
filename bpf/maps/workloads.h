/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

#include "../core.h"
#include "../types/workload.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* cookie of the network namespace */
	__type(value, struct workload);
} workloads SEC(".maps");

/*
 * The workload that the running thread belongs to, or 0. The first thing that every probe asks: a probe on a shared
 * library fires for all processes of the host.
 */
static __always_inline __u32 current_workload(void)
{
	/* Loads that the verifier lets fail (a task that ends has no nsproxy), rather than four calls of a helper. */
	const struct task_struct *task = bpf_get_current_task_btf();
	__u64 cookie = task->nsproxy->net_ns->net_cookie;
	struct workload *workload = bpf_map_lookup_elem(&workloads, &cookie);

	return workload ? workload->id : 0;
}

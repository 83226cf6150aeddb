/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Tells the agent that a process of a workload runs another program now, whose TLS code may not be hooked yet. */
#include "maps/events.h"
#include "maps/workloads.h"

/* Raw, as its cost falls on every exec of the host. After begin_new_exec: the command is the new program's. */
SEC("raw_tp/sched_process_exec")
int process_exec(void *context __attribute__((unused)))
{
	__u32 workload = current_workload();
	struct event *event;

	if (!workload)
		return 0;
	event = event_reserve(event_exec);
	if (!event)
		return 0;
	event->workload = workload;
	event->process = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

KLOAK_LICENSE;

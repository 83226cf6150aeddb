/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Where the programs of all stacks go on to (maps/seal_steps.h). Two: the second is what remains to be done of a record
 * whose nonce is known later, and the verifier walks through each in about half the steps of both.
 */
#define SEAL_STEPS = {.values = {(void *)&seal_record, (void *)&seal_finish}}

struct pt_regs;
int seal_record(struct pt_regs *ctx);
int seal_finish(struct pt_regs *ctx);

#include "../core.h"
#include "../maps/contexts.h"
#include "../maps/seal_steps.h"
#include "../maps/workloads.h"
#include "seal.h"
#include "stack.h"

KLOAK_LICENSE;

/* The record of sealing->order, up to what is known without its ciphertext. */
SEC("uprobe")
int seal_record(struct pt_regs *ctx)
{
	struct sealing *sealing = sealing_find();
	struct context_key name;
	struct context *context;
	struct key_state *key;

	if (!sealing)
		return 0;
	name = sealing->order.context;
	context = context_find(&name);
	if (!context || context->algorithm == cipher_unknown) {
		seal_overhear(context, sealing);
		return 0;
	}
	key = seal_begin(context, sealing);
	if (!key)
		return 0;
	sealing->waiting = sealing->order.nonce_later;
	if (!sealing->waiting)
		bpf_tail_call(ctx, &seal_steps, seal_step_finish);
	key_release(key);
	return 0;
}

/* Its key is taken, unless the record has waited for its nonce. */
SEC("uprobe")
int seal_finish(struct pt_regs *ctx)
{
	struct sealing *sealing = sealing_find();
	struct key_name name;
	struct key_state *key;

	stay_on_own_stack(ctx);
	if (!sealing)
		return 0;
	name = sealing->key;
	key = key_find(&name);
	if (!key || key->serial != sealing->serial || (sealing->order.nonce_later && !key_take(key)))
		return 0;
	seal_end(key, sealing);
	return 0;
}

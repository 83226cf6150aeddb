/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* May this record's placeholders become secrets, on this flow, to this destination? */
#pragma once

#include "../maps/hosts.h"
#include "report.h"
#include "walk.h"

/* verdict_patch, verdict_hold, or an enum reason why not. */
enum { verdict_patch = 0, verdict_hold = -1 };

static __always_inline bool verdict_port(const struct host_rule *rule, __u32 port)
{
	if (!rule->port_count)
		return true;
	for (int i = 0; i < 8; i++)
		if (i < rule->port_count && rule->ports[i] == port)
			return true;
	return false;
}

/* The rule of this secret for the flow's SNI or, without one, its address; walk->attest is set with it. */
__noinline int verdict_destination(struct flow *flow, __u32 secret)
{
	struct walk *walk = walk_get();
	const struct host_rule *rule;
	int reason = reason_host_not_allowed;

	if (!flow || !walk)
		return reason;
	if (flow->sni == sni_encrypted)
		return reason_encrypted_sni;
	if (flow->sni == sni_unusable)
		return reason_no_sni;
	if (flow->sni == sni_none) {
		walk->network.prefix = 32 + 128;
		walk->network.secret = bpf_htonl(secret);
		memcpy(walk->network.address, walk->key.destination, sizeof(walk->network.address));
		rule = network_find(&walk->network);
		if (!rule)
			return reason_no_sni;
		if (!verdict_port(rule, walk->key.destination_port))
			return reason_port_not_allowed;
		walk->attest = rule->attest;
		return reason_none;
	}
	walk->host.secret = secret;
	walk->host.kind = host_exact;
	walk->host.name = flow->host;
	rule = host_find(&walk->host);
	if (rule) {
		if (verdict_port(rule, walk->key.destination_port)) {
			walk->attest = rule->attest;
			return reason_none;
		}
		reason = reason_port_not_allowed;
	}
	if (!flow->parent)
		return reason;
	/* What follows the first dot: one label stands for the star, no more and no less. */
	walk->host.kind = host_wildcard;
	walk->host.name = flow->parent;
	rule = host_find(&walk->host);
	if (rule) {
		if (verdict_port(rule, walk->key.destination_port)) {
			walk->attest = rule->attest;
			return reason_none;
		}
		reason = reason_port_not_allowed;
	}
	return reason;
}

/* Is the flow's destination known to be the host that it names, in the way walk->attest asks for? */
__noinline int verdict_attested(struct flow *flow)
{
	struct walk *walk = walk_get();
	const struct attestation *attestation;

	if (!flow || !walk)
		return reason_not_attested;
	/* The address itself is what the rule allows; a name is never taken at its word. */
	if (walk->attest == attest_none && flow->sni == sni_none)
		return verdict_patch;
	memcpy(walk->attestation.address, walk->key.destination, sizeof(walk->attestation.address));
	walk->attestation.name = flow->host;
	walk->attestation.port = walk->key.destination_port;
	walk->attestation.mode = walk->attest;
	attestation = attestation_find(&walk->attestation);
	if (!attestation || attestation->expires_ns < walk->now)
		return verdict_hold;
	return attestation->granted ? verdict_patch : reason_attestation_failed;
}

static __always_inline int verdict_edit(struct flow *flow, const struct patch *patch, const struct edit *edit)
{
	struct walk *walk = walk_get();
	int reason;

	if (!walk)
		return reason_unproven_record;
	/* Proof 3: nothing was said on this flow that the kernel has not heard. */
	if (edit->proof == proof_flow && flow->phase != phase_bound)
		return reason_unproven_flow;
	/* Proof 2, as far as it is known before the record has passed: its length, its place under its key. */
	if (edit->proof != proof_none && !(walk->flags & walk_marked))
		return reason_unproven_record;
	reason = verdict_destination(flow, edit->secret);
	if (reason)
		return reason;
	/*
	 * The request's own Host: many tenants share one address, and a front end that goes by Host would hand the secret
	 * to another. Text that is no request has none: there the owner has allowed slot `any`.
	 */
	if (!edit->host_allowed && !(edit->slot == slot_any && patch->protocol == protocol_unknown) &&
	    (flow->sni != sni_name || patch->host != flow->host))
		return reason_host_not_allowed;
	/* A first part that has left unpatched: whoever saw it and the patched copy knew placeholder XOR secret. */
	if (walk->carry_before > 5 + flow->prefix && edit->offset < walk->carry_before - 5 - flow->prefix)
		return reason_too_late;
	return verdict_attested(flow);
}

/* What applies to the record whole; walk->edit says which edit a reason is about. */
__noinline int verdict(struct flow *flow, struct patch *patch)
{
	struct walk *walk = walk_get();
	bool hold = false;

	if (!flow || !patch || !walk)
		return reason_unproven_record;
	walk->edit = 0;
	walk->attest = 0;
	/* Proof 4: said in the workload through whose interface it leaves. */
	if (patch->workload != walk->key.workload)
		return reason_other_workload;
	if (!patch->edit_count)
		return patch->reason ? patch->reason : reason_unparsable_request;
	if (flow->closed)
		return flow->closed;
	if (!(walk->flags & walk_socket))
		return reason_unproven_flow;
	/* A table that outlives this record asks for proof of what follows it, whatever the secret asks for. */
	if (patch->keeps && flow->phase != phase_bound)
		return reason_unproven_flow;
	/* HTTP/2 begins with the connection: what begins under its second key is no HTTP/2 to the server. */
	if (patch->protocol == protocol_http_2 && flow->rebound)
		return reason_unproven_flow;
	if (walk->now - patch->sealed_ns > patch_age_ns && walk->now > patch->sealed_ns)
		return reason_expired;
	for (__u32 i = 0; i < k_edits_max; i++) {
		int result;

		if (i >= patch->edit_count)
			break;
		walk->edit = i;
		result = verdict_edit(flow, patch, &patch->edits[i]);
		if (result > 0)
			return result;
		if (result == verdict_hold) {
			report_attest(flow, patch->edits[i].secret, walk->attest);
			hold = true;
		}
	}
	if (!hold) {
		flow->hold_ns = 0;
		return verdict_patch;
	}
	/* TCP sends a held segment again and again, until there is a verdict or it has waited for long enough. */
	if (!flow->hold_ns)
		flow->hold_ns = walk->now;
	if (walk->now - flow->hold_ns > attest_hold_ns) {
		flow->hold_ns = 0;
		return reason_not_attested;
	}
	return verdict_hold;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Host of a request, as the tables name hosts. */
#pragma once

#include "../core.h"
#include "../crypto/siphash.h"
#include "../http/h1.h"
#include "../maps/hosts.h"
#include "../maps/sealing.h"

struct host_loop {
	const struct h1_parser *parser;
	__u32 first; /* of the name */
	__u32 end;   /* one past its last */
	__u32 dot;   /* one past the first dot; 0: none */
	__u32 _pad;
};

static long host_step(__u32 index, struct host_loop *loop)
{
	__u32 at = loop->first + index;
	__u8 c;

	if (at >= loop->parser->host_length || at >= k_h1_host_max)
		return 1;
	c = ((const __u8 *)&loop->parser->host)[at];
	if (c == ']' || (c == ':' && !loop->first))
		return 1;
	if (c == '.' && !loop->dot)
		loop->dot = at + 1;
	loop->end = at + 1;
	return 0;
}

/* SipHash of bytes [start, end) of the host. */
static __always_inline __u64 host_hash(const struct h1_parser *parser, struct sealing *sealing, __u32 start, __u32 end)
{
	const __u8 *text = (const __u8 *)&parser->host;

	if (start >= end || start >= k_h1_host_max)
		return 0;
	bpf_probe_read_kernel(&sealing->name, sizeof(sealing->name) - start, text + start);
	return siphash_name(&sealing->name, end - start);
}

/* Sets sealing->host and host_suffix: without port and final dot; an IPv6 address without its brackets. */
__noinline int request_host(const struct h1_parser *parser, struct sealing *sealing)
{
	struct host_loop loop = {};
	__u32 last;

	if (!parser || !sealing)
		return -1;
	loop.parser = parser;
	loop.first = ((const __u8 *)&parser->host)[0] == '[';
	loop.end = loop.first;
	bpf_loop(k_h1_host_max, host_step, &loop, 0);
	last = loop.end - 1;
	if (loop.end > loop.first && last < k_h1_host_max && ((const __u8 *)&parser->host)[last] == '.')
		loop.end--;
	sealing->host_known = 1;
	sealing->host = host_hash(parser, sealing, loop.first, loop.end);
	sealing->host_suffix = loop.dot ? host_hash(parser, sealing, loop.dot, loop.end) : 0;
	return 0;
}

/* Whether a secret may go to the request's host. The wire side asks the same about the name in the ClientHello. */
static __always_inline bool host_allows(const struct sealing *sealing, __u32 secret)
{
	struct host_key key = {.secret = secret, .kind = host_exact, .name = sealing->host};

	if (!sealing->host)
		return false;
	if (host_find(&key))
		return true;
	key.kind = host_wildcard;
	key.name = sealing->host_suffix;
	return sealing->host_suffix && host_find(&key);
}

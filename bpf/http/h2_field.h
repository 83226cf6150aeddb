/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Names of HTTP/2's header fields: the static table (RFC 7541 appendix A), and what a name means. */
#pragma once

#include "../core.h"
#include "h1_field.h"
#include "h2.h"

/* A name as it stands in h1_parser.name: zero-padded, its length at the end. */
struct h2_static_name {
	char text[k_header_name_max];
	__u8 length;
};

#define H2_NAME(text) {text, sizeof(text) - 1}

/* Index 0 is none. */
static const struct h2_static_name h2_static_names[k_h2_static + 1] = {
	{"", 0},
	H2_NAME(":authority"),
	H2_NAME(":method"),
	H2_NAME(":method"),
	H2_NAME(":path"),
	H2_NAME(":path"),
	H2_NAME(":scheme"),
	H2_NAME(":scheme"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME(":status"),
	H2_NAME("accept-charset"),
	H2_NAME("accept-encoding"),
	H2_NAME("accept-language"),
	H2_NAME("accept-ranges"),
	H2_NAME("accept"),
	H2_NAME("access-control-allow-origin"),
	H2_NAME("age"),
	H2_NAME("allow"),
	H2_NAME("authorization"),
	H2_NAME("cache-control"),
	H2_NAME("content-disposition"),
	H2_NAME("content-encoding"),
	H2_NAME("content-language"),
	H2_NAME("content-length"),
	H2_NAME("content-location"),
	H2_NAME("content-range"),
	H2_NAME("content-type"),
	H2_NAME("cookie"),
	H2_NAME("date"),
	H2_NAME("etag"),
	H2_NAME("expect"),
	H2_NAME("expires"),
	H2_NAME("from"),
	H2_NAME("host"),
	H2_NAME("if-match"),
	H2_NAME("if-modified-since"),
	H2_NAME("if-none-match"),
	H2_NAME("if-range"),
	H2_NAME("if-unmodified-since"),
	H2_NAME("last-modified"),
	H2_NAME("link"),
	H2_NAME("location"),
	H2_NAME("max-forwards"),
	H2_NAME("proxy-authenticate"),
	H2_NAME("proxy-authorization"),
	H2_NAME("range"),
	H2_NAME("referer"),
	H2_NAME("refresh"),
	H2_NAME("retry-after"),
	H2_NAME("server"),
	H2_NAME("set-cookie"),
	H2_NAME("strict-transport-security"),
	H2_NAME("transfer-encoding"),
	H2_NAME("user-agent"),
	H2_NAME("vary"),
	H2_NAME("via"),
	H2_NAME("www-authenticate"),
};

_Static_assert(sizeof(struct h2_static_name) == 40, "as h1_parser.name");

static __always_inline bool h2_is_pseudo(const __u64 name[5])
{
	return (name[0] & 0xff) == ':';
}

/* RFC 9113 8.2.2, 8.3.1. A name that was cut at 39 characters has length 0, and is plain. */
static __always_inline enum h2_kind h2_classify(const __u64 name[5])
{
	switch (((const __u8 *)name)[k_header_name_max]) {
	case 4:
		if (name[0] == H1_WORD("host"))
			return h2_host;
		break;
	case 5:
		if (name[0] == H1_WORD(":path"))
			return h2_path;
		break;
	case 7:
		if (name[0] == H1_WORD(":method"))
			return h2_method;
		if (name[0] == H1_WORD(":scheme"))
			return h2_scheme;
		if (name[0] == H1_WORD("upgrade"))
			return h2_refused;
		break;
	case 9:
		if (name[0] == H1_WORD(":protoco") && name[1] == 'l')
			return h2_protocol;
		break;
	case 10:
		if (name[0] == H1_WORD(":authori") && name[1] == H1_WORD("ty"))
			return h2_authority;
		if ((name[0] == H1_WORD("connecti") && name[1] == H1_WORD("on")) ||
		    (name[0] == H1_WORD("keep-ali") && name[1] == H1_WORD("ve")))
			return h2_refused;
		break;
	case 13:
		if (name[0] == H1_WORD("authoriz") && name[1] == H1_WORD("ation"))
			return h2_credentials;
		break;
	case 14:
		if (name[0] == H1_WORD("content-") && name[1] == H1_WORD("length"))
			return h2_content_length;
		break;
	case 16:
		if (name[0] == H1_WORD("proxy-co") && name[1] == H1_WORD("nnection"))
			return h2_refused;
		break;
	case 17:
		if (name[0] == H1_WORD("transfer") && name[1] == H1_WORD("-encodin") && name[2] == 'g')
			return h2_refused;
		break;
	case 19:
		if (name[0] == H1_WORD("proxy-au") && name[1] == H1_WORD("thorizat") && name[2] == H1_WORD("ion"))
			return h2_credentials;
		break;
	default:
		break;
	}
	return h2_is_pseudo(name) ? h2_refused : h2_plain;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Characters and header names of HTTP/1.1. */
#pragma once

#include "../core.h"
#include "h1.h"

/* Up to eight characters as a word, the first lowest; folds to a constant. */
#define H1_WORD(text)                        \
	({                                   \
		const char __text[8] = text; \
		__u64 __word;                \
		memcpy(&__word, __text, 8);  \
		__word;                      \
	})

static __always_inline __u8 h1_lower(__u8 c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* RFC 9110 5.6.2: tchar, as a bit for each of 0 … 127. */
static __always_inline bool h1_is_token(__u8 c)
{
	const __u64 low = 0x03ff6cfa00000000, high = 0x57ffffffc7fffffe;

	if (c >= 128)
		return false;
	return ((c & 64 ? high : low) >> (c & 63)) & 1;
}

static __always_inline bool h1_is_space(__u8 c)
{
	return c == ' ' || c == '\t';
}

/* RFC 9110 5.5: field-vchar, SP, HTAB. */
static __always_inline bool h1_is_value(__u8 c)
{
	return c >= 0x20 ? c != 0x7f : c == '\t';
}

/* A registered name, an address, brackets of IPv6, a port. Percent-encoding and user information are not for us. */
static __always_inline bool h1_is_host(__u8 c)
{
	const __u64 low = 0x07ff600000000000, high = 0x07fffffeaffffffe;

	if (c >= 128)
		return false;
	return ((c & 64 ? high : low) >> (c & 63)) & 1;
}

static __always_inline int h1_hex(__u8 c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static __always_inline int h1_base64(__u8 c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Headers that servers log, forward, reflect or read as framing: slots only for a secret that names them. */
static __always_inline bool h1_forbids(const __u64 name[5], __u32 length)
{
	switch (length) {
	case 4:
		return name[0] == H1_WORD("host");
	case 6:
		return name[0] == H1_WORD("cookie") || name[0] == H1_WORD("origin");
	case 7:
		return name[0] == H1_WORD("referer") || name[0] == H1_WORD("upgrade");
	default:
		break;
	}
	if (name[0] == H1_WORD("content-"))
		return true;
	if (name[0] == H1_WORD("x-forwar") && (name[1] & 0xffffffff) == H1_WORD("ded-"))
		return true;
	if (name[0] == H1_WORD("user-age"))
		return length == 10 && name[1] == H1_WORD("nt");
	return length == 19 && name[0] == H1_WORD("proxy-au") && name[1] == H1_WORD("thorizat") &&
	       name[2] == H1_WORD("ion");
}

static __always_inline enum h1_field h1_classify(const __u64 name[5], __u32 length)
{
	if (length == 4 && name[0] == H1_WORD("host"))
		return h1_field_host;
	if (length == 7 && name[0] == H1_WORD("upgrade"))
		return h1_field_upgrade;
	if (length == 13 && name[0] == H1_WORD("authoriz") && name[1] == H1_WORD("ation"))
		return h1_field_credentials;
	if (length == 14 && name[0] == H1_WORD("content-") && name[1] == H1_WORD("length"))
		return h1_field_content_length;
	if (length == 17 && name[0] == H1_WORD("transfer") && name[1] == H1_WORD("-encodin") && name[2] == 'g')
		return h1_field_transfer_encoding;
	if (length == 19 && name[0] == H1_WORD("proxy-au") && name[1] == H1_WORD("thorizat") &&
	    name[2] == H1_WORD("ion"))
		return h1_field_credentials;
	return h1_field_plain;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Handshake messages in the clear, byte by byte, so that no segment or record boundary matters. Of a ClientHello
 * (RFC 8446 4.1.2) it keeps the server name in lower case (RFC 6066 3), and whether it offers ECH or early data.
 */
#pragma once

#include "../core.h"
#include "../types/common.h"

enum hello_stage {
	hello_message_type = 0,
	hello_message_length,
	hello_random, /* legacy_version and random */
	hello_session_length,
	hello_session,
	hello_suites_length,
	hello_suites,
	hello_compressions_length,
	hello_compressions,
	hello_extensions_length,
	hello_extension_type,
	hello_extension_length,
	hello_extension,
	hello_list_length,
	hello_name_type,
	hello_name_length,
	hello_name,
	hello_rest, /* what is left of a message that does not interest, or that makes no sense */
};

enum hello_flag {
	hello_is_client_hello = 1,
	hello_has_name = 2,
	hello_has_ech = 4,
	hello_has_early_data = 8,
	hello_unusable = 16,    /* malformed, or a name that nobody may rely on */
	hello_complete = 32,    /* the message at hand has ended */
	hello_was_dot = 64,     /* the name's last byte so far */
};

enum {
	k_message_client_hello = 1,
	k_extension_server_name = 0,
	k_extension_early_data = 42,
	k_extension_ech = 0xfe0d, /* RFC 9849 */
};

struct hello {
	__u32 number;       /* big-endian, being read */
	__u32 skip;         /* bytes to pass over without a look */
	__u32 message_left; /* bytes of the message's body */
	__u32 digits;       /* bytes of `number` still to come */
	__u16 extensions_left;
	__u16 extension_left;
	__u16 extension;
	__u16 name_left;
	__u16 name_length;
	__u16 name_dot; /* length of the first label and its dot; 0: no dot yet */
	__u8 stage; /* enum hello_stage */
	__u8 flags; /* enum hello_flag */
	__u8 _pad[2];
	char name[256];   /* zero-padded, as struct dns_name wants it */
	char parent[256]; /* what follows the first dot, likewise */
	__u32 workload;
};

static __always_inline void hello_read(struct hello *hello, enum hello_stage stage, __u32 digits)
{
	hello->stage = stage;
	hello->number = 0;
	hello->digits = digits;
}

static __always_inline void hello_pass(struct hello *hello, enum hello_stage stage, __u32 bytes)
{
	hello->stage = stage;
	hello->skip = bytes;
}

static __always_inline void hello_give_up(struct hello *hello)
{
	hello->flags |= hello_unusable;
	hello_pass(hello, hello_rest, hello->message_left);
}

static __always_inline void hello_next_extension(struct hello *hello)
{
	if (hello->extensions_left)
		hello_read(hello, hello_extension_type, 2);
	else if (hello->message_left)
		hello_give_up(hello);
}

/* A field has been passed over. */
static __always_inline void hello_passed(struct hello *hello)
{
	switch (hello->stage) {
	case hello_random:
		hello_read(hello, hello_session_length, 1);
		break;
	case hello_session:
		hello_read(hello, hello_suites_length, 2);
		break;
	case hello_suites:
		hello_read(hello, hello_compressions_length, 1);
		break;
	case hello_compressions:
		hello_read(hello, hello_extensions_length, 2);
		break;
	case hello_extension:
		hello_next_extension(hello);
		break;
	default:
		break;
	}
}

static __always_inline void hello_pass_field(struct hello *hello, enum hello_stage stage, __u32 bytes)
{
	if (bytes > hello->message_left) {
		hello_give_up(hello);
		return;
	}
	hello_pass(hello, stage, bytes);
	if (!bytes)
		hello_passed(hello);
}

static __always_inline void hello_begin_extension(struct hello *hello)
{
	__u32 bytes = hello->number;

	/* The type and length of this extension are taken off already. */
	if (bytes > hello->extensions_left) {
		hello_give_up(hello);
		return;
	}
	hello->extensions_left -= bytes;
	if (hello->extension == k_extension_ech)
		hello->flags |= hello_has_ech;
	if (hello->extension == k_extension_early_data)
		hello->flags |= hello_has_early_data;
	if (hello->extension != k_extension_server_name) {
		hello_pass_field(hello, hello_extension, bytes);
		return;
	}
	/* One server_name extension with one name, or none to rely on: servers differ in which they take. */
	if ((hello->flags & hello_has_name) || bytes < 6) {
		hello_give_up(hello);
		return;
	}
	hello->flags |= hello_has_name;
	hello->extension_left = bytes;
	hello_read(hello, hello_list_length, 2);
}

/* An index that the verifier can see to be inside the name, whatever the compiler knows of it. */
static __always_inline __u32 hello_index(__u32 at)
{
	asm volatile("%0 &= 255" : "+r"(at));
	return at;
}

static __always_inline void hello_name_byte(struct hello *hello, __u32 byte)
{
	__u32 at = hello->name_length;

	if (byte >= 'A' && byte <= 'Z')
		byte |= 0x20;
	if (byte == '.') {
		/* An empty label, or one after the root's dot. */
		if (!at || (hello->flags & hello_was_dot)) {
			hello_give_up(hello);
			return;
		}
		hello->flags |= hello_was_dot;
		if (!hello->name_dot)
			hello->name_dot = at + 1;
	} else if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_') {
		hello->flags &= ~hello_was_dot;
	} else {
		hello_give_up(hello);
		return;
	}
	if (at < 255) {
		hello->name[hello_index(at)] = byte;
		hello->name_length = at + 1;
		if (hello->name_dot && at >= hello->name_dot)
			hello->parent[hello_index(at - hello->name_dot)] = byte;
	}
	if (--hello->name_left)
		return;
	if (hello->flags & hello_was_dot) {
		/* The root's dot names the same host. */
		hello->name_length = at;
		hello->name[hello_index(at)] = 0;
		if (hello->name_dot == at + 1)
			hello->name_dot = 0;
		else
			hello->parent[hello_index(at - hello->name_dot)] = 0;
	}
	if (!hello->name_length || hello->name_length > k_host_max)
		hello_give_up(hello);
	else
		hello_next_extension(hello);
}

static __always_inline void hello_number(struct hello *hello)
{
	__u32 number = hello->number;

	switch (hello->stage) {
	case hello_message_type:
		hello->flags = number == k_message_client_hello ? hello_is_client_hello : 0;
		hello->name_length = 0;
		hello->name_dot = 0;
		hello_read(hello, hello_message_length, 3);
		break;
	case hello_message_length:
		hello->message_left = number;
		if (!(hello->flags & hello_is_client_hello))
			hello_pass(hello, hello_rest, number);
		else
			hello_pass_field(hello, hello_random, 34);
		break;
	case hello_session_length:
		hello_pass_field(hello, hello_session, number);
		break;
	case hello_suites_length:
		hello_pass_field(hello, hello_suites, number);
		break;
	case hello_compressions_length:
		hello_pass_field(hello, hello_compressions, number);
		break;
	case hello_extensions_length:
		if (number != hello->message_left) {
			hello_give_up(hello);
			break;
		}
		hello->extensions_left = number;
		hello_next_extension(hello);
		break;
	case hello_extension_type:
		hello->extension = number;
		hello_read(hello, hello_extension_length, 2);
		break;
	case hello_extension_length:
		if (hello->extensions_left < 4) {
			hello_give_up(hello);
			break;
		}
		hello->extensions_left -= 4;
		hello_begin_extension(hello);
		break;
	case hello_list_length:
		if (number + 2 != hello->extension_left)
			hello_give_up(hello);
		else
			hello_read(hello, hello_name_type, 1);
		break;
	case hello_name_type:
		if (number)
			hello_give_up(hello);
		else
			hello_read(hello, hello_name_length, 2);
		break;
	case hello_name_length:
		/* The list holds exactly this name; 254 with the root's dot. */
		if (!number || number > k_host_max + 1 || number + 5 != hello->extension_left) {
			hello_give_up(hello);
			break;
		}
		hello->name_left = number;
		hello->stage = hello_name;
		break;
	default:
		break;
	}
}

/* With nothing left of the message: has all of it been understood? */
static __always_inline bool hello_whole(const struct hello *hello)
{
	switch (hello->stage) {
	case hello_rest:
		return true;
	case hello_extensions_length: /* none at all (RFC 5246 7.4.1.2), or an empty list */
		return hello->digits != 1;
	case hello_extension:
	case hello_name:
		return !hello->extensions_left && !hello->name_left;
	default:
		return false;
	}
}

/* Ends the message when its last byte has been taken. */
static __always_inline void hello_settle(struct hello *hello)
{
	if (hello->stage <= hello_message_length || hello->message_left)
		return;
	if (!hello_whole(hello))
		hello->flags |= hello_unusable;
	hello->flags |= hello_complete;
	hello_read(hello, hello_message_type, 1);
}

/* Passes over up to hello.skip bytes. */
static __always_inline void hello_skip(struct hello *hello, __u32 bytes)
{
	hello->skip -= bytes;
	hello->message_left -= bytes;
	if (!hello->skip)
		hello_passed(hello);
	hello_settle(hello);
}

/* Takes one byte when hello.skip is 0. After each call look at hello_complete, and clear it. */
__noinline int hello_byte(struct hello *hello, __u32 byte)
{
	if (!hello)
		return 0;
	if (hello->stage > hello_message_length) {
		if (!hello->message_left)
			return 0;
		hello->message_left--;
	}
	if (hello->stage == hello_name) {
		hello_name_byte(hello, byte & 0xff);
	} else {
		if (!hello->digits) /* a fresh entry is all zero */
			hello->digits = 1;
		hello->number = hello->number << 8 | (byte & 0xff);
		if (--hello->digits == 0)
			hello_number(hello);
	}
	hello_settle(hello);
	return 0;
}

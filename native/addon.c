/* SPDX-License-Identifier: Apache-2.0 */
#include "addon.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { k_errno_notsupp = 524 };

static const napi_type_tag handle_tags[handle_kinds] = {
	[handle_object] = {0x6b6c6f616b6f626aULL, 0x9d5f3c0b1f6a4e01ULL},
	[handle_map] = {0x6b6c6f616b6d6170ULL, 0x9d5f3c0b1f6a4e02ULL},
	[handle_link] = {0x6b6c6f616b6c6e6bULL, 0x9d5f3c0b1f6a4e03ULL},
	[handle_ring] = {0x6b6c6f616b726e67ULL, 0x9d5f3c0b1f6a4e04ULL},
};

static const char *const handle_names[handle_kinds] = {"object", "map", "link", "ring buffer"};

bool arguments_read(napi_env env, napi_callback_info info, size_t least, struct arguments *arguments)
{
	arguments->count = sizeof(arguments->at) / sizeof(arguments->at[0]);
	if (napi_get_cb_info(env, info, &arguments->count, arguments->at, NULL, NULL) != napi_ok)
		return false;
	if (arguments->count < least) {
		throw_type(env, "%zu arguments are needed, %zu were given", least, arguments->count);
		return false;
	}
	return true;
}

bool read_text(napi_env env, napi_value value, const char *what, char *text, size_t size)
{
	size_t length;

	if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
		throw_type(env, "%s must be a string", what);
		return false;
	}
	if (length >= size) {
		throw_type(env, "%s is longer than %zu bytes", what, size - 1);
		return false;
	}
	return napi_get_value_string_utf8(env, value, text, size, &length) == napi_ok;
}

bool read_bytes(napi_env env, napi_value value, const char *what, void **data, size_t *length)
{
	bool is_buffer = false;

	if (napi_is_buffer(env, value, &is_buffer) != napi_ok || !is_buffer ||
	    napi_get_buffer_info(env, value, data, length) != napi_ok) {
		throw_type(env, "%s must be a Buffer or Uint8Array", what);
		return false;
	}
	return true;
}

bool read_number(napi_env env, napi_value value, const char *what, int64_t *number)
{
	if (napi_get_value_int64(env, value, number) == napi_ok)
		return true;
	throw_type(env, "%s must be a number", what);
	return false;
}

bool read_uint64(napi_env env, napi_value value, const char *what, uint64_t *number)
{
	bool lossless;

	if (napi_get_value_bigint_uint64(env, value, number, &lossless) == napi_ok && lossless)
		return true;
	throw_type(env, "%s must be a bigint of 64 bits", what);
	return false;
}

bool read_handle(napi_env env, napi_value value, enum handle_kind kind, void **handle)
{
	bool tagged = false;
	napi_valuetype type;

	if (napi_typeof(env, value, &type) == napi_ok && type == napi_external &&
	    napi_check_object_type_tag(env, value, &handle_tags[kind], &tagged) == napi_ok && tagged &&
	    napi_get_value_external(env, value, handle) == napi_ok)
		return true;
	throw_type(env, "not a handle of a %s", handle_names[kind]);
	return false;
}

bool is_nothing(napi_env env, napi_value value)
{
	napi_valuetype type;

	return !value || napi_typeof(env, value, &type) != napi_ok || type == napi_undefined || type == napi_null;
}

bool read_number_or(napi_env env, napi_value value, const char *what, int64_t otherwise, int64_t *number)
{
	if (is_nothing(env, value)) {
		*number = otherwise;
		return true;
	}
	return read_number(env, value, what, number);
}

napi_value make_handle(napi_env env, enum handle_kind kind, void *handle, napi_finalize finalize)
{
	napi_value value;

	if (napi_create_external(env, handle, finalize, NULL, &value) != napi_ok) {
		finalize(env, handle, NULL);
		return NULL;
	}
	if (napi_type_tag_object(env, value, &handle_tags[kind]) != napi_ok)
		return NULL;
	return value;
}

napi_value make_number(napi_env env, double number)
{
	napi_value value = NULL;

	napi_create_double(env, number, &value);
	return value;
}

napi_value make_text(napi_env env, const char *text)
{
	napi_value value = NULL;

	napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
	return value;
}

napi_value make_bytes(napi_env env, const void *data, size_t length)
{
	napi_value value = NULL;

	napi_create_buffer_copy(env, length, data, NULL, &value);
	return value;
}

void set_property(napi_env env, napi_value object, const char *name, napi_value value)
{
	napi_set_named_property(env, object, name, value);
}

void add_function(napi_env env, napi_value exports, const char *name, napi_callback function)
{
	napi_value value;

	if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok)
		set_property(env, exports, name, value);
}

/* What libbpf has to say, among it the verifier's log, which it prints when a program does not load. */
static struct {
	char text[1 << 20];
	size_t length;
} complaints;

static int complain(enum libbpf_print_level level, const char *format, va_list list)
{
	size_t room = sizeof(complaints.text) - complaints.length;
	int written;

	if (level > LIBBPF_WARN || room < 2)
		return 0;
	written = vsnprintf(complaints.text + complaints.length, room, format, list);
	if (written > 0)
		complaints.length += (size_t)written < room ? (size_t)written : room - 1;
	return 0;
}

void complaints_forget(void)
{
	libbpf_set_print(complain);
	complaints.length = 0;
	complaints.text[0] = 0;
}

napi_value throw_errno(napi_env env, int error, const char *format, ...)
{
	char message[1024], *end = message;
	const char *name;
	napi_value value;
	va_list list;

	if (error < 0)
		error = -error;
	va_start(list, format);
	end += vsnprintf(message, sizeof(message) - 128, format, list);
	va_end(list);
	if (end > message + sizeof(message) - 129)
		end = message + sizeof(message) - 129;
	/* The kernel's own, without a place in errno.h: an instruction that takes no probe, a map without batches. */
	name = error == k_errno_notsupp ? "ENOTSUPP" : strerrorname_np(error);
	snprintf(end, 128, ": %s (%s)", strerror(error), name ? name : "?");
	if (napi_create_error(env, make_text(env, name ? name : "UNKNOWN"), make_text(env, message), &value) != napi_ok)
		return NULL;
	set_property(env, value, "errno", make_number(env, error));
	if (complaints.length) {
		/* Not enumerable: a verifier's log has thousands of lines, and who prints an error prints its properties. */
		napi_property_descriptor log = {.utf8name = "log", .value = make_text(env, complaints.text)};

		napi_define_properties(env, value, 1, &log);
	}
	complaints.length = 0;
	napi_throw(env, value);
	return NULL;
}

napi_value throw_type(napi_env env, const char *format, ...)
{
	char message[512];
	va_list list;

	va_start(list, format);
	vsnprintf(message, sizeof(message), format, list);
	va_end(list);
	napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
	return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the addon share: how arguments are read, how errors are thrown, and the handles that JavaScript
 * holds. The addon is thin on purpose: it knows libbpf and nothing of Kloak; src/dataplane gives it meaning.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/libbpf.h>
#include <node_api.h>

/* A map's descriptor, our own duplicate: it outlives the object it came from. */
struct map_handle {
	int fd; /* -1: closed */
	uint32_t type;
	uint32_t key_bytes;
	uint32_t value_bytes;
	uint32_t buffer_bytes; /* of a value as the kernel copies it: per-CPU maps give one for each possible CPU */
	uint32_t max_entries;
	char name[64];
};

struct object_handle {
	struct bpf_object *object; /* NULL: closed */
	char **logs;               /* verifier's statistics of each program, if asked for */
	size_t log_count;
	char *path;
};

/* Closes by itself when collected; `close` of each file does it at once. */
enum handle_kind { handle_object = 0, handle_map = 1, handle_link = 2, handle_ring = 3, handle_kinds };

struct arguments {
	size_t count;
	napi_value at[12];
};

/* Throws and returns false if there are fewer than `least`. */
bool arguments_read(napi_env env, napi_callback_info info, size_t least, struct arguments *arguments);

/* Each throws a TypeError naming `what` and returns false if the value is not what it should be. */
bool read_text(napi_env env, napi_value value, const char *what, char *text, size_t size);
bool read_bytes(napi_env env, napi_value value, const char *what, void **data, size_t *length);
bool read_number(napi_env env, napi_value value, const char *what, int64_t *number);
bool read_uint64(napi_env env, napi_value value, const char *what, uint64_t *number); /* a BigInt */
bool read_handle(napi_env env, napi_value value, enum handle_kind kind, void **handle);

/* Undefined and null read as the default. */
bool read_number_or(napi_env env, napi_value value, const char *what, int64_t otherwise, int64_t *number);
bool is_nothing(napi_env env, napi_value value);

napi_value make_handle(napi_env env, enum handle_kind kind, void *handle, napi_finalize finalize);
napi_value make_number(napi_env env, double number);
napi_value make_text(napi_env env, const char *text);
napi_value make_bytes(napi_env env, const void *data, size_t length);
void set_property(napi_env env, napi_value object, const char *name, napi_value value);
void add_function(napi_env env, napi_value exports, const char *name, napi_callback function);

/*
 * Throws an Error with `code` (the name of the errno) and `errno`; the message is what is given and the errno's text.
 * What libbpf has printed since complaints_forget() is its `log`. Returns NULL, to be returned on.
 */
napi_value throw_errno(napi_env env, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
napi_value throw_type(napi_env env, const char *format, ...) __attribute__((format(printf, 2, 3)));

void complaints_forget(void);

struct bpf_program *find_program(napi_env env, struct object_handle *handle, napi_value name);

/* A handle with its own duplicate of `fd`. */
napi_value map_wrap(napi_env env, int fd, const char *name);

void object_exports(napi_env env, napi_value exports);
void map_exports(napi_env env, napi_value exports);
void link_exports(napi_env env, napi_value exports);
void tc_exports(napi_env env, napi_value exports);
void ring_exports(napi_env env, napi_value exports);
void test_run_exports(napi_env env, napi_value exports);
void namespace_exports(napi_env env, napi_value exports);
void memory_exports(napi_env env, napi_value exports);

/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: keys and values are Buffers of exactly the map's sizes. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

enum { k_batch = 256 };

static void map_release(struct map_handle *map)
{
	if (map->fd >= 0)
		close(map->fd);
	map->fd = -1;
}

static void map_finalize(napi_env env, void *data, void *hint)
{
	map_release(data);
	free(data);
}

static bool per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

napi_value map_wrap(napi_env env, int fd, const char *name)
{
	struct bpf_map_info info = {};
	uint32_t bytes = sizeof(info);
	struct map_handle *map;

	if (bpf_obj_get_info_by_fd(fd, &info, &bytes))
		return throw_errno(env, errno, "map %s", name);
	map = calloc(1, sizeof(*map));
	if (!map)
		return throw_errno(env, ENOMEM, "map %s", name);
	map->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (map->fd < 0) {
		int error = errno;

		free(map);
		return throw_errno(env, error, "map %s", name);
	}
	map->type = info.type;
	map->key_bytes = info.key_size;
	map->value_bytes = info.value_size;
	map->max_entries = info.max_entries;
	map->buffer_bytes = info.value_size;
	if (per_cpu(info.type))
		map->buffer_bytes = ((info.value_size + 7) & ~7u) * libbpf_num_possible_cpus();
	snprintf(map->name, sizeof(map->name), "%s", name);
	return make_handle(env, handle_map, map, map_finalize);
}

static struct map_handle *read_map(napi_env env, napi_value value)
{
	struct map_handle *map;
	void *handle;

	if (!read_handle(env, value, handle_map, &handle))
		return NULL;
	map = handle;
	if (map->fd < 0) {
		throw_type(env, "map %s is closed", map->name);
		return NULL;
	}
	return map;
}

static bool read_exactly(napi_env env, struct map_handle *map, napi_value value, const char *what, size_t bytes,
			 void **data)
{
	size_t length;

	if (!read_bytes(env, value, what, data, &length))
		return false;
	if (length == bytes)
		return true;
	throw_type(env, "map %s: %s has %zu bytes, not %zu", map->name, what, length, bytes);
	return false;
}

/* mapInfo(map): { name, type, keyBytes, valueBytes, bufferBytes, entries } */
static napi_value map_info(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	napi_value result;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map)
		return NULL;
	napi_create_object(env, &result);
	set_property(env, result, "name", make_text(env, map->name));
	set_property(env, result, "type", make_number(env, map->type));
	set_property(env, result, "keyBytes", make_number(env, map->key_bytes));
	set_property(env, result, "valueBytes", make_number(env, map->value_bytes));
	set_property(env, result, "bufferBytes", make_number(env, map->buffer_bytes));
	set_property(env, result, "entries", make_number(env, map->max_entries));
	return result;
}

/* mapLookup(map, key): Buffer or undefined */
static napi_value map_lookup(napi_env env, napi_callback_info info)
{
	napi_value result = NULL;
	struct arguments arguments;
	struct map_handle *map;
	void *key, *value;

	if (!arguments_read(env, info, 2, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_exactly(env, map, arguments.at[1], "key", map->key_bytes, &key))
		return NULL;
	if (napi_create_buffer(env, map->buffer_bytes, &value, &result) != napi_ok)
		return NULL;
	if (!bpf_map_lookup_elem(map->fd, key, value))
		return result;
	if (errno == ENOENT)
		return NULL;
	return throw_errno(env, errno, "map %s: look-up", map->name);
}

/* mapUpdate(map, key, value, flags = BPF_ANY) */
static napi_value map_update(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	void *key, *value;
	int64_t flags;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_exactly(env, map, arguments.at[1], "key", map->key_bytes, &key) ||
	    !read_exactly(env, map, arguments.at[2], "value", map->buffer_bytes, &value) ||
	    !read_number_or(env, arguments.count > 3 ? arguments.at[3] : NULL, "flags", BPF_ANY, &flags))
		return NULL;
	if (bpf_map_update_elem(map->fd, key, value, flags))
		return throw_errno(env, errno, "map %s: update", map->name);
	return NULL;
}

/* mapUpdateMany(map, keys, values): both laid end to end. Not at once for the kernel: others see them come. */
static napi_value map_update_many(napi_env env, napi_callback_info info)
{
	size_t key_length, value_length, count, i;
	struct arguments arguments;
	struct map_handle *map;
	char *keys, *values;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_bytes(env, arguments.at[1], "keys", (void **)&keys, &key_length) ||
	    !read_bytes(env, arguments.at[2], "values", (void **)&values, &value_length))
		return NULL;
	count = key_length / map->key_bytes;
	if (key_length != count * map->key_bytes || value_length != count * map->buffer_bytes)
		return throw_type(env, "map %s: %zu bytes of keys do not fit %zu bytes of values", map->name,
				  key_length, value_length);
	for (i = 0; i < count; i++)
		if (bpf_map_update_elem(map->fd, keys + i * map->key_bytes, values + i * map->buffer_bytes, BPF_ANY))
			return throw_errno(env, errno, "map %s: update %zu of %zu", map->name, i + 1, count);
	return NULL;
}

/* mapDelete(map, key): boolean, false if it was not there */
static napi_value map_delete(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	napi_value result;
	void *key;
	int error;

	if (!arguments_read(env, info, 2, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_exactly(env, map, arguments.at[1], "key", map->key_bytes, &key))
		return NULL;
	error = bpf_map_delete_elem(map->fd, key) ? errno : 0;
	if (error && error != ENOENT)
		return throw_errno(env, error, "map %s: delete", map->name);
	napi_get_boolean(env, !error, &result);
	return result;
}

/* A growing row of keys. */
struct row {
	char *data;
	size_t count;
	size_t room;
};

static bool row_add(struct row *row, const void *item, size_t bytes)
{
	if (row->count == row->room) {
		size_t room = row->room ? row->room * 2 : k_batch;
		char *data = realloc(row->data, room * bytes);

		if (!data)
			return false;
		row->data = data;
		row->room = room;
	}
	memcpy(row->data + row->count++ * bytes, item, bytes);
	return true;
}

/*
 * All keys. While others insert and delete, the kernel starts over if the key at hand goes away (hash maps), so some
 * may come twice and the walk is bounded: one that has given four times as many keys as fit ends.
 */
static int keys_read(struct map_handle *map, struct row *row)
{
	size_t limit = (size_t)map->max_entries * 4 + 1;
	char *key = malloc(map->key_bytes), *next = malloc(map->key_bytes), *swap;
	int error = key && next ? 0 : ENOMEM;
	void *previous = NULL;

	while (!error && row->count < limit && !bpf_map_get_next_key(map->fd, previous, next)) {
		if (!row_add(row, next, map->key_bytes))
			error = ENOMEM;
		swap = key;
		key = next;
		next = swap;
		previous = key;
	}
	free(key);
	free(next);
	return error;
}

/* mapKeys(map): Buffer, laid end to end */
static napi_value map_keys(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	napi_value result = NULL;
	struct row row = {};
	int error;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map)
		return NULL;
	error = keys_read(map, &row);
	if (error)
		throw_errno(env, error, "map %s: keys", map->name);
	else
		result = make_bytes(env, row.data, row.count * map->key_bytes);
	free(row.data);
	return result;
}

/* All entries in batches; -1 with errno EINVAL or ENOTSUPP (524) where the map or the kernel cannot. */
static int entries_read_batch(struct map_handle *map, struct row *keys, struct row *values)
{
	char *key_batch = malloc((size_t)k_batch * map->key_bytes), *token = malloc(map->key_bytes + 8);
	char *value_batch = malloc((size_t)k_batch * map->buffer_bytes);
	bool first = true, done = false;
	int error = key_batch && value_batch && token ? 0 : ENOMEM;

	while (!error && !done) {
		uint32_t count = k_batch, i;

		if (bpf_map_lookup_batch(map->fd, first ? NULL : token, token, key_batch, value_batch, &count, NULL)) {
			if (errno != ENOENT) {
				error = errno;
				break;
			}
			done = true;
		}
		first = false;
		for (i = 0; i < count && !error; i++)
			if (!row_add(keys, key_batch + (size_t)i * map->key_bytes, map->key_bytes) ||
			    !row_add(values, value_batch + (size_t)i * map->buffer_bytes, map->buffer_bytes))
				error = ENOMEM;
	}
	free(key_batch);
	free(value_batch);
	free(token);
	return error;
}

static int entries_read(struct map_handle *map, struct row *keys, struct row *values)
{
	struct row all = {};
	char *value;
	size_t i;
	int error;

	/* A batch of large values would cost more memory than it saves calls. */
	if (map->buffer_bytes <= 4096) {
		error = entries_read_batch(map, keys, values);
		/* ENOSPC: a hash bucket longer than the batch; it can be read one by one. */
		if (!error || error == ENOMEM)
			return error;
		keys->count = values->count = 0;
	}
	value = malloc(map->buffer_bytes);
	error = value ? keys_read(map, &all) : ENOMEM;
	for (i = 0; i < all.count && !error; i++) {
		const char *key = all.data + i * map->key_bytes;

		if (bpf_map_lookup_elem(map->fd, key, value))
			continue; /* gone since */
		if (!row_add(keys, key, map->key_bytes) || !row_add(values, value, map->buffer_bytes))
			error = ENOMEM;
	}
	free(value);
	free(all.data);
	return error;
}

/* mapEntries(map): { keys: Buffer, values: Buffer }, laid end to end */
static napi_value map_entries(napi_env env, napi_callback_info info)
{
	struct row keys = {}, values = {};
	struct arguments arguments;
	struct map_handle *map;
	napi_value result = NULL;
	int error;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map)
		return NULL;
	error = entries_read(map, &keys, &values);
	if (error) {
		throw_errno(env, error, "map %s: entries", map->name);
	} else {
		napi_create_object(env, &result);
		set_property(env, result, "keys", make_bytes(env, keys.data, keys.count * map->key_bytes));
		set_property(env, result, "values", make_bytes(env, values.data, values.count * map->buffer_bytes));
	}
	/* Some maps hold session keys: leave nothing of them in the heap. */
	if (values.data)
		explicit_bzero(values.data, values.room * map->buffer_bytes);
	free(keys.data);
	free(values.data);
	return result;
}

/*
 * mapSweep(map, offset, before, remove): Buffer of keys, end to end, of the entries whose value has at `offset` a native
 * u64 below `before`; with `remove` they are deleted. In C, as some values have many kilobytes and hold what should not
 * enter the JavaScript heap.
 */
static napi_value map_sweep(napi_env env, napi_callback_info info)
{
	struct row all = {}, gone = {};
	struct arguments arguments;
	napi_value result = NULL;
	struct map_handle *map;
	uint64_t before, stamp;
	int64_t offset;
	bool remove = false;
	char *value;
	size_t i;
	int error;

	if (!arguments_read(env, info, 4, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_number(env, arguments.at[1], "offset", &offset) ||
	    !read_uint64(env, arguments.at[2], "time", &before))
		return NULL;
	if (offset < 0 || offset + sizeof(stamp) > map->value_bytes || map->buffer_bytes != map->value_bytes)
		return throw_type(env, "map %s: no u64 at offset %lld", map->name, (long long)offset);
	napi_get_value_bool(env, arguments.at[3], &remove);
	value = malloc(map->buffer_bytes);
	error = value ? keys_read(map, &all) : ENOMEM;
	for (i = 0; i < all.count && !error; i++) {
		const char *key = all.data + i * map->key_bytes;

		if (bpf_map_lookup_elem(map->fd, key, value))
			continue;
		memcpy(&stamp, value + offset, sizeof(stamp));
		if (stamp < before && (!remove || !bpf_map_delete_elem(map->fd, key)) &&
		    !row_add(&gone, key, map->key_bytes))
			error = ENOMEM;
	}
	if (value)
		explicit_bzero(value, map->buffer_bytes);
	free(value);
	if (error)
		throw_errno(env, error, "map %s: sweep", map->name);
	else
		result = make_bytes(env, gone.data, gone.count * map->key_bytes);
	free(all.data);
	free(gone.data);
	return result;
}

static int key_compare(const void *one, const void *other, void *bytes)
{
	return memcmp(one, other, *(uint32_t *)bytes);
}

/* Those that keys_read has met twice go. */
static void keys_unique(struct map_handle *map, struct row *keys)
{
	size_t bytes = map->key_bytes, kept = 0, i;

	if (!keys->count)
		return;
	qsort_r(keys->data, keys->count, bytes, key_compare, &map->key_bytes);
	for (i = 1; i < keys->count; i++)
		if (memcmp(keys->data + kept * bytes, keys->data + i * bytes, bytes))
			memmove(keys->data + ++kept * bytes, keys->data + i * bytes, bytes);
	keys->count = kept + 1;
}

/*
 * mapColumn(map, in_key, offset, bytes): { keys: Buffer, column: Buffer }, laid end to end: every key once, and the `bytes`
 * from `offset` on of each, or of its value. In C for the same reasons as mapSweep.
 */
static napi_value map_column(napi_env env, napi_callback_info info)
{
	struct row all = {}, keys = {}, column = {};
	struct arguments arguments;
	napi_value result = NULL;
	int64_t offset, bytes, most;
	struct map_handle *map;
	bool in_key = false;
	char *value;
	size_t i;
	int error;

	if (!arguments_read(env, info, 4, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_number(env, arguments.at[2], "offset", &offset) ||
	    !read_number(env, arguments.at[3], "bytes", &bytes))
		return NULL;
	napi_get_value_bool(env, arguments.at[1], &in_key);
	most = in_key ? map->key_bytes : map->value_bytes;
	if (offset < 0 || bytes < 0 || bytes > most || offset > most - bytes || map->buffer_bytes != map->value_bytes)
		return throw_type(env, "map %s: no %lld bytes at offset %lld", map->name, (long long)bytes,
				  (long long)offset);
	value = malloc(map->buffer_bytes);
	error = value ? keys_read(map, &all) : ENOMEM;
	if (!error)
		keys_unique(map, &all);
	for (i = 0; i < all.count && !error; i++) {
		const char *key = all.data + i * map->key_bytes;

		if (!in_key && bpf_map_lookup_elem(map->fd, key, value))
			continue; /* gone since */
		if (!row_add(&keys, key, map->key_bytes) || !row_add(&column, (in_key ? key : value) + offset, bytes))
			error = ENOMEM;
	}
	if (value)
		explicit_bzero(value, map->buffer_bytes);
	free(value);
	free(all.data);
	if (error) {
		throw_errno(env, error, "map %s: column", map->name);
	} else {
		napi_create_object(env, &result);
		set_property(env, result, "keys", make_bytes(env, keys.data, keys.count * map->key_bytes));
		set_property(env, result, "column", make_bytes(env, column.data, column.count * bytes));
	}
	free(keys.data);
	free(column.data);
	return result;
}

/* mapPin(map, path) */
static napi_value map_pin(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	char path[PATH_MAX];

	if (!arguments_read(env, info, 2, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (!map || !read_text(env, arguments.at[1], "path", path, sizeof(path)))
		return NULL;
	if (bpf_obj_pin(map->fd, path))
		return throw_errno(env, errno, "map %s cannot be pinned at %s", map->name, path);
	return NULL;
}

/* mapOpen(path, name): handle of a pinned map */
static napi_value map_open(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	char path[PATH_MAX], name[64];
	napi_value result;
	int fd;

	if (!arguments_read(env, info, 2, &arguments) || !read_text(env, arguments.at[0], "path", path, sizeof(path)) ||
	    !read_text(env, arguments.at[1], "name", name, sizeof(name)))
		return NULL;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return throw_errno(env, errno, "map %s at %s", name, path);
	result = map_wrap(env, fd, name);
	close(fd);
	return result;
}

/* mapFreeze(map): nobody changes it through bpf(2) any more; programs still could. */
static napi_value map_freeze(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	map = read_map(env, arguments.at[0]);
	if (map && bpf_map_freeze(map->fd))
		throw_errno(env, errno, "map %s cannot be frozen", map->name);
	return NULL;
}

/* mapClose(map) */
static napi_value map_close(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	void *handle;

	if (arguments_read(env, info, 1, &arguments) && read_handle(env, arguments.at[0], handle_map, &handle))
		map_release(handle);
	return NULL;
}

void map_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "mapInfo", map_info);
	add_function(env, exports, "mapLookup", map_lookup);
	add_function(env, exports, "mapUpdate", map_update);
	add_function(env, exports, "mapUpdateMany", map_update_many);
	add_function(env, exports, "mapDelete", map_delete);
	add_function(env, exports, "mapKeys", map_keys);
	add_function(env, exports, "mapEntries", map_entries);
	add_function(env, exports, "mapSweep", map_sweep);
	add_function(env, exports, "mapColumn", map_column);
	add_function(env, exports, "mapPin", map_pin);
	add_function(env, exports, "mapOpen", map_open);
	add_function(env, exports, "mapFreeze", map_freeze);
	add_function(env, exports, "mapClose", map_close);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* BPF objects: open, set read-only variables, share maps, load, ask about programs. */
#include "addon.h"

#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>

enum { k_log_bytes = 256 * 1024 };

static void object_release(struct object_handle *handle)
{
	size_t i;

	bpf_object__close(handle->object);
	handle->object = NULL;
	for (i = 0; i < handle->log_count; i++)
		free(handle->logs[i]);
	free(handle->logs);
	handle->logs = NULL;
	handle->log_count = 0;
}

static void object_finalize(napi_env env, void *data, void *hint)
{
	struct object_handle *handle = data;

	object_release(handle);
	free(handle->path);
	free(handle);
}

static struct object_handle *read_object(napi_env env, napi_value value)
{
	void *handle;

	if (!read_handle(env, value, handle_object, &handle))
		return NULL;
	if (!((struct object_handle *)handle)->object) {
		throw_type(env, "object %s is closed", ((struct object_handle *)handle)->path);
		return NULL;
	}
	return handle;
}

struct bpf_program *find_program(napi_env env, struct object_handle *handle, napi_value name_value)
{
	struct bpf_program *program;
	char name[128];

	if (!read_text(env, name_value, "program", name, sizeof(name)))
		return NULL;
	program = bpf_object__find_program_by_name(handle->object, name);
	if (!program)
		throw_errno(env, ENOENT, "object %s: program %s", handle->path, name);
	return program;
}

static struct bpf_map *find_map(napi_env env, struct object_handle *handle, napi_value name_value)
{
	struct bpf_map *map;
	char name[128];

	if (!read_text(env, name_value, "map", name, sizeof(name)))
		return NULL;
	map = bpf_object__find_map_by_name(handle->object, name);
	if (!map)
		throw_errno(env, ENOENT, "object %s: map %s", handle->path, name);
	return map;
}

/* objectOpen(path): handle */
static napi_value object_open(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	char path[PATH_MAX];

	if (!arguments_read(env, info, 1, &arguments) || !read_text(env, arguments.at[0], "path", path, sizeof(path)))
		return NULL;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return throw_errno(env, ENOMEM, "object %s", path);
	handle->path = strdup(path);
	complaints_forget();
	handle->object = bpf_object__open_file(path, NULL);
	if (!handle->object) {
		int error = errno;

		object_finalize(env, handle, NULL);
		return throw_errno(env, error, "object %s cannot be opened", path);
	}
	return make_handle(env, handle_object, handle, object_finalize);
}

/* objectInfo(object): { programs: [{ name, section, type }], maps: [{ name, type, keyBytes, valueBytes, entries }] } */
static napi_value object_info(napi_env env, napi_callback_info info)
{
	napi_value result, programs, maps, item;
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	struct bpf_map *map;
	uint32_t i;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	napi_create_object(env, &result);
	napi_create_array(env, &programs);
	napi_create_array(env, &maps);
	set_property(env, result, "programs", programs);
	set_property(env, result, "maps", maps);
	i = 0;
	bpf_object__for_each_program(program, handle->object)
	{
		napi_create_object(env, &item);
		set_property(env, item, "name", make_text(env, bpf_program__name(program)));
		set_property(env, item, "section", make_text(env, bpf_program__section_name(program)));
		set_property(env, item, "type", make_number(env, bpf_program__type(program)));
		napi_set_element(env, programs, i++, item);
	}
	i = 0;
	bpf_object__for_each_map(map, handle->object)
	{
		napi_create_object(env, &item);
		set_property(env, item, "name", make_text(env, bpf_map__name(map)));
		set_property(env, item, "type", make_number(env, bpf_map__type(map)));
		set_property(env, item, "keyBytes", make_number(env, bpf_map__key_size(map)));
		set_property(env, item, "valueBytes", make_number(env, bpf_map__value_size(map)));
		set_property(env, item, "entries", make_number(env, bpf_map__max_entries(map)));
		napi_set_element(env, maps, i++, item);
	}
	return result;
}

/* Where variable `name` lies in .rodata, .data or .bss, before load; NULL if there is none. */
static void *find_variable(struct object_handle *handle, const char *name, size_t *bytes)
{
	const struct btf *btf = bpf_object__btf(handle->object);
	struct bpf_map *map;

	if (!btf)
		return NULL;
	bpf_object__for_each_map(map, handle->object)
	{
		const struct btf_var_secinfo *variable;
		const char *dot = strrchr(bpf_map__name(map), '.');
		const struct btf_type *section;
		char *data;
		int id, i;

		if (!bpf_map__is_internal(map) || !dot)
			continue;
		id = btf__find_by_name_kind(btf, dot, BTF_KIND_DATASEC);
		data = (char *)bpf_map__initial_value(map, bytes);
		if (id < 0 || !data)
			continue;
		section = btf__type_by_id(btf, id);
		variable = btf_var_secinfos(section);
		for (i = 0; i < btf_vlen(section); i++, variable++) {
			const struct btf_type *type = btf__type_by_id(btf, variable->type);

			if (strcmp(btf__name_by_offset(btf, type->name_off), name))
				continue;
			*bytes = variable->size;
			return data + variable->offset;
		}
	}
	return NULL;
}

/* objectSetVariable(object, name, bytes): boolean; false if the object has no such variable. Before load. */
static napi_value object_set_variable(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	size_t bytes, length;
	napi_value result;
	char name[128];
	void *data, *place;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle || !read_text(env, arguments.at[1], "variable", name, sizeof(name)) ||
	    !read_bytes(env, arguments.at[2], "value", &data, &length))
		return NULL;
	place = find_variable(handle, name, &bytes);
	if (place && bytes != length)
		return throw_type(env, "object %s: variable %s has %zu bytes, not %zu", handle->path, name, bytes,
				  length);
	if (place)
		memcpy(place, data, length);
	napi_get_boolean(env, place != NULL, &result);
	return result;
}

/* objectReuseMap(object, name, map): the object will use that map instead of making its own. Before load. */
static napi_value object_reuse_map(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_map *map;
	void *other;
	int error;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	map = find_map(env, handle, arguments.at[1]);
	if (!map || !read_handle(env, arguments.at[2], handle_map, &other))
		return NULL;
	complaints_forget();
	error = bpf_map__reuse_fd(map, ((struct map_handle *)other)->fd);
	if (error)
		return throw_errno(env, error, "object %s: map %s cannot be shared", handle->path, bpf_map__name(map));
	return NULL;
}

/* objectSetEntries(object, map, entries): how many entries the map can hold. Before load. */
static napi_value object_set_entries(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_map *map;
	int64_t entries;
	int error;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	map = find_map(env, handle, arguments.at[1]);
	if (!map || !read_number(env, arguments.at[2], "entries", &entries))
		return NULL;
	error = bpf_map__set_max_entries(map, entries);
	if (error)
		return throw_errno(env, error, "object %s: size of map %s", handle->path, bpf_map__name(map));
	return NULL;
}

/* objectSetAutoload(object, program, boolean): whether load takes it. */
static napi_value object_set_autoload(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	bool wanted = false;
	int error;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	program = find_program(env, handle, arguments.at[1]);
	if (!program)
		return NULL;
	napi_get_value_bool(env, arguments.at[2], &wanted);
	error = bpf_program__set_autoload(program, wanted);
	if (error)
		return throw_errno(env, error, "object %s: program %s", handle->path, bpf_program__name(program));
	return NULL;
}

/* objectSetAttachType(object, program, type): expected_attach_type. Before load. */
static napi_value object_set_attach_type(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	int64_t type;
	int error;

	if (!arguments_read(env, info, 3, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	program = find_program(env, handle, arguments.at[1]);
	if (!program || !read_number(env, arguments.at[2], "attach type", &type))
		return NULL;
	error = bpf_program__set_expected_attach_type(program, type);
	if (error)
		return throw_errno(env, error, "object %s: program %s", handle->path, bpf_program__name(program));
	return NULL;
}

/* Room for BPF_LOG_STATS of every program: how much work each was for the verifier, and how deep its stacks are. */
static int want_statistics(struct object_handle *handle)
{
	struct bpf_program *program;
	size_t count = 0;
	int error;

	bpf_object__for_each_program(program, handle->object) count++;
	handle->logs = calloc(count, sizeof(*handle->logs));
	if (!handle->logs)
		return -ENOMEM;
	bpf_object__for_each_program(program, handle->object)
	{
		char *log = calloc(1, k_log_bytes);

		if (!log)
			return -ENOMEM;
		handle->logs[handle->log_count++] = log;
		error = bpf_program__set_log_level(program, 4); /* BPF_LOG_STATS */
		error = error ?: bpf_program__set_log_buf(program, log, k_log_bytes);
		if (error)
			return error;
	}
	return 0;
}

/* objectLoad(object, statistics?: boolean): throws with the verifier's log as `log`. */
static napi_value object_load(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	bool statistics = false;
	int error = 0;

	if (!arguments_read(env, info, 1, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	if (arguments.count > 1)
		napi_get_value_bool(env, arguments.at[1], &statistics);
	complaints_forget();
	if (statistics)
		error = want_statistics(handle);
	error = error ?: bpf_object__load(handle->object);
	if (error)
		return throw_errno(env, error, "object %s cannot be loaded", handle->path);
	return NULL;
}

/* programInfo(object, program): { id, type, instructions, bytes, jitedBytes, code, log } */
static napi_value program_info(napi_env env, napi_callback_info info)
{
	struct bpf_prog_info program_info = {};
	uint32_t bytes = sizeof(program_info);
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	const char *log;
	size_t log_bytes;
	napi_value result, code;
	int error;

	if (!arguments_read(env, info, 2, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	program = find_program(env, handle, arguments.at[1]);
	if (!program)
		return NULL;
	error = bpf_obj_get_info_by_fd(bpf_program__fd(program), &program_info, &bytes);
	if (error)
		return throw_errno(env, error, "object %s: program %s", handle->path, bpf_program__name(program));
	log = bpf_program__log_buf(program, &log_bytes);
	napi_create_object(env, &result);
	set_property(env, result, "id", make_number(env, program_info.id));
	set_property(env, result, "type", make_number(env, program_info.type));
	set_property(env, result, "instructions", make_number(env, program_info.verified_insns));
	set_property(env, result, "bytes", make_number(env, program_info.xlated_prog_len));
	set_property(env, result, "jitedBytes", make_number(env, program_info.jited_prog_len));
	napi_create_buffer_copy(env, bpf_program__insn_cnt(program) * sizeof(struct bpf_insn),
				bpf_program__insns(program), NULL, &code);
	set_property(env, result, "code", code);
	set_property(env, result, "log", make_text(env, log ? log : ""));
	return result;
}

/* objectMap(object, name): handle of the loaded map, with a descriptor of its own */
static napi_value object_map(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_map *map;

	if (!arguments_read(env, info, 2, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	map = find_map(env, handle, arguments.at[1]);
	if (!map)
		return NULL;
	if (bpf_map__fd(map) < 0)
		return throw_type(env, "object %s: map %s is not loaded", handle->path, bpf_map__name(map));
	return map_wrap(env, bpf_map__fd(map), bpf_map__name(map));
}

/* objectInstall(object, program, map, index): the program becomes that entry of a map of programs (for tail calls). */
static napi_value object_install(napi_env env, napi_callback_info info)
{
	struct object_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	struct map_handle *map;
	int64_t index;
	uint32_t key;
	int fd;

	if (!arguments_read(env, info, 4, &arguments))
		return NULL;
	handle = read_object(env, arguments.at[0]);
	if (!handle)
		return NULL;
	program = find_program(env, handle, arguments.at[1]);
	if (!program || !read_handle(env, arguments.at[2], handle_map, (void **)&map) ||
	    !read_number(env, arguments.at[3], "index", &index))
		return NULL;
	key = index;
	fd = bpf_program__fd(program);
	if (bpf_map_update_elem(map->fd, &key, &fd, BPF_ANY))
		return throw_errno(env, errno, "program %s cannot become entry %u of map %s",
				   bpf_program__name(program), key, map->name);
	return NULL;
}

/* objectClose(object): unloads what nothing else holds (links and map handles hold). */
static napi_value object_close(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	void *handle;

	if (arguments_read(env, info, 1, &arguments) && read_handle(env, arguments.at[0], handle_object, &handle))
		object_release(handle);
	return NULL;
}

void object_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "objectOpen", object_open);
	add_function(env, exports, "objectInfo", object_info);
	add_function(env, exports, "objectSetVariable", object_set_variable);
	add_function(env, exports, "objectReuseMap", object_reuse_map);
	add_function(env, exports, "objectSetEntries", object_set_entries);
	add_function(env, exports, "objectSetAutoload", object_set_autoload);
	add_function(env, exports, "objectSetAttachType", object_set_attach_type);
	add_function(env, exports, "objectLoad", object_load);
	add_function(env, exports, "programInfo", program_info);
	add_function(env, exports, "objectMap", object_map);
	add_function(env, exports, "objectInstall", object_install);
	add_function(env, exports, "objectClose", object_close);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links: programs on functions of files (uprobes) and on tracepoints. They end when closed, and with this process, unless
 * they are pinned in a BPF file system.
 */
#include "addon.h"

#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>

/* Newer than the headers of Debian 12. 6.6, commit 89ae89f53d20. */
enum { k_attach_uprobe_multi = 48 };

struct uprobe_multi_create {
	uint32_t program_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t reference_counters;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags;
	uint32_t pid;
	uint32_t _pad;
};

struct link_handle {
	int fd;    /* uprobe_multi, or opened where it was pinned; -1: none */
	struct bpf_link **links; /* otherwise one for each offset */
	size_t count;
};

static void link_release(struct link_handle *handle)
{
	size_t i;

	if (handle->fd >= 0)
		close(handle->fd);
	handle->fd = -1;
	for (i = 0; i < handle->count; i++)
		bpf_link__destroy(handle->links[i]);
	free(handle->links);
	handle->links = NULL;
	handle->count = 0;
}

static void link_finalize(napi_env env, void *data, void *hint)
{
	link_release(data);
	free(data);
}

static int uprobe_multi_create(int program_fd, const char *path, const uint64_t *offsets, size_t count, uint32_t pid)
{
	struct uprobe_multi_create create = {
		.program_fd = program_fd,
		.attach_type = k_attach_uprobe_multi,
		.path = (uint64_t)(uintptr_t)path,
		.offsets = (uint64_t)(uintptr_t)offsets,
		.count = count,
		.pid = pid,
	};
	int fd = syscall(SYS_bpf, BPF_LINK_CREATE, &create, sizeof(create));

	return fd < 0 ? -errno : fd;
}

/* supportsUprobeMulti(): boolean */
static napi_value supports_uprobe_multi(napi_env env, napi_callback_info info)
{
	const struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = (enum bpf_attach_type)k_attach_uprobe_multi);
	uint64_t offset = 0;
	napi_value result;
	int fd, link = -ENOTSUP;

	/* A kernel that knows such links looks at the path first, and a directory is EBADF to it. */
	fd = bpf_prog_load(BPF_PROG_TYPE_KPROBE, NULL, "GPL", program, 2, &options);
	if (fd >= 0) {
		link = uprobe_multi_create(fd, "/", &offset, 1, 0);
		if (link >= 0)
			close(link);
		close(fd);
	}
	napi_get_boolean(env, link == -EBADF, &result);
	return result;
}

static bool read_offsets(napi_env env, napi_value value, uint64_t **offsets, uint32_t *count)
{
	bool is_array = false;
	uint32_t i;

	if (napi_is_array(env, value, &is_array) != napi_ok || !is_array ||
	    napi_get_array_length(env, value, count) != napi_ok || !*count) {
		throw_type(env, "offsets must be an array of at least one number");
		return false;
	}
	*offsets = calloc(*count, sizeof(**offsets));
	for (i = 0; *offsets && i < *count; i++) {
		napi_value item;
		int64_t offset;

		if (napi_get_element(env, value, i, &item) != napi_ok || !read_number(env, item, "offset", &offset)) {
			free(*offsets);
			return false;
		}
		(*offsets)[i] = offset;
	}
	return *offsets != NULL;
}

/*
 * attachUprobe(object, program, path, offsets, pid = 0, multi = false): handle. Offsets into the file; pid 0: whoever
 * executes it. `multi` needs a program loaded with expected_attach_type 48.
 */
static napi_value attach_uprobe(napi_env env, napi_callback_info info)
{
	struct object_handle *object;
	struct link_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;
	uint64_t *offsets = NULL;
	char path[PATH_MAX];
	bool multi = false;
	uint32_t count, i;
	int64_t pid;
	int error = 0;

	if (!arguments_read(env, info, 4, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_object, (void **)&object))
		return NULL;
	if (!object->object)
		return throw_type(env, "object %s is closed", object->path);
	program = find_program(env, object, arguments.at[1]);
	if (!program || !read_text(env, arguments.at[2], "path", path, sizeof(path)) ||
	    !read_number_or(env, arguments.at[4], "pid", 0, &pid))
		return NULL;
	if (arguments.count > 5)
		napi_get_value_bool(env, arguments.at[5], &multi);
	if (!read_offsets(env, arguments.at[3], &offsets, &count))
		return NULL;
	handle = calloc(1, sizeof(*handle));
	if (!handle) {
		free(offsets);
		return throw_errno(env, ENOMEM, "uprobe");
	}
	handle->fd = -1;
	complaints_forget();
	if (multi) {
		handle->fd = uprobe_multi_create(bpf_program__fd(program), path, offsets, count, pid);
		error = handle->fd < 0 ? handle->fd : 0;
	} else {
		handle->links = calloc(count, sizeof(*handle->links));
		if (!handle->links)
			error = -ENOMEM;
		for (i = 0; i < count && !error; i++) {
			LIBBPF_OPTS(bpf_uprobe_opts, options);
			struct bpf_link *link =
				bpf_program__attach_uprobe_opts(program, pid ?: -1, path, offsets[i], &options);

			if (link)
				handle->links[handle->count++] = link;
			else
				error = -errno;
		}
	}
	if (error) {
		throw_errno(env, error, "program %s cannot be attached to %s at offset 0x%llx",
			    bpf_program__name(program), path, (unsigned long long)offsets[multi ? 0 : handle->count]);
		link_finalize(env, handle, NULL);
		free(offsets);
		return NULL;
	}
	free(offsets);
	return make_handle(env, handle_link, handle, link_finalize);
}

/* attachProgram(object, program): handle. Where its section says: raw_tp/…, tp/…, tp_btf/… */
static napi_value attach_program(napi_env env, napi_callback_info info)
{
	struct object_handle *object;
	struct link_handle *handle;
	struct arguments arguments;
	struct bpf_program *program;

	if (!arguments_read(env, info, 2, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_object, (void **)&object))
		return NULL;
	if (!object->object)
		return throw_type(env, "object %s is closed", object->path);
	program = find_program(env, object, arguments.at[1]);
	if (!program)
		return NULL;
	handle = calloc(1, sizeof(*handle));
	if (handle)
		handle->links = calloc(1, sizeof(*handle->links));
	if (!handle || !handle->links) {
		free(handle);
		return throw_errno(env, ENOMEM, "program %s", bpf_program__name(program));
	}
	handle->fd = -1;
	complaints_forget();
	handle->links[0] = bpf_program__attach(program);
	if (!handle->links[0]) {
		throw_errno(env, errno, "program %s cannot be attached to %s", bpf_program__name(program),
			    bpf_program__section_name(program));
		link_finalize(env, handle, NULL);
		return NULL;
	}
	handle->count = 1;
	return make_handle(env, handle_link, handle, link_finalize);
}

/*
 * linkPin(link, path): it then lasts until the file is removed. Kernels without uprobe_multi take one offset a link
 * (perf events have links that can be pinned since 5.15, commit b89fbfbb854c).
 */
static napi_value link_pin(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct link_handle *link;
	char path[PATH_MAX];
	int fd;

	if (!arguments_read(env, info, 2, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_link, (void **)&link) ||
	    !read_text(env, arguments.at[1], "path", path, sizeof(path)))
		return NULL;
	if (link->fd < 0 && link->count != 1)
		return throw_errno(env, ENOTSUP, "a link of %zu parts cannot be pinned at %s", link->count, path);
	fd = link->fd >= 0 ? link->fd : bpf_link__fd(link->links[0]);
	if (bpf_obj_pin(fd, path))
		return throw_errno(env, errno, "link cannot be pinned at %s", path);
	return NULL;
}

/* linkOpen(path): handle of a pinned link. Throws EINVAL if what is pinned there is something else. */
static napi_value link_open(napi_env env, napi_callback_info info)
{
	struct bpf_link_info link_info = {};
	uint32_t bytes = sizeof(link_info);
	struct arguments arguments;
	struct link_handle *link;
	char path[PATH_MAX];
	int fd, error;

	if (!arguments_read(env, info, 1, &arguments) || !read_text(env, arguments.at[0], "path", path, sizeof(path)))
		return NULL;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return throw_errno(env, errno, "link at %s", path);
	/* A map or program answers too, with another struct: only a link has a program, and a type of this range. */
	error = bpf_obj_get_info_by_fd(fd, &link_info, &bytes) ? errno : 0;
	if (!error &&
	    (bytes < offsetof(struct bpf_link_info, prog_id) + sizeof(link_info.prog_id) || !link_info.prog_id))
		error = EINVAL;
	link = error ? NULL : calloc(1, sizeof(*link));
	if (!link) {
		close(fd);
		return throw_errno(env, error ?: ENOMEM, "link at %s", path);
	}
	link->fd = fd;
	return make_handle(env, handle_link, link, link_finalize);
}

/* linkClose(link) */
static napi_value link_close(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	void *handle;

	if (arguments_read(env, info, 1, &arguments) && read_handle(env, arguments.at[0], handle_link, &handle))
		link_release(handle);
	return NULL;
}

static void *link_release_run(void *handle)
{
	link_release(handle);
	return NULL;
}

/*
 * linksClose([link]). The kernel waits for a grace period of tens of milliseconds for each uprobe that goes: one thread
 * each, so that they wait together.
 */
static napi_value links_close(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	pthread_t *threads;
	uint32_t count = 0, i;

	if (!arguments_read(env, info, 1, &arguments) || napi_get_array_length(env, arguments.at[0], &count) != napi_ok)
		return throw_type(env, "links must be an array");
	threads = calloc(count, sizeof(*threads));
	for (i = 0; i < count; i++) {
		napi_value item;
		void *handle;

		if (napi_get_element(env, arguments.at[0], i, &item) != napi_ok ||
		    !read_handle(env, item, handle_link, &handle))
			break;
		if (!threads || pthread_create(&threads[i], NULL, link_release_run, handle)) {
			link_release(handle);
			if (threads)
				threads[i] = 0;
		}
	}
	while (threads && i-- > 0)
		if (threads[i])
			pthread_join(threads[i], NULL);
	free(threads);
	return NULL;
}

void link_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "supportsUprobeMulti", supports_uprobe_multi);
	add_function(env, exports, "attachUprobe", attach_uprobe);
	add_function(env, exports, "attachProgram", attach_program);
	add_function(env, exports, "linkPin", link_pin);
	add_function(env, exports, "linkOpen", link_open);
	add_function(env, exports, "linkClose", link_close);
	add_function(env, exports, "linksClose", links_close);
}

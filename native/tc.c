/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs on network interfaces, as classifiers below `clsact`: the kernel holds them until somebody detaches them or
 * the interface goes, so that what protects a workload does not end with this process.
 */
#include "addon.h"
#include "namespace.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct request {
	int ifindex;
	enum bpf_tc_attach_point point;
	uint32_t handle;
	uint32_t priority;
	int program_fd;
	uint32_t program_id;
};

static int attach(void *data)
{
	struct request *request = data;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = request->ifindex, .attach_point = request->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = request->handle, .priority = request->priority,
		    .prog_fd = request->program_fd, .flags = BPF_TC_F_REPLACE);
	int error = bpf_tc_hook_create(&hook);

	if (error && error != -EEXIST)
		return error;
	return bpf_tc_attach(&hook, &options);
}

static int detach(void *data)
{
	struct request *request = data;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = request->ifindex, .attach_point = request->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = request->handle, .priority = request->priority);

	return bpf_tc_detach(&hook, &options);
}

static int query(void *data)
{
	struct request *request = data;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = request->ifindex, .attach_point = request->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = request->handle, .priority = request->priority);
	int error = bpf_tc_query(&hook, &options);

	request->program_id = options.prog_id;
	return error;
}

/* (ifindex, "ingress" | "egress", handle, priority, netns?) from `at` on */
static bool read_request(napi_env env, struct arguments *arguments, size_t at, struct request *request, char *netns)
{
	int64_t ifindex, handle, priority;
	char point[16];

	if (!read_number(env, arguments->at[at], "ifindex", &ifindex) ||
	    !read_text(env, arguments->at[at + 1], "direction", point, sizeof(point)) ||
	    !read_number(env, arguments->at[at + 2], "handle", &handle) ||
	    !read_number(env, arguments->at[at + 3], "priority", &priority))
		return false;
	netns[0] = 0;
	if (arguments->count > at + 4 && !is_nothing(env, arguments->at[at + 4]) &&
	    !read_text(env, arguments->at[at + 4], "network namespace", netns, PATH_MAX))
		return false;
	request->ifindex = ifindex;
	request->handle = handle;
	request->priority = priority;
	request->point = strcmp(point, "egress") ? BPF_TC_INGRESS : BPF_TC_EGRESS;
	complaints_forget();
	return true;
}

/* tcAttach(object, program, ifindex, direction, handle, priority, netns?): replaces what has the same place */
static napi_value tc_attach(napi_env env, napi_callback_info info)
{
	struct object_handle *object;
	struct bpf_program *program;
	struct arguments arguments;
	struct request request = {};
	char netns[PATH_MAX];
	int error;

	if (!arguments_read(env, info, 6, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_object, (void **)&object))
		return NULL;
	if (!object->object)
		return throw_type(env, "object %s is closed", object->path);
	program = find_program(env, object, arguments.at[1]);
	if (!program || !read_request(env, &arguments, 2, &request, netns))
		return NULL;
	request.program_fd = bpf_program__fd(program);
	error = in_namespace(netns, attach, &request);
	if (error)
		return throw_errno(env, error, "program %s cannot be attached to interface %d",
				   bpf_program__name(program), request.ifindex);
	return NULL;
}

/* tcDetach(ifindex, direction, handle, priority, netns?): boolean, false if nothing was there */
static napi_value tc_detach(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct request request = {};
	char netns[PATH_MAX];
	napi_value result;
	int error;

	if (!arguments_read(env, info, 4, &arguments) || !read_request(env, &arguments, 0, &request, netns))
		return NULL;
	error = in_namespace(netns, detach, &request);
	/* EINVAL: there is no clsact; ENODEV: the interface is gone, and its filters with it. */
	if (error && error != -ENOENT && error != -EINVAL && error != -ENODEV)
		return throw_errno(env, error, "interface %d: filter cannot be detached", request.ifindex);
	napi_get_boolean(env, !error, &result);
	return result;
}

/* tcQuery(ifindex, direction, handle, priority, netns?): number of the program, 0 if there is none */
static napi_value tc_query(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct request request = {};
	char netns[PATH_MAX];
	int error;

	if (!arguments_read(env, info, 4, &arguments) || !read_request(env, &arguments, 0, &request, netns))
		return NULL;
	error = in_namespace(netns, query, &request);
	if (error && error != -ENOENT && error != -EINVAL && error != -ENODEV)
		return throw_errno(env, error, "interface %d: filters", request.ifindex);
	return make_number(env, error ? 0 : request.program_id);
}

void tc_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "tcAttach", tc_attach);
	add_function(env, exports, "tcDetach", tc_detach);
	add_function(env, exports, "tcQuery", tc_query);
}

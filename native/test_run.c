/* SPDX-License-Identifier: Apache-2.0 */
/* BPF_PROG_TEST_RUN: a program on a given packet or context, in the kernel that will run it. */
#include "addon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

static napi_value option(napi_env env, napi_value options, const char *name)
{
	napi_value value;

	if (is_nothing(env, options) || napi_get_named_property(env, options, name, &value) != napi_ok ||
	    is_nothing(env, value))
		return NULL;
	return value;
}

/*
 * testRun(object, program, { data?, context?, outputBytes?, repeat? }): { value, nanoseconds, data?, context? }
 * `value` is what the program returns, as u32. A syscall program has no data, and its context is read and written.
 */
static napi_value test_run(napi_env env, napi_callback_info info)
{
	LIBBPF_OPTS(bpf_test_run_opts, options);
	void *data = NULL, *context = NULL, *data_out = NULL, *context_out = NULL;
	size_t data_bytes = 0, context_bytes = 0;
	int64_t repeat = 0, output_bytes = 0;
	struct object_handle *object;
	struct bpf_program *program;
	struct arguments arguments;
	napi_value given, value, result = NULL;
	int error;

	if (!arguments_read(env, info, 2, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_object, (void **)&object))
		return NULL;
	if (!object->object)
		return throw_type(env, "object %s is closed", object->path);
	program = find_program(env, object, arguments.at[1]);
	if (!program)
		return NULL;
	given = arguments.count > 2 ? arguments.at[2] : NULL;
	value = option(env, given, "data");
	if (value && !read_bytes(env, value, "data", &data, &data_bytes))
		return NULL;
	value = option(env, given, "context");
	if (value && !read_bytes(env, value, "context", &context, &context_bytes))
		return NULL;
	/* Programs may make a packet longer. */
	if (!read_number_or(env, option(env, given, "outputBytes"), "outputBytes", data_bytes ? data_bytes + 256 : 0,
			    &output_bytes) ||
	    !read_number_or(env, option(env, given, "repeat"), "repeat", 0, &repeat))
		return NULL;
	data_out = output_bytes ? calloc(1, output_bytes) : NULL;
	context_out = context_bytes ? malloc(context_bytes) : NULL;
	if ((output_bytes && !data_out) || (context_bytes && !context_out)) {
		free(data_out);
		free(context_out);
		return throw_errno(env, ENOMEM, "program %s", bpf_program__name(program));
	}
	options.repeat = repeat;
	if (data_bytes) {
		options.data_in = data;
		options.data_size_in = data_bytes;
		options.data_out = data_out;
		options.data_size_out = output_bytes;
	}
	if (context_bytes) {
		memcpy(context_out, context, context_bytes);
		/* A syscall program's context is written in place, and a separate output is refused (EINVAL). */
		if (bpf_program__type(program) == BPF_PROG_TYPE_SYSCALL) {
			options.ctx_in = context_out;
		} else {
			options.ctx_in = context;
			options.ctx_out = context_out;
			options.ctx_size_out = context_bytes;
		}
		options.ctx_size_in = context_bytes;
	}
	complaints_forget();
	error = bpf_prog_test_run_opts(bpf_program__fd(program), &options);
	if (error) {
		throw_errno(env, error, "program %s: test run", bpf_program__name(program));
	} else {
		napi_create_object(env, &result);
		set_property(env, result, "value", make_number(env, options.retval));
		set_property(env, result, "nanoseconds", make_number(env, options.duration));
		if (data_bytes)
			set_property(env, result, "data", make_bytes(env, data_out, options.data_size_out));
		if (context_bytes)
			set_property(env, result, "context", make_bytes(env, context_out, context_bytes));
	}
	free(data_out);
	free(context_out);
	return result;
}

void test_run_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "testRun", test_run);
}

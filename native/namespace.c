/* SPDX-License-Identifier: Apache-2.0 */
#include "namespace.h"
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* 5.14, commit e8b9eab99232 */
#endif

struct visit {
	int fd;
	int (*work)(void *);
	void *argument;
	int result;
};

static void *visit_run(void *data)
{
	struct visit *visit = data;

	visit->result = setns(visit->fd, CLONE_NEWNET) ? -errno : visit->work(visit->argument);
	return NULL;
}

int in_namespace(const char *path, int (*work)(void *), void *argument)
{
	struct visit visit = {.work = work, .argument = argument};
	pthread_t thread;
	int error;

	if (!path[0])
		return work(argument);
	visit.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (visit.fd < 0)
		return -errno;
	error = pthread_create(&thread, NULL, visit_run, &visit);
	if (!error)
		error = pthread_join(thread, NULL);
	close(visit.fd);
	return error ? -error : visit.result;
}

static int read_cookie(void *data)
{
	socklen_t bytes = sizeof(uint64_t);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0;

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, data, &bytes))
		error = -errno;
	close(fd);
	return error;
}

/* netnsCookie(path?): bigint, what BPF reads as net->net_cookie; of our own namespace without a path */
static napi_value netns_cookie(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	char path[PATH_MAX] = "";
	uint64_t cookie = 0;
	napi_value result;
	int error;

	if (!arguments_read(env, info, 0, &arguments))
		return NULL;
	if (!is_nothing(env, arguments.at[0]) && !read_text(env, arguments.at[0], "path", path, sizeof(path)))
		return NULL;
	complaints_forget();
	error = in_namespace(path, read_cookie, &cookie);
	if (error)
		return throw_errno(env, error, "network namespace %s", path[0] ? path : "of this process");
	napi_create_bigint_uint64(env, cookie, &result);
	return result;
}

void namespace_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "netnsCookie", netns_cookie);
}

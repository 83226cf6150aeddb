/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include "run.h"
#include "addon.h"
#include "namespace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum socket_kind { socket_udp = 0, socket_listen = 1, socket_connect = 2 };

enum { k_connect_ms = 1000 };

static socklen_t address_parse(const char *text, uint16_t port, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (void *)address;
	struct sockaddr_in6 *v6 = (void *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	return 0;
}

/* 0, or the error. Within loopback an answer comes at once, so that waiting for it here is cheaper than not to. */
static int connect_wait(int fd, const struct sockaddr *address, socklen_t length)
{
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t size = sizeof(error);

	if (connect(fd, address, length) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	if (poll(&ready, 1, k_connect_ms) <= 0)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

struct socket_request {
	enum socket_kind kind;
	struct sockaddr_storage address;
	socklen_t length;
};

/* A descriptor, or a negative error. It belongs for ever to the namespace that it was made in. */
static int socket_open(void *data)
{
	const struct socket_request *request = data;
	int type = (request->kind == socket_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
	int fd = socket(request->address.ss_family, type, 0), on = 1, error = 0;

	if (fd < 0)
		return -errno;
	if (request->kind == socket_connect) {
		error = connect_wait(fd, (const void *)&request->address, request->length);
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (request->address.ss_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		if (bind(fd, (const void *)&request->address, request->length) ||
		    (request->kind == socket_listen && listen(fd, 128)))
			error = errno;
	}
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

/* netnsSocket(path of the namespace, kind, address, port): descriptor */
static napi_value netns_socket(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct socket_request request;
	char path[64], text[64];
	int64_t kind, port;
	int fd;

	if (!arguments_read(env, info, 4, &arguments) || !read_text(env, arguments.at[0], "path", path, sizeof(path)) ||
	    !read_number(env, arguments.at[1], "kind", &kind) ||
	    !read_text(env, arguments.at[2], "address", text, sizeof(text)) ||
	    !read_number(env, arguments.at[3], "port", &port))
		return NULL;
	request.kind = (enum socket_kind)kind;
	request.length = address_parse(text, (uint16_t)port, &request.address);
	if (!request.length)
		return throw_errno(env, EAFNOSUPPORT, "address %s", text);
	fd = in_namespace(path, socket_open, &request);
	if (fd < 0)
		return throw_errno(env, fd, "%s port %d in %s", text, (int)port, path);
	return make_number(env, fd);
}

/* lockDirectory(path): descriptor that holds an exclusive lock until it is closed; throws EAGAIN if another has it */
static napi_value lock_directory(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	char path[PATH_MAX];
	int fd;

	if (!arguments_read(env, info, 1, &arguments) || !read_text(env, arguments.at[0], "path", path, sizeof(path)))
		return NULL;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
		int error = errno;

		close(fd);
		return throw_errno(env, error, "lock of %s", path);
	}
	return fd < 0 ? throw_errno(env, errno, "%s", path) : make_number(env, fd);
}

/* hideMemory(): no core dump holds our memory, and no process without CAP_SYS_PTRACE reads it */
static napi_value hide_memory(napi_env env, napi_callback_info info)
{
	if (prctl(PR_SET_DUMPABLE, 0))
		return throw_errno(env, errno, "PR_SET_DUMPABLE");
	return NULL;
}

/* exitNow(status): ends this process without waiting for names that are being looked up on other threads */
static napi_value exit_now(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	int64_t status;

	if (arguments_read(env, info, 1, &arguments) && read_number(env, arguments.at[0], "status", &status))
		_exit((int)status);
	return NULL;
}

void run_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "netnsSocket", netns_socket);
	add_function(env, exports, "lockDirectory", lock_directory);
	add_function(env, exports, "hideMemory", hide_memory);
	add_function(env, exports, "exitNow", exit_now);
}

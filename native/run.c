/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#include "run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

static napi_value throw_errno(napi_env env, const char *what, int error)
{
	char text[256];

	snprintf(text, sizeof(text), "%s: %s", what, strerrorname_np(error) ? strerrorname_np(error) : "unknown error");
	napi_throw_error(env, strerrorname_np(error), text);
	return NULL;
}

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
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
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

/* A descriptor, or a negative error. */
static int socket_open(enum socket_kind kind, const struct sockaddr_storage *address, socklen_t length)
{
	int type = (kind == socket_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
	int fd = socket(address->ss_family, type, 0), on = 1, error = 0;

	if (fd < 0)
		return -errno;
	if (kind == socket_connect) {
		error = connect_wait(fd, (const void *)address, length);
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (address->ss_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		if (bind(fd, (const void *)address, length) || (kind == socket_listen && listen(fd, 128)))
			error = errno;
	}
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

/* A socket belongs for ever to the namespace of the thread that made it: be there for as long as that takes. */
static int socket_open_in(const char *path, enum socket_kind kind, const struct sockaddr_storage *address,
			  socklen_t length)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int there = open(path, O_RDONLY | O_CLOEXEC);
	int result;

	if (home < 0 || there < 0 || setns(there, CLONE_NEWNET)) {
		result = -errno;
	} else {
		result = socket_open(kind, address, length);
		if (setns(home, CLONE_NEWNET))
			abort(); /* every later socket of ours would be the workload's */
	}
	if (home >= 0)
		close(home);
	if (there >= 0)
		close(there);
	return result;
}

/* netnsSocket(path of the namespace, kind, address, port) → descriptor; throws with the errno's name as code. */
static napi_value netns_socket(napi_env env, napi_callback_info info)
{
	size_t count = 4, length;
	napi_value arguments[4], result;
	char path[64], text[64];
	uint32_t kind, port;
	struct sockaddr_storage address;
	socklen_t address_length;
	int fd;

	if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) || count != 4 ||
	    napi_get_value_string_utf8(env, arguments[0], path, sizeof(path), &length) ||
	    napi_get_value_uint32(env, arguments[1], &kind) || kind > socket_connect ||
	    napi_get_value_string_utf8(env, arguments[2], text, sizeof(text), &length) ||
	    napi_get_value_uint32(env, arguments[3], &port) || port > UINT16_MAX)
		return throw_errno(env, "netnsSocket", EINVAL);
	address_length = address_parse(text, (uint16_t)port, &address);
	if (!address_length)
		return throw_errno(env, text, EAFNOSUPPORT);
	fd = socket_open_in(path, kind, &address, address_length);
	if (fd < 0)
		return throw_errno(env, text, -fd);
	napi_create_int32(env, fd, &result);
	return result;
}

/* lockDirectory(path) → descriptor that holds an exclusive lock until it is closed; throws EAGAIN if another has it. */
static napi_value lock_directory(napi_env env, napi_callback_info info)
{
	size_t count = 1, length;
	napi_value argument, result;
	char path[256];
	int fd;

	if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) || count != 1 ||
	    napi_get_value_string_utf8(env, argument, path, sizeof(path), &length))
		return throw_errno(env, "lockDirectory", EINVAL);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return throw_errno(env, path, errno);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int error = errno;

		close(fd);
		return throw_errno(env, path, error);
	}
	napi_create_int32(env, fd, &result);
	return result;
}

/* hideMemory(): no core dump holds our memory, and no process without CAP_SYS_PTRACE reads it. */
static napi_value hide_memory(napi_env env, napi_callback_info info)
{
	if (prctl(PR_SET_DUMPABLE, 0))
		return throw_errno(env, "prctl", errno);
	return NULL;
}

void run_exports(napi_env env, napi_value exports)
{
	static const struct {
		const char *name;
		napi_callback function;
	} functions[] = {
		{ "netnsSocket", netns_socket },
		{ "lockDirectory", lock_directory },
		{ "hideMemory", hide_memory },
	};

	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		napi_value function;

		napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function);
		napi_set_named_property(env, exports, functions[i].name, function);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring buffers: what the kernel has written wakes the event loop, and JavaScript gets it in batches. After a batch the
 * loop is left alone for a while and what has come by then is taken together: a busy connection reports each request,
 * and to be woken by each would cost more than all else that is done for it. The first after a quiet time comes at once.
 */
#include "addon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Of one turn of the event loop, so that a flood of events does not stop everything else. */
enum { k_batch_samples = 512, k_rest_milliseconds = 10 };

struct ring_handle {
	uv_poll_t poll;
	uv_timer_t rest;
	napi_env env;
	napi_ref handler;
	napi_async_context context;
	napi_async_cleanup_hook_handle cleanup;
	struct ring_buffer *ring; /* NULL: closed */
	napi_value batch;         /* only while consuming */
	uint32_t count;
	int open;       /* uv handles */
	bool collected; /* JavaScript has let go of us */
};

static void ring_freed(struct ring_handle *ring)
{
	if (ring->open || !ring->collected)
		return;
	free(ring);
}

static void handle_closed(uv_handle_t *handle)
{
	struct ring_handle *ring = handle->data;

	if (--ring->open)
		return;
	if (ring->cleanup)
		napi_remove_async_cleanup_hook(ring->cleanup);
	ring->cleanup = NULL;
	ring_freed(ring);
}

static void ring_release(struct ring_handle *ring)
{
	if (!ring->ring)
		return;
	if (ring->open) {
		uv_close((uv_handle_t *)&ring->poll, handle_closed);
		uv_close((uv_handle_t *)&ring->rest, handle_closed);
	}
	ring_buffer__free(ring->ring);
	ring->ring = NULL;
	if (ring->handler)
		napi_delete_reference(ring->env, ring->handler);
	ring->handler = NULL;
	if (ring->context)
		napi_async_destroy(ring->env, ring->context);
	ring->context = NULL;
}

static void ring_cleanup(napi_async_cleanup_hook_handle cleanup, void *data)
{
	struct ring_handle *ring = data;

	if (ring->ring)
		ring_release(ring);
	else if (!ring->open)
		napi_remove_async_cleanup_hook(cleanup);
}

static void ring_finalize(napi_env env, void *data, void *hint)
{
	struct ring_handle *ring = data;

	ring->collected = true;
	ring_release(ring);
	ring_freed(ring);
}

static int ring_sample(void *data, void *sample, size_t bytes)
{
	struct ring_handle *ring = data;

	napi_set_element(ring->env, ring->batch, ring->count++, make_bytes(ring->env, sample, bytes));
	/* A negative value ends this round; libbpf counts the sample as consumed all the same. */
	return ring->count >= k_batch_samples ? -ECANCELED : 0;
}

/* Hands one batch to JavaScript. Returns how many samples it had. */
static uint32_t ring_consume(struct ring_handle *ring)
{
	napi_env env = ring->env;
	napi_handle_scope scope;
	napi_value handler, receiver, exception;
	uint32_t count;
	bool failed = false;

	if (!ring->ring || napi_open_handle_scope(env, &scope) != napi_ok)
		return 0;
	ring->count = 0;
	napi_create_array(env, &ring->batch);
	ring_buffer__consume(ring->ring);
	count = ring->count;
	if (count) {
		napi_get_reference_value(env, ring->handler, &handler);
		napi_create_object(env, &receiver);
		/* The handler may close the ring. */
		napi_make_callback(env, ring->context, receiver, handler, 1, &ring->batch, NULL);
		napi_is_exception_pending(env, &failed);
		if (failed && napi_get_and_clear_last_exception(env, &exception) == napi_ok)
			napi_fatal_exception(env, exception);
	}
	napi_close_handle_scope(env, scope);
	return count;
}

static void ring_readable(uv_poll_t *poll, int status, int events);

/* The poll is level-triggered: what has come between the last look and its start is seen. */
static void ring_rested(uv_timer_t *rest)
{
	struct ring_handle *ring = rest->data;
	uint32_t count = ring_consume(ring);

	if (!ring->ring)
		return;
	if (count)
		uv_timer_start(rest, ring_rested, count < k_batch_samples ? k_rest_milliseconds : 0, 0);
	else
		uv_poll_start(&ring->poll, UV_READABLE, ring_readable);
}

static void ring_readable(uv_poll_t *poll, int status, int events)
{
	struct ring_handle *ring = poll->data;
	uint32_t count = ring_consume(ring);

	if (!ring->ring)
		return;
	uv_poll_stop(poll);
	uv_timer_start(&ring->rest, ring_rested, count < k_batch_samples ? k_rest_milliseconds : 0, 0);
}

/* ringOpen(map, handler: (samples: Buffer[]) => void): handle. Keeps the process alive until closed or unreferenced. */
static napi_value ring_open(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct map_handle *map;
	struct ring_handle *ring;
	napi_valuetype type;
	uv_loop_t *loop;
	napi_value name, result;
	int error;

	if (!arguments_read(env, info, 2, &arguments) || !read_handle(env, arguments.at[0], handle_map, (void **)&map))
		return NULL;
	if (map->fd < 0)
		return throw_type(env, "map %s is closed", map->name);
	if (napi_typeof(env, arguments.at[1], &type) != napi_ok || type != napi_function)
		return throw_type(env, "handler must be a function");
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return throw_errno(env, ENOMEM, "ring buffer %s", map->name);
	ring->env = env;
	ring->poll.data = ring;
	complaints_forget();
	ring->ring = ring_buffer__new(map->fd, ring_sample, ring, NULL);
	if (!ring->ring) {
		error = errno;
		free(ring);
		return throw_errno(env, error, "ring buffer %s", map->name);
	}
	name = make_text(env, "kloak:ring");
	if (napi_get_uv_event_loop(env, &loop) != napi_ok ||
	    napi_create_reference(env, arguments.at[1], 1, &ring->handler) != napi_ok ||
	    napi_async_init(env, NULL, name, &ring->context) != napi_ok) {
		ring_finalize(env, ring, NULL);
		return throw_errno(env, ENOMEM, "ring buffer %s", map->name);
	}
	error = uv_poll_init(loop, &ring->poll, ring_buffer__epoll_fd(ring->ring));
	if (error) {
		ring_finalize(env, ring, NULL);
		return throw_errno(env, error, "ring buffer %s", map->name);
	}
	uv_timer_init(loop, &ring->rest);
	ring->rest.data = ring;
	ring->open = 2;
	uv_poll_start(&ring->poll, UV_READABLE, ring_readable);
	napi_add_async_cleanup_hook(env, ring_cleanup, ring, &ring->cleanup);
	result = make_handle(env, handle_ring, ring, ring_finalize);
	return result;
}

/* ringReference(ring, boolean): whether it keeps the process alive */
static napi_value ring_reference(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	struct ring_handle *ring;
	bool wanted = true;

	if (!arguments_read(env, info, 2, &arguments) ||
	    !read_handle(env, arguments.at[0], handle_ring, (void **)&ring))
		return NULL;
	napi_get_value_bool(env, arguments.at[1], &wanted);
	if (!ring->ring)
		return NULL;
	if (wanted) {
		uv_ref((uv_handle_t *)&ring->poll);
		uv_ref((uv_handle_t *)&ring->rest);
	} else {
		uv_unref((uv_handle_t *)&ring->poll);
		uv_unref((uv_handle_t *)&ring->rest);
	}
	return NULL;
}

/* ringDrain(ring): what the kernel has written by now reaches the handler before this returns */
static napi_value ring_drain(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	void *ring;

	if (!arguments_read(env, info, 1, &arguments) || !read_handle(env, arguments.at[0], handle_ring, &ring))
		return NULL;
	while (ring_consume(ring) == k_batch_samples)
		;
	return NULL;
}

/* ringClose(ring) */
static napi_value ring_close(napi_env env, napi_callback_info info)
{
	struct arguments arguments;
	void *ring;

	if (arguments_read(env, info, 1, &arguments) && read_handle(env, arguments.at[0], handle_ring, &ring))
		ring_release(ring);
	return NULL;
}

void ring_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "ringOpen", ring_open);
	add_function(env, exports, "ringReference", ring_reference);
	add_function(env, exports, "ringDrain", ring_drain);
	add_function(env, exports, "ringClose", ring_close);
}

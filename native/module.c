/* SPDX-License-Identifier: Apache-2.0 */
#include "addon.h"
#include "run.h"

#include <pthread.h>
#include <signal.h>

/*
 * Node blocks SIGUSR1 at its start and takes the block away with the debugger's signal handler: not at all under
 * --disable-sigusr1 (Node 24), where the signal would never reach a listener.
 */
static void signals_restore(void)
{
	sigset_t debugger;

	sigemptyset(&debugger);
	sigaddset(&debugger, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &debugger, NULL);
}

NAPI_MODULE_INIT()
{
	signals_restore();
	complaints_forget();
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	object_exports(env, exports);
	map_exports(env, exports);
	link_exports(env, exports);
	tc_exports(env, exports);
	ring_exports(env, exports);
	test_run_exports(env, exports);
	namespace_exports(env, exports);
	memory_exports(env, exports);
	run_exports(env, exports);
	return exports;
}

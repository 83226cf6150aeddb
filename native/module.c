/* SPDX-License-Identifier: Apache-2.0 */
#include "addon.h"
#include "run.h"

NAPI_MODULE_INIT()
{
	complaints_forget();
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	object_exports(env, exports);
	map_exports(env, exports);
	link_exports(env, exports);
	tc_exports(env, exports);
	ring_exports(env, exports);
	test_run_exports(env, exports);
	namespace_exports(env, exports);
	run_exports(env, exports);
	return exports;
}

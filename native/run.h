/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What `kloak run` needs of the system and Node does not offer. */
#pragma once

#include <node_api.h>

/* Adds netnsSocket, lockDirectory, hideMemory and exitNow to the addon's exports. */
void run_exports(napi_env env, napi_value exports);

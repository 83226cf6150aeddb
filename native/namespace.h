/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Runs `work` in the network namespace at `path` (/proc/PID/ns/net), on a thread of its own, so that nothing else in
 * this process moves; with an empty path, here. Returns what it returns, or a negative errno.
 */
int in_namespace(const char *path, int (*work)(void *), void *argument);

/* SPDX-License-Identifier: Apache-2.0 */
/* Giving back memory that the start needed, and a process that then only waits does not. */
#include "addon.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Code and constants of the executable are mapped as they are used, and stay: tens of megabytes of Node's, for parsing,
 * compiling and reading files. Where nothing has been written they may be let go: what is used again comes back from the
 * page cache.
 */
static void drop_unchanged(void)
{
	char line[512], executable[256];
	ssize_t length = readlink("/proc/self/exe", executable, sizeof(executable) - 1);
	FILE *maps = fopen("/proc/self/smaps", "re");
	unsigned long start = 0, end = 0, anonymous;

	if (!maps)
		return;
	executable[length > 0 ? length : 0] = 0;
	while (length > 0 && fgets(line, sizeof(line), maps)) {
		unsigned long from, to;
		char mode[8];
		int path = 0;

		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %n", &from, &to, mode, &path) == 3) {
			line[strcspn(line, "\n")] = 0;
			start = from;
			/* Not writable, the executable's: a candidate. */
			end = path && mode[1] == '-' && !strcmp(line + path, executable) ? to : 0;
		} else if (end && sscanf(line, "Anonymous: %lu kB", &anonymous) == 1 && !anonymous) {
			madvise((void *)start, end - start, MADV_DONTNEED);
		}
	}
	fclose(maps);
}

/* trimMemory(): what is free goes back to the kernel, and what is not in use of the executable is no longer mapped */
static napi_value trim_memory(napi_env env, napi_callback_info info)
{
	malloc_trim(0);
	drop_unchanged();
	return NULL;
}

void memory_exports(napi_env env, napi_value exports)
{
	add_function(env, exports, "trimMemory", trim_memory);
}

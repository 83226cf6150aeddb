/*
 * Loaded before libc into the agent alone: its clocks are the kernel's plus what stands in the file that TEST_CLOCK
 * names, two numbers of nanoseconds, for CLOCK_REALTIME and for CLOCK_MONOTONIC. (A time namespace has no CLOCK_REALTIME
 * of its own, and the machine's is not a test's to set.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *steps;

__attribute__((constructor)) static void open_steps(void)
{
	const char *path = getenv("TEST_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *memory;

	if (file < 0)
		return;
	memory = mmap(NULL, 2 * sizeof(*steps), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (memory != MAP_FAILED)
		steps = memory;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = syscall(SYS_clock_gettime, clock, time);
	int64_t step = 0, total;

	if (result || !steps)
		return result;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		step = steps[0];
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)
		step = steps[1];
	total = time->tv_sec * 1000000000LL + time->tv_nsec + step;
	time->tv_sec = total / 1000000000LL;
	time->tv_nsec = total % 1000000000LL;
	return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	struct timespec now;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *to)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (to)
		*to = now.tv_sec;
	return now.tv_sec;
}

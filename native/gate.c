/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * kloak-gate: holds an `execve` of a workload, and the opening of a library in its mounts, until kloak has hooked the
 * TLS code in the file (fanotify permission events).
 *
 * The events come from every process that uses the file system, so whoever answers them must never stop: a process of
 * its own, in a session of its own, because kloak itself stops with its job (Ctrl-Z) and takes garbage collections.
 * What does not belong to a workload is answered here and at once; the rest is asked, and let through after a bounded
 * wait. If this process ends, the kernel lets everything through.
 *
 * At descriptor 3, a line each. From kloak:
 *   workload INODE | workload-gone INODE    a network namespace
 *   filesystem PATH                         gate execve on the file system that holds PATH
 *   mount PATH                              gate the opening of ELF files through the mount at PATH
 *   allow ID [known]                        go on; `known`: do not ask about this file again until it is modified
 *   sync                                    answer `ready` when all of the above is done
 * To kloak:
 *   ready | failed STEP ERRNO
 *   asked ID PID exec|open                  ID is the open file's descriptor here: /proc/GATE/fd/ID
 *   late ID PID                             no answer in time: let through
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef FAN_MARK_EVICTABLE
#define FAN_MARK_EVICTABLE 0x00000200 /* Linux 5.19, commit 7d5e005d9820; newer than glibc 2.36 */
#endif

enum {
	k_control = 3,
	k_workloads_max = 1024,
	k_held_max = 256, /* as many files are held at once; more are let through */
	k_line_max = PATH_MAX + 64,
};

struct held {
	int fd;
	pid_t pid;
	int64_t until_ms;
};

static struct {
	int notify;
	int wait_ms;
	ino_t workloads[k_workloads_max];
	size_t workload_count;
	struct held held[k_held_max];
	size_t held_count;
	char line[k_line_max];
	size_t line_length;
} gate;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False if kloak does not take it now: then nobody can be asked. */
__attribute__((format(printf, 1, 2))) static bool tell(const char *format, ...)
{
	char text[128];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return send(k_control, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) == length;
}

/* The file is not asked about again, by anybody, until it is modified; the mark goes when the inode leaves memory. */
static void remember(int fd)
{
	fanotify_mark(gate.notify, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_EVICTABLE,
		      FAN_OPEN_EXEC_PERM | FAN_OPEN_PERM, fd, NULL);
}

static void allow(int fd)
{
	struct fanotify_response response = {.fd = fd, .response = FAN_ALLOW};

	(void)!write(gate.notify, &response, sizeof(response));
	close(fd);
}

static bool in_workload(pid_t pid)
{
	char path[32];
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	if (stat(path, &status))
		return false;
	for (size_t i = 0; i < gate.workload_count; i++)
		if (gate.workloads[i] == status.st_ino)
			return true;
	return false;
}

static bool holds_code(int fd)
{
	unsigned char magic[SELFMAG];

	return pread(fd, magic, SELFMAG, 0) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static void file_opened(int fd, pid_t pid, const char *purpose)
{
	if (!in_workload(pid)) {
		allow(fd);
	} else if (!holds_code(fd)) {
		remember(fd);
		allow(fd);
	} else if (gate.held_count == k_held_max || !tell("asked %d %d %s\n", fd, pid, purpose)) {
		allow(fd);
	} else {
		gate.held[gate.held_count++] = (struct held){.fd = fd, .pid = pid, .until_ms = now_ms() + gate.wait_ms};
	}
}

static void files_read(void)
{
	char buffer[4096] __attribute__((aligned(__alignof__(struct fanotify_event_metadata))));
	ssize_t length = read(gate.notify, buffer, sizeof(buffer));
	struct fanotify_event_metadata *event = (void *)buffer;

	for (; length > 0 && FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length))
		if (event->fd >= 0)
			file_opened(event->fd, event->pid, event->mask & FAN_OPEN_EXEC_PERM ? "exec" : "open");
}

static void held_drop(size_t index)
{
	gate.held[index] = gate.held[--gate.held_count];
}

static void held_answer(int fd, bool known)
{
	for (size_t i = 0; i < gate.held_count; i++)
		if (gate.held[i].fd == fd) {
			if (known)
				remember(fd);
			allow(fd);
			held_drop(i);
			return;
		}
}

/* Milliseconds until the next one is due, or -1. */
static int held_expire(void)
{
	int64_t now = now_ms(), next = -1;

	for (size_t i = 0; i < gate.held_count;) {
		struct held held = gate.held[i];

		if (held.until_ms <= now) {
			held_drop(i);
			tell("late %d %d\n", held.fd, held.pid);
			allow(held.fd);
			continue;
		}
		if (next < 0 || held.until_ms - now < next)
			next = held.until_ms - now;
		i++;
	}
	return (int)next;
}

static void workload_remove(ino_t inode)
{
	for (size_t i = 0; i < gate.workload_count; i++)
		if (gate.workloads[i] == inode)
			gate.workloads[i] = gate.workloads[--gate.workload_count];
}

static void mark(unsigned int kind, uint64_t mask, const char *path)
{
	if (fanotify_mark(gate.notify, FAN_MARK_ADD | kind, mask, AT_FDCWD, path))
		tell("failed mark %d\n", errno);
}

static void line_obey(const char *line)
{
	unsigned long inode;
	int fd, end = 0;

	if (sscanf(line, "allow %d%n", &fd, &end) == 1)
		held_answer(fd, strcmp(line + end, " known") == 0);
	else if (sscanf(line, "workload %lu", &inode) == 1 && gate.workload_count < k_workloads_max)
		gate.workloads[gate.workload_count++] = inode;
	else if (sscanf(line, "workload-gone %lu", &inode) == 1)
		workload_remove(inode);
	else if (strncmp(line, "filesystem ", 11) == 0)
		mark(FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC_PERM, line + 11);
	else if (strncmp(line, "mount ", 6) == 0)
		mark(FAN_MARK_MOUNT, FAN_OPEN_PERM, line + 6);
	else if (strcmp(line, "sync") == 0)
		tell("ready\n");
}

static void control_read(void)
{
	char bytes[4096];
	ssize_t got = recv(k_control, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		exit(0); /* kloak is gone; the kernel lets everything through when our descriptor closes */
	for (ssize_t i = 0; i < got; i++) {
		if (bytes[i] == '\n') {
			gate.line[gate.line_length] = 0;
			gate.line_length = 0;
			line_obey(gate.line);
		} else if (gate.line_length < sizeof(gate.line) - 1) {
			gate.line[gate.line_length++] = bytes[i];
		}
	}
}

int main(int argc, char **argv)
{
	if (fcntl(k_control, F_SETFD, FD_CLOEXEC) || argc < 2) {
		fputs("kloak-gate is a part of kloak and is not started by hand.\n", stderr);
		return 125;
	}
	gate.wait_ms = atoi(argv[1]);
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Without O_NONBLOCK the kernel would wait for a writer before it shows us a FIFO. */
	gate.notify = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS,
				    O_RDONLY | O_CLOEXEC | O_LARGEFILE | O_NONBLOCK);
	if (gate.notify < 0) {
		tell("failed fanotify %d\n", errno);
		return 125;
	}
	tell("ready\n");
	for (;;) {
		struct pollfd wait[2] = {{.fd = gate.notify, .events = POLLIN}, {.fd = k_control, .events = POLLIN}};

		if (poll(wait, 2, held_expire()) < 0 && errno != EINTR)
			return 125;
		if (wait[0].revents)
			files_read();
		if (wait[1].revents)
			control_read();
	}
}

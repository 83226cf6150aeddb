/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * kloak-gate: holds an `execve` of a workload, and the opening of a library in its mounts, until kloak has hooked the
 * TLS code in the file (fanotify permission events).
 *
 * The events come from every process that uses the file system, so whoever answers them must never stop: a process of
 * its own, in a session of its own, because kloak itself stops with its job (Ctrl-Z), takes garbage collections, dies and
 * is replaced. What does not belong to a workload is answered here and at once; the rest is asked, and let through after
 * a bounded wait, which is shorter while kloak does not answer at all. If this process ends, the kernel lets everything
 * through.
 *
 *   kloak-gate WAIT                     kloak is at descriptor 3, and this ends with it
 *   kloak-gate WAIT SOCKET LINKS        kloak connects to SOCKET, the latest counts; while none is there files are held
 *                                       for its successor, and of hooked files that are written to, the probes that are
 *                                       pinned below LINKS are removed
 *
 * A line each. From kloak:
 *   workload INODE | workload-gone INODE    a network namespace
 *   filesystem PATH                         gate execve on the file system that holds PATH
 *   mount PATH                              gate the opening of ELF files through the mount at PATH
 *   watch PATH                              say when the file at PATH is written to
 *   unhooked PLACE                          what was said of it is done: its probes are gone
 *   runtime PATH                            hold every execve of the file at PATH, whoever does it: a container runtime
 *   allow ID [known]                        go on; `known`: do not ask about this file again until it is modified
 *   forget                                  ask about all files again
 *   sync                                    answer `ready` when all of the above is done
 *   leave                                   end
 * To kloak:
 *   gate PID                                this process; first
 *   ready | failed STEP ERRNO
 *   asked ID PID exec|open                  ID is the open file's descriptor here: /proc/GATE/fd/ID
 *   late PID exec|open                      no answer in time: let through
 *   crowded PID exec|open                   too many at once: let through
 *   missed COUNT                            let through while nobody was connected, beyond those said by `late`
 *   modified PLACE                          DEVICE-INODE, or overlay-INODE: no more is said of it until it is watched again
 */
#include <dirent.h>
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
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef FAN_MARK_EVICTABLE
#define FAN_MARK_EVICTABLE 0x00000200 /* Linux 5.19, commit 7d5e005d9820; newer than glibc 2.36 */
#endif

enum {
	k_control = 3,
	k_workloads_max = 1024,
	k_held_max = 512,          /* as many files are held at once; more are let through */
	k_held_workload_max = 128, /* of one workload, so that it takes no room from others */
	k_asked_workload_max = 4,  /* of one workload, so that kloak hears of all workloads in turn */
	k_missed_max = 256,
	k_runtimes_max = 16,
	k_modified_max = 64,
	k_place_max = 64, /* DEVICE-INODE */
	k_patience_ms = 10000,     /* how long after kloak has gone its successor is waited for */
	k_impatient_ms = 50,       /* the wait while kloak answers nothing */
	k_line_max = PATH_MAX + 64,
	k_overlay_magic = 0x794c7630, /* statfs(2) */
};

struct workload {
	ino_t inode;
	size_t held;
	size_t asked;
};

/* In the order in which they came. */
struct held {
	int fd;
	pid_t pid;
	dev_t device;
	ino_t inode;
	ino_t workload;
	int64_t until_ms;
	bool exec;
	bool asked;
};

static struct {
	int notify;
	int watch;
	int listener;     /* -1: kloak is our parent */
	int control;      /* -1: nobody is connected */
	int wait_ms;
	bool silent;      /* kloak has let an answer fall due, and has said nothing since */
	int64_t alone_ms; /* since when nobody is connected */
	const char *links;
	struct workload workloads[k_workloads_max];
	size_t workload_count;
	struct workload runtimes; /* container runtimes, held as if they were one more workload; its inode is 0 */
	struct {
		dev_t device;
		ino_t inode;
	} runtime[k_runtimes_max];
	size_t runtime_count;
	struct held held[k_held_max];
	size_t held_count;
	struct {
		pid_t pid;
		bool exec;
	} missed[k_missed_max]; /* let through while nobody was connected */
	unsigned long missed_count;
	char modified[k_modified_max][k_place_max]; /* said to kloak, and not answered; empty: free */
	char line[k_line_max];
	size_t line_length;
} gate = {.listener = -1, .control = -1};

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

	if (gate.control < 0)
		return false;
	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return send(gate.control, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) == length;
}

static const char *purpose(bool exec)
{
	return exec ? "exec" : "open";
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

static struct workload *workload_find(ino_t inode)
{
	for (size_t i = 0; i < gate.workload_count; i++)
		if (gate.workloads[i].inode == inode)
			return &gate.workloads[i];
	return inode ? NULL : &gate.runtimes;
}

static bool is_runtime(const struct stat *status)
{
	for (size_t i = 0; i < gate.runtime_count; i++)
		if (gate.runtime[i].device == status->st_dev && gate.runtime[i].inode == status->st_ino)
			return true;
	return false;
}

static struct workload *workload_of(pid_t pid)
{
	char path[32];
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	return stat(path, &status) ? NULL : workload_find(status.st_ino);
}

static bool holds_code(int fd)
{
	unsigned char magic[SELFMAG];

	return pread(fd, magic, SELFMAG, 0) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static void missed(pid_t pid, bool exec)
{
	if (gate.missed_count < k_missed_max) {
		gate.missed[gate.missed_count].pid = pid;
		gate.missed[gate.missed_count].exec = exec;
	}
	gate.missed_count++;
}

/* Lets a file through that nobody has looked at. */
static void pass(int fd, pid_t pid, bool exec, const char *why)
{
	if (!tell("%s %d %s\n", why, pid, purpose(exec)))
		missed(pid, exec);
	allow(fd);
}

/* Asks about what waits, of each workload a few at a time. */
static void held_ask(void)
{
	for (size_t i = 0; i < gate.held_count && gate.control >= 0; i++) {
		struct held *held = &gate.held[i];
		struct workload *workload = held->asked ? NULL : workload_find(held->workload);

		/* Runtimes are all answered by one look at the node, however many there are. */
		if (!workload || (workload != &gate.runtimes && workload->asked >= k_asked_workload_max))
			continue;
		if (!tell("asked %d %d %s\n", held->fd, held->pid, purpose(held->exec)))
			return;
		held->asked = true;
		workload->asked++;
	}
}

static void file_opened(int fd, pid_t pid, bool exec)
{
	struct workload *workload = workload_of(pid);
	struct stat status;
	int64_t now;

	if (exec && gate.runtime_count && !fstat(fd, &status) && is_runtime(&status))
		workload = &gate.runtimes;
	if (!workload) {
		allow(fd);
		return;
	}
	if (workload != &gate.runtimes && (!holds_code(fd) || fstat(fd, &status))) {
		remember(fd);
		allow(fd);
		return;
	}
	now = now_ms();
	if (gate.held_count == k_held_max || workload->held >= k_held_workload_max) {
		pass(fd, pid, exec, "crowded");
		return;
	}
	if (gate.control < 0 && now - gate.alone_ms > k_patience_ms) {
		pass(fd, pid, exec, "late");
		return;
	}
	workload->held++;
	gate.held[gate.held_count++] = (struct held){
		.fd = fd,
		.pid = pid,
		.device = status.st_dev,
		.inode = status.st_ino,
		.workload = workload->inode,
		.exec = exec,
		.until_ms = now + (gate.silent ? k_impatient_ms : gate.wait_ms),
	};
}

static void files_read(void)
{
	char buffer[4096] __attribute__((aligned(__alignof__(struct fanotify_event_metadata))));
	ssize_t length = read(gate.notify, buffer, sizeof(buffer));
	struct fanotify_event_metadata *event = (void *)buffer;

	for (; length > 0 && FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length))
		if (event->fd >= 0)
			file_opened(event->fd, event->pid, event->mask & FAN_OPEN_EXEC_PERM);
}

static void held_drop(size_t index)
{
	struct workload *workload = workload_find(gate.held[index].workload);

	if (workload && workload->held)
		workload->held--;
	if (workload && gate.held[index].asked && workload->asked)
		workload->asked--;
	gate.held_count--;
	memmove(&gate.held[index], &gate.held[index + 1], (gate.held_count - index) * sizeof(gate.held[0]));
}

/* What is known of a file holds for all who wait for it. */
static void held_answer(int fd, bool known)
{
	struct held *found = NULL, answered;

	for (size_t i = 0; i < gate.held_count && !found; i++)
		if (gate.held[i].fd == fd)
			found = &gate.held[i];
	if (!found)
		return;
	answered = *found;
	if (known)
		remember(fd);
	for (size_t i = 0; i < gate.held_count;) {
		struct held held = gate.held[i];

		if (held.fd != fd && !(known && held.device == answered.device && held.inode == answered.inode)) {
			i++;
			continue;
		}
		held_drop(i);
		allow(held.fd);
	}
}

/* Milliseconds until the next one is due, or -1. */
static int held_expire(void)
{
	int64_t now = now_ms(), next = -1;

	for (size_t i = 0; i < gate.held_count;) {
		struct held held = gate.held[i];

		if (held.until_ms <= now) {
			if (held.asked)
				gate.silent = true;
			held_drop(i);
			pass(held.fd, held.pid, held.exec, "late");
			continue;
		}
		if (next < 0 || held.until_ms - now < next)
			next = held.until_ms - now;
		i++;
	}
	return (int)next;
}

static void workload_add(ino_t inode)
{
	if (!workload_find(inode) && gate.workload_count < k_workloads_max)
		gate.workloads[gate.workload_count++] = (struct workload){.inode = inode};
}

static void workload_remove(ino_t inode)
{
	struct workload *workload = workload_find(inode);

	if (workload)
		*workload = gate.workloads[--gate.workload_count];
}

static void mark(unsigned int kind, uint64_t mask, const char *path)
{
	if (fanotify_mark(gate.notify, FAN_MARK_ADD | kind, mask, AT_FDCWD, path))
		tell("failed mark %d\n", errno);
}

static void runtime_add(const char *path)
{
	struct stat status;

	if (stat(path, &status) || is_runtime(&status) || gate.runtime_count == k_runtimes_max)
		return;
	if (fanotify_mark(gate.notify, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, path)) {
		tell("failed mark %d\n", errno);
		return;
	}
	gate.runtime[gate.runtime_count].device = status.st_dev;
	gate.runtime[gate.runtime_count++].inode = status.st_ino;
}

static void folder_remove(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char below[PATH_MAX];

	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.' ||
		    snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) >= (int)sizeof(below))
			continue;
		if (unlink(below) && (errno == EISDIR || errno == EPERM))
			folder_remove(below);
	}
	if (folder)
		closedir(folder);
	rmdir(path);
}

static void probes_remove(const char *place)
{
	char path[PATH_MAX];

	if (gate.links && snprintf(path, sizeof(path), "%s/%s", gate.links, place) < (int)sizeof(path))
		folder_remove(path);
}

/* A kloak that is dying takes what is said and does nothing about it; so it has to answer, or we do it ourselves. */
static void modified_tell(const char *place)
{
	for (size_t i = 0; i < k_modified_max; i++) {
		if (gate.modified[i][0])
			continue;
		if (!tell("modified %s\n", place))
			break;
		strcpy(gate.modified[i], place);
		return;
	}
	probes_remove(place);
}

static void modified_done(const char *place)
{
	for (size_t i = 0; i < k_modified_max; i++)
		if (strcmp(gate.modified[i], place) == 0)
			gate.modified[i][0] = 0;
}

static void line_obey(const char *line)
{
	unsigned long inode;
	int fd, end = 0;

	gate.silent = false;
	if (sscanf(line, "allow %d%n", &fd, &end) == 1)
		held_answer(fd, strcmp(line + end, " known") == 0);
	else if (sscanf(line, "workload %lu", &inode) == 1)
		workload_add(inode);
	else if (sscanf(line, "workload-gone %lu", &inode) == 1)
		workload_remove(inode);
	else if (strncmp(line, "filesystem ", 11) == 0)
		mark(FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC_PERM, line + 11);
	else if (strncmp(line, "mount ", 6) == 0)
		mark(FAN_MARK_MOUNT, FAN_OPEN_PERM, line + 6);
	else if (strncmp(line, "watch ", 6) == 0)
		fanotify_mark(gate.watch, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, line + 6);
	else if (strncmp(line, "unhooked ", 9) == 0)
		modified_done(line + 9);
	else if (strncmp(line, "runtime ", 8) == 0)
		runtime_add(line + 8);
	else if (strcmp(line, "forget") == 0) {
		gate.runtime_count = 0;
		fanotify_mark(gate.notify, FAN_MARK_FLUSH, 0, AT_FDCWD,
			      NULL); /* of inodes; mounts and file systems stay */
	} else if (strcmp(line, "sync") == 0)
		tell("ready\n");
	else if (strcmp(line, "leave") == 0)
		exit(0);
}

static void kloak_gone(void)
{
	if (gate.listener < 0)
		exit(0); /* the kernel lets everything through when our descriptor closes */
	close(gate.control);
	gate.control = -1;
	for (size_t i = 0; i < k_modified_max; i++) {
		if (gate.modified[i][0])
			probes_remove(gate.modified[i]);
		gate.modified[i][0] = 0;
	}
	gate.alone_ms = now_ms();
	gate.line_length = 0;
	gate.silent = false;
	/* They wait for a successor as long as they would have for an answer. */
	for (size_t i = 0; i < gate.held_count; i++)
		gate.held[i].asked = false;
	for (size_t i = 0; i < gate.workload_count; i++)
		gate.workloads[i].asked = 0;
}

static void control_read(void)
{
	char bytes[4096];
	ssize_t got = recv(gate.control, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
		kloak_gone();
		return;
	}
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

static void kloak_came(void)
{
	int fd = accept4(gate.listener, NULL, NULL, SOCK_CLOEXEC);
	unsigned long count = gate.missed_count;

	if (fd < 0)
		return;
	if (gate.control >= 0)
		kloak_gone();
	gate.control = fd;
	tell("gate %d\n", getpid());
	for (size_t i = 0; i < count && i < k_missed_max; i++)
		tell("late %d %s\n", gate.missed[i].pid, purpose(gate.missed[i].exec));
	if (count > k_missed_max)
		tell("missed %lu\n", count - k_missed_max);
	gate.missed_count = 0;
}

static void file_modified(int fd)
{
	char place[k_place_max];
	struct stat status;
	struct statfs system;

	/* One word is enough: a large file is written to many times. */
	fanotify_mark(gate.watch, FAN_MARK_REMOVE, FAN_MODIFY, fd, NULL);
	if (fstat(fd, &status) || fstatfs(fd, &system))
		return;
	if (system.f_type == k_overlay_magic)
		snprintf(place, sizeof(place), "overlay-%lu", status.st_ino);
	else
		snprintf(place, sizeof(place), "%lu-%lu", status.st_dev, status.st_ino);
	modified_tell(place);
}

static void writes_read(void)
{
	char buffer[4096] __attribute__((aligned(__alignof__(struct fanotify_event_metadata))));
	ssize_t length = read(gate.watch, buffer, sizeof(buffer));
	struct fanotify_event_metadata *event = (void *)buffer;

	for (; length > 0 && FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length)) {
		if (event->fd < 0)
			continue;
		file_modified(event->fd);
		close(event->fd);
	}
}

static bool listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		return false;
	strcpy(address.sun_path, path);
	gate.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	umask(0077);
	return gate.listener >= 0 && bind(gate.listener, (void *)&address, sizeof(address)) == 0 &&
	       listen(gate.listener, 4) == 0;
}

/* Should memory run out, let it be somebody else: this process holds next to nothing, and holds up others. */
static void stay_alive(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, "-1000", 5);
	close(fd);
}

int main(int argc, char **argv)
{
	/* Without O_NONBLOCK the kernel would wait for a writer before it shows us a FIFO. */
	const unsigned int shown = O_RDONLY | O_CLOEXEC | O_LARGEFILE | O_NONBLOCK;
	const bool alone = argc == 4;

	if (!alone && (argc != 2 || fcntl(k_control, F_SETFD, FD_CLOEXEC))) {
		fputs("kloak-gate is a part of kloak and is not started by hand.\n", stderr);
		return 125;
	}
	gate.wait_ms = atoi(argv[1]);
	gate.alone_ms = now_ms();
	setsid();
	if (alone) {
		gate.links = argv[3];
		stay_alive();
		if (chdir("/") || !listen_at(argv[2]))
			return 125;
	} else {
		gate.control = k_control;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	gate.notify = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS, shown);
	gate.watch = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_MARKS, shown);
	if (gate.notify < 0 || gate.watch < 0) {
		int error = errno;

		/* Whoever started us waits for a word. */
		if (alone)
			kloak_came();
		tell("failed fanotify %d\n", error);
		return 125;
	}
	if (!alone)
		tell("gate %d\n", getpid());
	for (;;) {
		struct pollfd wait[4] = {
			{.fd = gate.notify, .events = POLLIN},
			{.fd = gate.watch, .events = POLLIN},
			{.fd = gate.control, .events = POLLIN},
			{.fd = gate.listener, .events = POLLIN},
		};

		held_ask();
		if (poll(wait, 4, held_expire()) < 0 && errno != EINTR)
			return 125;
		/* First who has written to a file, then who executes it. */
		if (wait[1].revents)
			writes_read();
		if (wait[2].revents)
			control_read();
		if (wait[3].revents)
			kloak_came();
		if (wait[0].revents)
			files_read();
	}
}

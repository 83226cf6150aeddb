/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * kloak-launch: the parent of a command under `kloak run`.
 *
 * Kloak starts it with a socket at descriptor 3. It moves into a network and a mount namespace of its own, says so,
 * and waits while kloak lays the network and hooks the TLS code; then it starts the command, hands signals on, and
 * reports how the command ended. It is a program of its own, and not a part of kloak, because it must outlive kloak's
 * death: on end-of-file at descriptor 3 it cuts the network before the command can notice, and ends the command.
 *
 * Kloak, this program and the command share one process group, so that a pipeline around kloak keeps its terminal:
 * whatever the terminal sends reaches the command by itself. Only a signal meant for kloak alone is handed on.
 *
 * To kloak, a line each:   ready | started PID | failed STEP ERRNO | exited STATUS | killed SIGNAL
 * From kloak: strings of the form key=value, each ended by NUL, the last of them empty (struct plan); then lines:
 * signal NUMBER
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	k_control = 3,
	k_grace_ms = 2000,      /* between SIGTERM and SIGKILL for what the command leaves behind */
	k_same_signal_ms = 5000, /* a signal to the whole group reaches kloak and us within this, on a busy host too */
	k_own_failure = 125,
};

struct list {
	char **items;
	size_t count;
};

struct plan {
	char *text; /* what all strings point into */
	struct list arguments; /* arg=, the command */
	struct list environment; /* env=NAME=VALUE */
	struct list covers; /* cover=FILE TAB TARGET: FILE is bound over TARGET */
	struct list tidy; /* tidy=, a command that removes what kloak left, should kloak die */
	struct list groups; /* group= */
	const char *user, *group; /* uid=, gid=; NULL: as we are */
	unsigned long long ignored; /* ignore=MASK in hex, bit N-1 for signal N */
};

struct run {
	struct plan plan;
	pid_t kloak, command;
	ino_t netns;
	int link; /* index of the wire's end in our namespace */
	int host_netns, signals;
	sigset_t inherited;
	int64_t seen_ms[NSIG]; /* when the whole group last got this signal */
	char line[256];
	size_t line_length;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* false: kloak is gone. */
__attribute__((format(printf, 1, 2))) static bool tell(const char *format, ...)
{
	char text[128];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return send(k_control, text, (size_t)length, MSG_NOSIGNAL) == length;
}

static void __attribute__((noreturn)) fail(const char *step)
{
	tell("failed %s %d\n", step, errno);
	exit(k_own_failure);
}

static void list_add(struct list *list, char *item)
{
	char **items = realloc(list->items, (list->count + 2) * sizeof(*items));

	if (!items)
		fail("memory");
	items[list->count++] = item;
	items[list->count] = NULL;
	list->items = items;
}

/* The length of the plan, if its end (an empty string, hence two NULs) lies within what was read so far. */
static size_t plan_length(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!text[i] && (i == 0 || !text[i - 1]))
			return i + 1;
	return 0;
}

/* Takes the plan off the socket, and not a byte more: lines follow. */
static char *plan_read(void)
{
	size_t length = 0, size = 65536, end = 0;
	char *text = malloc(size);

	while (!end) {
		ssize_t got;

		if (size - length < 4096)
			text = realloc(text, size *= 2);
		if (!text)
			fail("memory");
		got = recv(k_control, text + length, 4096, MSG_PEEK);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			exit(k_own_failure); /* kloak gave up before anything was started */
		end = plan_length(text, length + (size_t)got);
		got = recv(k_control, text + length, end ? end - length : (size_t)got, 0);
		length += (size_t)got;
	}
	return text;
}

static char *value_of(char *item, const char *key)
{
	size_t length = strlen(key);

	return strncmp(item, key, length) == 0 && item[length] == '=' ? item + length + 1 : NULL;
}

static void plan_parse(struct plan *plan)
{
	plan->text = plan_read();
	for (char *item = plan->text, *value; *item; item += strlen(item) + 1) {
		/* Parsing writes into no item, so its length stays what it was. */
		if ((value = value_of(item, "arg")))
			list_add(&plan->arguments, value);
		else if ((value = value_of(item, "env")))
			list_add(&plan->environment, value);
		else if ((value = value_of(item, "cover")))
			list_add(&plan->covers, value);
		else if ((value = value_of(item, "tidy")))
			list_add(&plan->tidy, value);
		else if ((value = value_of(item, "group")))
			list_add(&plan->groups, value);
		else if ((value = value_of(item, "uid")))
			plan->user = value;
		else if ((value = value_of(item, "gid")))
			plan->group = value;
		else if ((value = value_of(item, "ignore")))
			plan->ignored = strtoull(value, NULL, 16);
	}
	if (!plan->arguments.count) {
		errno = EINVAL;
		fail("plan");
	}
}

static void loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		fail("loopback");
	close(fd);
}

/* Removes the wire, and with it the host's end and its filters: from here on nothing leaves. */
static void cut_network(const struct run *run)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = {.nlmsg_len = sizeof(request),
			   .nlmsg_type = RTM_DELLINK,
			   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.link = {.ifi_index = run->link}, /* its name is the command's to change */
	};
	char answer[512];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return;
	if (run->link && send(fd, &request, sizeof(request), 0) > 0)
		(void)!recv(fd, answer, sizeof(answer), 0);
	close(fd);
}

/* The parent of a process, or 0. */
static pid_t parent_of(pid_t pid)
{
	char path[32], text[256], *after;
	int fd, parent = 0;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	after = strrchr(text, ')'); /* the name before it may hold anything */
	if (after)
		sscanf(after + 1, " %*c %d", &parent);
	return parent;
}

/* Orphans come to us, as their reaper, so that whoever the command has started, at whatever remove, leads back here. */
static bool descends_from_us(pid_t pid)
{
	while (pid > 1 && pid != getpid())
		pid = parent_of(pid);
	return pid == getpid();
}

/* A process may leave our network namespace for one of its own, as sandboxes do, but not our descent. */
static bool belongs_to_run(const struct run *run, pid_t pid)
{
	char path[32];
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	if (stat(path, &status))
		return false; /* it has ended, and waits for its parent */
	return status.st_ino == run->netns || descends_from_us(pid);
}

/* Signals every process of the run; true if there was one. */
static bool signal_run(const struct run *run, int signal)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	bool found = false;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = (pid_t)atoi(entry->d_name);

		if (pid > 1 && pid != getpid() && belongs_to_run(run, pid) && kill(pid, signal) == 0)
			found = true;
	}
	if (proc)
		closedir(proc);
	return found;
}

/* Ends whatever is left of the run. Orphans come to us, so that their end raises SIGCHLD. */
static void end_leftovers(const struct run *run)
{
	int64_t deadline = now_ms() + k_grace_ms;
	bool killing = false;

	if (!signal_run(run, SIGTERM))
		return;
	signal_run(run, SIGCONT); /* a stopped process takes SIGTERM only once it runs */
	for (;;) {
		struct pollfd poll_signals = {.fd = run->signals, .events = POLLIN};
		struct signalfd_siginfo info;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (!signal_run(run, 0))
			return;
		if (now_ms() >= deadline) {
			if (killing)
				return; /* in uninterruptible sleep: cut off, and dead as soon as it wakes */
			killing = true;
			deadline += k_grace_ms;
		}
		if (killing)
			signal_run(run, SIGKILL);
		if (poll(&poll_signals, 1, killing ? 10 : 50) > 0)
			(void)!read(run->signals, &info, sizeof(info));
	}
}

/* A shell that died in the foreground leaves the terminal to a group that is no more. */
static void terminal_back(void)
{
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	pid_t foreground;

	if (fd < 0)
		return;
	foreground = tcgetpgrp(fd);
	if (foreground > 0 && foreground != getpgrp() && kill(-foreground, 0) && errno == ESRCH)
		tcsetpgrp(fd, getpgrp());
	close(fd);
}

static void __attribute__((noreturn)) kloak_died(const struct run *run)
{
	const struct list *tidy = &run->plan.tidy;

	cut_network(run);
	if (run->command > 0)
		end_leftovers(run);
	terminal_back();
	if (tidy->count && setns(run->host_netns, CLONE_NEWNET) == 0) {
		sigprocmask(SIG_SETMASK, &run->inherited, NULL);
		setsid(); /* the terminal's signals are not for the clean-up */
		execv(tidy->items[0], tidy->items);
	}
	exit(k_own_failure);
}

static void __attribute__((noreturn)) report_and_exit(const struct run *run, int status)
{
	end_leftovers(run);
	terminal_back();
	if (!(WIFSIGNALED(status) ? tell("killed %d\n", WTERMSIG(status)) : tell("exited %d\n", WEXITSTATUS(status))))
		kloak_died(run);
	/* Said twice: a line that kloak was writing meets a closed socket, and may cost it what it has not read. */
	exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

struct failure {
	char step[16];
	int error;
};

static void __attribute__((noreturn)) child_fail(int report, const char *step)
{
	struct failure failure = {.error = errno};

	strncpy(failure.step, step, sizeof(failure.step) - 1);
	(void)!write(report, &failure, sizeof(failure));
	_exit(k_own_failure);
}

/*
 * What would let a command that runs as root take the secrets from where they are: kloak's memory and environment, its
 * BPF maps, the host's namespaces and modules. A process may not trace another that has capabilities which it lacks
 * itself, so that without these kloak is out of reach, though it has the same user.
 */
static const unsigned char
	capabilities_denied[] =
		{
			CAP_SYS_ADMIN, CAP_SYS_PTRACE,   CAP_SYS_MODULE,      CAP_SYS_RAWIO,
			CAP_SYS_BOOT,  CAP_BPF,          CAP_PERFMON,         CAP_CHECKPOINT_RESTORE,
			CAP_MAC_ADMIN, CAP_MAC_OVERRIDE, CAP_DAC_READ_SEARCH, /* open_by_handle_at passes by all that is mounted over */
};

static void deny_capabilities(int report)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data))
		child_fail(report, "capabilities");
	for (size_t i = 0; i < sizeof(capabilities_denied); i++) {
		unsigned int which = capabilities_denied[i];

		/* Without CAP_SETPCAP there is none to be had by exec either, but from files, as everywhere on the host. */
		if (prctl(PR_CAPBSET_DROP, which, 0, 0, 0) && errno != EINVAL && (errno != EPERM || geteuid() == 0))
			child_fail(report, "capabilities");
		data[CAP_TO_INDEX(which)].effective &= ~CAP_TO_MASK(which);
		data[CAP_TO_INDEX(which)].permitted &= ~CAP_TO_MASK(which);
		data[CAP_TO_INDEX(which)].inheritable &= ~CAP_TO_MASK(which); /* and with it, ambient */
	}
	if (syscall(SYS_capset, &header, data))
		child_fail(report, "capabilities");
}

static void become_user(const struct plan *plan, int report)
{
	gid_t groups[512];
	size_t count = plan->groups.count < 512 ? plan->groups.count : 512;

	if (!plan->user || !plan->group)
		return;
	for (size_t i = 0; i < count; i++)
		groups[i] = (gid_t)strtoul(plan->groups.items[i], NULL, 10);
	gid_t gid = (gid_t)strtoul(plan->group, NULL, 10);
	uid_t uid = (uid_t)strtoul(plan->user, NULL, 10);

	if (setgroups(count, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		child_fail(report, "user");
}

static void __attribute__((noreturn)) command_run(const struct run *run, int report)
{
	const struct plan *plan = &run->plan;

	deny_capabilities(report);
	become_user(plan, report);
	/* Should we be killed, and kloak too, nobody else would end the command. Cleared by setresuid, hence after it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int number = 1; number < NSIG; number++)
		if (number != SIGKILL && number != SIGSTOP)
			signal(number, number <= 64 && plan->ignored >> (number - 1) & 1 ? SIG_IGN : SIG_DFL);
	sigprocmask(SIG_SETMASK, &run->inherited, NULL);
	environ = plan->environment.items;
	execvp(plan->arguments.items[0], plan->arguments.items); /* searches the PATH of `environ` */
	child_fail(report, "exec");
}

static void command_start(struct run *run)
{
	struct failure failure;
	int report[2];
	ssize_t got;

	if (pipe2(report, O_CLOEXEC))
		fail("pipe");
	run->command = fork();
	if (run->command < 0)
		fail("fork");
	if (run->command == 0)
		command_run(run, report[1]);
	close(report[1]);
	/*
	 * Before the exec is done there is nothing to report but the start, so waiting here is right; yet kloak may die
	 * meanwhile, and a command whose exec is held would hold us.
	 */
	struct pollfd wait[2] = {{.fd = report[0], .events = POLLIN}, {.fd = k_control, .events = POLLRDHUP}};

	while (poll(wait, 2, -1) < 0 || !wait[0].revents)
		if (wait[1].revents & (POLLRDHUP | POLLHUP | POLLERR))
			kloak_died(run);
	got = read(report[0], &failure, sizeof(failure));
	close(report[0]);
	if (got == sizeof(failure)) {
		waitpid(run->command, NULL, 0);
		tell("failed %s %d\n", failure.step, failure.error);
		exit(k_own_failure);
	}
	tell("started %d\n", run->command);
}

static bool command_in_our_group(const struct run *run)
{
	return getpgid(run->command) == getpgrp();
}

/* The whole group has got a signal; the command too, unless it has left the group, as an interactive shell does. */
static void group_signalled(struct run *run, int number)
{
	run->seen_ms[number] = now_ms();
	if (!command_in_our_group(run))
		kill(run->command, number);
}

static void signals_read(struct run *run)
{
	struct signalfd_siginfo info;

	while (read(run->signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD && info.ssi_signo < NSIG)
			group_signalled(run, (int)info.ssi_signo);
}

/* Kloak has got a signal. If we have got it as well it was for the group, and the command has it already. */
static void kloak_signalled(struct run *run, int number)
{
	if (number <= 0 || number >= NSIG)
		return;
	signals_read(run);
	if (run->seen_ms[number] && now_ms() - run->seen_ms[number] < k_same_signal_ms)
		run->seen_ms[number] = 0;
	else
		kill(run->command, number);
}

static void line_obey(struct run *run, const char *line)
{
	int number;

	if (sscanf(line, "signal %d", &number) == 1)
		kloak_signalled(run, number);
}

static void control_read(struct run *run)
{
	char bytes[256];
	ssize_t got = recv(k_control, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		kloak_died(run);
	for (ssize_t i = 0; i < got; i++) {
		if (bytes[i] == '\n') {
			run->line[run->line_length] = 0;
			run->line_length = 0;
			line_obey(run, run->line);
		} else if (run->line_length < sizeof(run->line) - 1) {
			run->line[run->line_length++] = bytes[i];
		}
	}
}

/*
 * Kloak is what the shell sees: it stops and goes on with the command. From here, and not at a line's asking: by the time
 * that it was read the command may have gone on, and kloak would stay behind.
 */
static void kloak_signal(struct run *run, int number)
{
	if (number == SIGCONT)
		run->seen_ms[number] = now_ms(); /* it will say that it got one */
	if (getppid() == run->kloak)
		kill(run->kloak, number);
}

static void children_wait(struct run *run)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
		if (pid != run->command)
			continue; /* an orphan of the command */
		if (WIFSTOPPED(status))
			kloak_signal(run, SIGSTOP);
		else if (WIFCONTINUED(status))
			kloak_signal(run, SIGCONT);
		else
			report_and_exit(run, status);
	}
}

static void signals_take(struct run *run)
{
	static const int taken[] = {SIGCHLD, SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
				    SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++)
		sigaddset(&set, taken[i]);
	sigprocmask(SIG_BLOCK, &set, &run->inherited);
	run->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signals < 0)
		fail("signalfd");
}

static void namespaces_enter(struct run *run)
{
	struct stat status;

	run->host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (run->host_netns < 0 || unshare(CLONE_NEWNET | CLONE_NEWNS))
		fail("unshare");
	/* What the host mounts later is seen here; what is mounted here stays here. */
	if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL))
		fail("mount");
	if (stat("/proc/self/ns/net", &status))
		fail("proc");
	run->netns = status.st_ino;
	loopback_up();
}

static void covers_mount(const struct plan *plan)
{
	for (size_t i = 0; i < plan->covers.count; i++) {
		char *source = strdup(plan->covers.items[i]), *tab = source ? strchr(source, '\t') : NULL;

		if (!tab)
			fail("cover");
		*tab = 0;
		if (mount(source, tab + 1, NULL, MS_BIND, NULL))
			fail("cover");
		free(source);
	}
}

int main(void)
{
	struct run run = {.kloak = getppid()};

	if (fcntl(k_control, F_SETFD, FD_CLOEXEC)) {
		fputs("kloak-launch is a part of `kloak run` and is not started by hand.\n", stderr);
		return k_own_failure;
	}
	/* libuv hands over its end of the socket as it made it. */
	fcntl(k_control, F_SETFL, fcntl(k_control, F_GETFL) & ~O_NONBLOCK);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signals_take(&run);
	namespaces_enter(&run);
	tell("ready\n");
	plan_parse(&run.plan);
	run.link = (int)if_nametoindex("eth0");
	covers_mount(&run.plan);
	command_start(&run);
	for (;;) {
		struct pollfd wait[2] = {{.fd = k_control, .events = POLLIN}, {.fd = run.signals, .events = POLLIN}};

		if (poll(wait, 2, -1) < 0 && errno != EINTR)
			fail("poll");
		if (wait[1].revents)
			signals_read(&run);
		if (wait[0].revents)
			control_read(&run);
		/* Last: to hand on a signal of kloak's, control_read has read signals too, a SIGCHLD perhaps among them. */
		children_wait(&run);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's first process. The host's file system (virtiofs tag "host") becomes the root, under a layer of memory that
 * takes what is written; then the command runs, and the guest ends with it.
 *
 * The kernel's command line, through our environment: KLOAK_MODULES, the folder of this kernel's modules on the host;
 * KLOAK_COMMAND, a shell script there. The command's output and its result go to the second serial port.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int report = 2;

static void end(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void end(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vdprintf(report, format, arguments);
	va_end(arguments);
	dprintf(report, "\n");
	tcdrain(report);
	/* Under -no-reboot this ends the machine, without ACPI. */
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, NULL);
	for (;;)
		pause();
}

static void must(int result, const char *what)
{
	if (result < 0)
		end("guest: %s: %s", what, strerror(errno));
}

/* /modules/NN-name.ko, in the order in which they need each other. */
static void load_modules(void)
{
	char path[64];
	int i;

	for (i = 0; i < 100; i++) {
		int file;

		snprintf(path, sizeof(path), "/modules/%02d.ko", i);
		file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			return;
		must(syscall(SYS_finit_module, file, "", 0), path);
		close(file);
	}
}

static void mount_at(const char *type, const char *source, const char *target, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	must(mount(source, target, type, flags, options), target);
}

static void make_root(const char *modules)
{
	mount_at("virtiofs", "host", "/host", MS_RDONLY, NULL);
	mount_at("tmpfs", "tmpfs", "/layer", 0, "size=75%");
	mkdir("/layer/upper", 0755);
	mkdir("/layer/work", 0755);
	mount_at("overlay", "overlay", "/root", 0, "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work");
	must(mount("/dev", "/root/dev", NULL, MS_MOVE, NULL), "/dev");
	mount_at("proc", "proc", "/root/proc", 0, NULL);
	mount_at("sysfs", "sysfs", "/root/sys", 0, NULL);
	mount_at("cgroup2", "cgroup2", "/root/sys/fs/cgroup", 0, NULL);
	mount_at("bpf", "bpf", "/root/sys/fs/bpf", 0, NULL);
	mount_at("tracefs", "tracefs", "/root/sys/kernel/tracing", 0, NULL);
	mount_at("securityfs", "securityfs", "/root/sys/kernel/security", 0, NULL);
	mount_at("tmpfs", "tmpfs", "/root/run", 0, NULL);
	mount_at("tmpfs", "tmpfs", "/root/dev/shm", 0, NULL);
	mount_at("devpts", "devpts", "/root/dev/pts", 0, NULL);
	must(chdir("/root"), "/root");
	must(mount(".", "/", NULL, MS_MOVE, NULL), "root");
	must(chroot("."), "root");
	must(chdir("/"), "root");
	mkdir("/lib/modules", 0755);
	must(mount(modules, "/lib/modules", NULL, MS_BIND, NULL), modules);
}

int main(void)
{
	const char *modules = getenv("KLOAK_MODULES"), *command = getenv("KLOAK_COMMAND");
	struct termios raw;
	int status;
	pid_t child, ended;

	mkdir("/dev", 0755);
	if (mount("dev", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		end("guest: /dev: %s", strerror(errno));
	report = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
	must(report, "/dev/ttyS1");
	must(tcgetattr(report, &raw), "/dev/ttyS1");
	cfmakeraw(&raw);
	must(tcsetattr(report, TCSANOW, &raw), "/dev/ttyS1");
	if (!modules || !command)
		end("guest: KLOAK_MODULES and KLOAK_COMMAND must be on the kernel's command line");
	load_modules();
	make_root(modules);
	child = fork();
	must(child, "fork");
	if (!child) {
		setsid();
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(report, 1);
		dup2(report, 2);
		setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
		setenv("HOME", "/root", 1);
		execl("/bin/sh", "sh", command, NULL);
		_exit(127);
	}
	/* Orphans are ours to bury. */
	do
		ended = wait(&status);
	while (ended != child);
	end("guest: ended with %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

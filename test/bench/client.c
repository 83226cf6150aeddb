/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's client: one keep-alive HTTPS connection, one request after another, each timed.
 *
 *   client [--ca FILE] [--name HOST] [--proxy ADDRESS:PORT] [--header VARIABLE] [--upload BYTES]
 *          [--warm N] [--requests N] ADDRESS PORT
 *
 * With --header each request carries `Authorization: Bearer` and the variable's value. Prints one JSON object: the
 * times of all requests in nanoseconds, the CPU time of this process in microseconds over them, and the throughput of
 * the upload.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static SSL *ssl;

static void die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static unsigned long long now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (unsigned long long)time.tv_sec * 1000000000ull + (unsigned long long)time.tv_nsec;
}

static unsigned long long cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (unsigned long long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ull +
	       (unsigned long long)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int dial(const char *address, unsigned int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int dial_through(const char *proxy, const char *name, const char *port)
{
	char host[64], text[1024];
	const char *colon = strrchr(proxy, ':');
	size_t held = 0;
	int fd;

	snprintf(host, sizeof(host), "%.*s", (int)(colon - proxy), proxy);
	fd = dial(host, (unsigned int)atoi(colon + 1));
	held = (size_t)snprintf(text, sizeof(text), "CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\n\r\n", name, port, name,
				port);
	if (write(fd, text, held) != (ssize_t)held)
		die("proxy");
	for (held = 0; !memmem(text, held, "\r\n\r\n", 4);) {
		ssize_t got = read(fd, text + held, sizeof(text) - held);

		if (got <= 0)
			die("proxy");
		held += (size_t)got;
	}
	if (!memmem(text, held, " 200 ", 5)) {
		fprintf(stderr, "client: the proxy refused: %.*s\n", (int)held, text);
		exit(1);
	}
	return fd;
}

static void put(const char *bytes, size_t length)
{
	size_t written;

	if (SSL_write_ex(ssl, bytes, length, &written) != 1)
		die("SSL_write");
}

/* Answers are short and nothing follows them: one that has a whole header block and body ends what was read. */
static void take_answer(void)
{
	char text[8192];
	size_t held = 0, got;

	for (;;) {
		char *end;

		if (SSL_read_ex(ssl, text + held, sizeof(text) - 1 - held, &got) != 1)
			die("SSL_read");
		held += got;
		text[held] = 0;
		end = strstr(text, "\r\n\r\n");
		if (end) {
			char *field = strcasestr(text, "content-length:");
			size_t body = field && field < end ? strtoul(field + strlen("content-length:"), NULL, 10) : 0;

			if (strncmp(text, "HTTP/1.1 200", 12)) {
				fprintf(stderr, "client: answered %.40s\n", text);
				exit(1);
			}
			if (held >= (size_t)(end + 4 - text) + body)
				return;
		}
	}
}

static void upload(const char *name, unsigned long long bytes)
{
	static char block[256 * 1024];
	char head[512];
	unsigned long long left = bytes, start, cpu;

	memset(block, 'x', sizeof(block));
	put(head, (size_t)snprintf(head, sizeof(head),
				   "POST /upload HTTP/1.1\r\nHost: %s\r\nContent-Length: %llu\r\n\r\n", name, bytes));
	start = now_ns();
	cpu = cpu_us();
	while (left > 0) {
		size_t length = left < sizeof(block) ? (size_t)left : sizeof(block);

		put(block, length);
		left -= length;
	}
	take_answer();
	printf("{\"uploadNs\": %llu, \"cpuUs\": %llu, \"bytes\": %llu}\n", now_ns() - start, cpu_us() - cpu, bytes);
}

int main(int argc, char **argv)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	const char *name = "localhost", *proxy = NULL, *header = NULL, *value = NULL;
	unsigned long long bytes = 0, cpu = 0, *times;
	long requests = 1000, warm = 200;
	char *text;
	int length, at = 1;

	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2) {
		const char *option = argv[at] + 2, *argument = argv[at + 1];

		if (!strcmp(option, "ca") && SSL_CTX_load_verify_locations(context, argument, NULL) != 1)
			die("--ca");
		if (!strcmp(option, "name"))
			name = argument;
		if (!strcmp(option, "proxy"))
			proxy = argument;
		if (!strcmp(option, "header"))
			header = argument;
		if (!strcmp(option, "upload"))
			bytes = strtoull(argument, NULL, 10);
		if (!strcmp(option, "requests"))
			requests = strtol(argument, NULL, 10);
		if (!strcmp(option, "warm"))
			warm = strtol(argument, NULL, 10);
	}
	if (argc - at != 2 || (header && !(value = getenv(header)))) {
		fprintf(stderr, "client: [options] ADDRESS PORT\n");
		return 2;
	}
	ssl = SSL_new(context);
	SSL_set_tlsext_host_name(ssl, name);
	SSL_set1_host(ssl, name);
	SSL_set_fd(ssl,
		   proxy ? dial_through(proxy, name, argv[at + 1]) : dial(argv[at], (unsigned int)atoi(argv[at + 1])));
	if (SSL_connect(ssl) != 1)
		die("SSL_connect");
	if (bytes > 0) {
		upload(name, bytes);
		return 0;
	}
	if (value)
		length = asprintf(
			&text, "GET /v1/models HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n",
			name, value);
	else
		length = asprintf(&text, "GET /v1/models HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n\r\n", name);
	times = calloc((size_t)requests, sizeof(*times));
	for (long i = -warm; i < requests; i++) {
		unsigned long long start;

		if (i == 0)
			cpu = cpu_us();
		start = now_ns();
		put(text, (size_t)length);
		take_answer();
		if (i >= 0)
			times[i] = now_ns() - start;
	}
	cpu = cpu_us() - cpu;
	printf("{\"cpuUs\": %llu, \"ns\": [", cpu);
	for (long i = 0; i < requests; i++)
		printf(i ? ",%llu" : "%llu", times[i]);
	printf("]}\n");
	return 0;
}

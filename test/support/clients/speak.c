/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS client that does as a script on standard input says: which bytes are written by which call, when the traffic
 * key changes, what the ClientHello says. Prints the status line of each response.
 *
 *   speak [--sni NAME|none] [--ca FILE] [--tls 1.2|1.3] [--ciphers LIST] [--alpn NAME] [--ech] ADDRESS PORT
 *
 *   say TEXT      append TEXT to the buffer; knows \r \n \\ \xHH and ${VARIABLE}
 *   fill N        append N bytes of 0123456789abcdef…
 *   again N       append what the last say or fill appended, N more times
 *   send          one SSL_write of the buffer
 *   pieces N…     one SSL_write each for the first N bytes, the next …, and the rest
 *   expect N      read N responses to their end
 *   key-update    change the sending key
 *   renegotiate   TLS 1.2
 *   unreadable P  what is sealed from here on is not in the page table when it is: P is `all`, or `start`, its first page
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static char *buffer, *last;
static size_t buffer_length, last_length;
static char input[1 << 20];
static size_t input_length;

static void die(const char *what)
{
	fprintf(stderr, "speak: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void append(const char *bytes, size_t length)
{
	char *copy = malloc(length + 1);

	buffer = realloc(buffer, buffer_length + length + 1);
	if (!copy || !buffer)
		die("out of memory");
	memcpy(buffer + buffer_length, bytes, length);
	memcpy(copy, bytes, length);
	buffer_length += length;
	free(last);
	last = copy;
	last_length = length;
}

static void say(const char *text)
{
	size_t room = strlen(text) + 1, used = 0;
	char *out = malloc(room);

	while (out && *text) {
		if (*text == '\\' && text[1] == 'x') {
			char digits[3] = {text[2], text[3], 0};

			out[used++] = (char)strtol(digits, NULL, 16);
			text += 4;
		} else if (*text == '\\' && text[1]) {
			out[used++] = text[1] == 'r' ? '\r' : text[1] == 'n' ? '\n' : text[1];
			text += 2;
		} else if (*text == '$' && text[1] == '{') {
			const char *end = strchr(text, '}');
			char *name = end ? strndup(text + 2, (size_t)(end - text - 2)) : NULL;
			const char *value = name ? getenv(name) : NULL;

			if (!value)
				die("unknown variable in say");
			room += strlen(value);
			out = realloc(out, room);
			memcpy(out + used, value, strlen(value));
			used += strlen(value);
			text = end + 1;
			free(name);
		} else {
			out[used++] = *text++;
		}
	}
	append(out, used);
	free(out);
}

static void fill(size_t length)
{
	char *bytes = malloc(length + 1);

	for (size_t i = 0; i < length; i++)
		bytes[i] = "0123456789abcdef"[i % 16];
	append(bytes, length);
	free(bytes);
}

static void again(size_t count)
{
	char *bytes = malloc(last_length + 1);
	size_t length = last_length;

	memcpy(bytes, last, length);
	while (count-- > 0)
		append(bytes, length);
	free(bytes);
}

static void write_all(SSL *ssl, const char *bytes, size_t length)
{
	size_t written;

	if (length > 0 && SSL_write_ex(ssl, bytes, length, &written) != 1)
		die("SSL_write");
}

static void send_pieces(SSL *ssl, char *sizes)
{
	size_t sent = 0;

	for (char *size = strtok(sizes, " "); size; size = strtok(NULL, " ")) {
		size_t length = strtoul(size, NULL, 10);

		if (length > buffer_length - sent)
			length = buffer_length - sent;
		write_all(ssl, buffer + sent, length);
		sent += length;
	}
	write_all(ssl, buffer + sent, buffer_length - sent);
	buffer_length = 0;
}

/* Reads one response: its header block, and as many bytes as its Content-Length says. */
static void expect(SSL *ssl)
{
	for (;;) {
		char *end = memmem(input, input_length, "\r\n\r\n", 4);
		size_t got;

		if (end) {
			char *field = strcasestr(input, "\r\ncontent-length:");
			size_t all = (size_t)(end + 4 - input);

			if (field && field < end)
				all += strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
			if (input_length >= all) {
				printf("%.*s\n", (int)strcspn(input, "\r\n"), input);
				fflush(stdout);
				memmove(input, input + all, input_length - all);
				input_length -= all;
				input[input_length] = 0;
				return;
			}
		}
		if (SSL_read_ex(ssl, input + input_length, sizeof(input) - input_length - 1, &got) != 1)
			die("SSL_read");
		input_length += got;
		input[input_length] = 0;
	}
}

/*
 * Buffers that records are made in, in shared memory: there a page that has left the page table keeps what was written
 * to it, and comes back when it is next touched. One connection has two.
 */
static struct {
	char *start;
	size_t length;
} regions[8];
static const char *unreadable;

static void *allocate(size_t length, const char *file, int line)
{
	(void)file, (void)line;
	for (size_t i = 0; length > 16384 && i < sizeof(regions) / sizeof(*regions); i++) {
		void *start;

		if (regions[i].start)
			continue;
		start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (start == MAP_FAILED)
			return NULL;
		regions[i].start = start;
		regions[i].length = length;
		return start;
	}
	return malloc(length);
}

static void release(void *bytes, const char *file, int line)
{
	(void)file, (void)line;
	for (size_t i = 0; bytes && i < sizeof(regions) / sizeof(*regions); i++) {
		if (regions[i].start != bytes)
			continue;
		munmap(bytes, regions[i].length);
		regions[i].start = NULL;
		return;
	}
	free(bytes);
}

static void *reallocate(void *bytes, size_t length, const char *file, int line)
{
	for (size_t i = 0; bytes && i < sizeof(regions) / sizeof(*regions); i++) {
		void *copy;

		if (regions[i].start != bytes)
			continue;
		copy = malloc(length);
		if (copy)
			memcpy(copy, bytes, length < regions[i].length ? length : regions[i].length);
		release(bytes, file, line);
		return copy;
	}
	return realloc(bytes, length);
}

/* Asked when the text stands in its buffer, and before it is encrypted there. */
static size_t pad(SSL *ssl, int type, size_t length, void *argument)
{
	(void)ssl, (void)length, (void)argument;
	for (size_t i = 0; unreadable && type == SSL3_RT_APPLICATION_DATA && i < sizeof(regions) / sizeof(*regions);
	     i++)
		if (regions[i].start &&
		    madvise(regions[i].start, strcmp(unreadable, "all") ? 4096 : regions[i].length, MADV_DONTNEED))
			die("madvise");
	return 0;
}

static int dial(const char *address, const char *port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	bool is_v6 = inet_pton(AF_INET6, address, &v6.sin6_addr) == 1;
	int fd;

	if (!is_v6 && inet_pton(AF_INET, address, &v4.sin_addr) != 1)
		die("not an address");
	fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (fd < 0 ||
	    connect(fd, is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, is_v6 ? sizeof(v6) : sizeof(v4)))
		die("connect");
	return fd;
}

/* An encrypted_client_hello extension as clients send it for show (RFC 9849, GREASE): the server knows it not. */
static int add_ech(SSL *ssl, unsigned int type, unsigned int context, const unsigned char **out, size_t *length,
		   X509 *x, size_t chain, int *alert, void *argument)
{
	static const unsigned char ech[] = {0, 0, 1, 0, 1, 7, 0, 4, 1, 2, 3, 4, 0, 4, 5, 6, 7, 8};

	(void)ssl, (void)type, (void)context, (void)x, (void)chain, (void)alert, (void)argument;
	*out = ech;
	*length = sizeof(ech);
	return 1;
}

static void obey(SSL *ssl, char *line)
{
	char *argument = line + strcspn(line, " \n");

	line[strcspn(line, "\n")] = 0;
	if (*argument)
		*argument++ = 0;
	if (!*line || *line == '#')
		return;
	if (!strcmp(line, "say")) {
		say(argument);
	} else if (!strcmp(line, "fill")) {
		fill(strtoul(argument, NULL, 10));
	} else if (!strcmp(line, "again")) {
		again(strtoul(argument, NULL, 10));
	} else if (!strcmp(line, "send")) {
		write_all(ssl, buffer, buffer_length);
		buffer_length = 0;
	} else if (!strcmp(line, "pieces")) {
		send_pieces(ssl, argument);
	} else if (!strcmp(line, "expect")) {
		for (long count = strtol(argument, NULL, 10); count > 0; count--)
			expect(ssl);
	} else if (!strcmp(line, "key-update")) {
		if (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1 || SSL_do_handshake(ssl) != 1)
			die("SSL_key_update");
	} else if (!strcmp(line, "unreadable")) {
		unreadable = strcmp(argument, "all") ? "start" : "all";
	} else if (!strcmp(line, "renegotiate")) {
		if (SSL_renegotiate(ssl) != 1 || SSL_do_handshake(ssl) != 1)
			die("SSL_renegotiate");
	} else {
		errno = EINVAL;
		die(line);
	}
}

int main(int argc, char **argv)
{
	SSL_CTX *context;
	const char *sni = "none";
	char *line = NULL;
	size_t room = 0;
	int at = 1;
	SSL *ssl;

	if (CRYPTO_set_mem_functions(allocate, reallocate, release) != 1)
		die("CRYPTO_set_mem_functions");
	context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_record_padding_callback(context, pad);
	for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
		const char *option = argv[at] + 2;
		const char *value = strcmp(option, "ech") ? argv[++at] : NULL;

		if (!strcmp(option, "sni")) {
			sni = value;
		} else if (!strcmp(option, "ca")) {
			SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
			if (SSL_CTX_load_verify_locations(context, value, NULL) != 1)
				die("--ca");
		} else if (!strcmp(option, "tls")) {
			int version = strcmp(value, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;

			SSL_CTX_set_min_proto_version(context, version);
			SSL_CTX_set_max_proto_version(context, version);
		} else if (!strcmp(option, "ciphers")) {
			if (SSL_CTX_set_ciphersuites(context, value) != 1 &&
			    SSL_CTX_set_cipher_list(context, value) != 1)
				die("--ciphers");
		} else if (!strcmp(option, "alpn")) {
			unsigned char wire[256] = {(unsigned char)strlen(value)};

			memcpy(wire + 1, value, wire[0]);
			SSL_CTX_set_alpn_protos(context, wire, wire[0] + 1u);
		} else if (!strcmp(option, "ech")) {
			SSL_CTX_add_custom_ext(context, 0xfe0d, SSL_EXT_CLIENT_HELLO, add_ech, NULL, NULL, NULL, NULL);
		}
	}
	if (argc - at != 2) {
		fprintf(stderr, "speak: [options] ADDRESS PORT\n");
		return 2;
	}
	ssl = SSL_new(context);
	if (strcmp(sni, "none"))
		SSL_set_tlsext_host_name(ssl, sni);
	SSL_set_fd(ssl, dial(argv[at], argv[at + 1]));
	if (SSL_connect(ssl) != 1)
		die("SSL_connect");
	while (getline(&line, &room, stdin) > 0)
		obey(ssl, line);
	SSL_shutdown(ssl);
	SSL_free(ssl);
	SSL_CTX_free(context);
	free(line);
	free(buffer);
	free(last);
	return 0;
}

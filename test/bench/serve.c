/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's HTTPS server: a thread for each connection, a short answer to each request, bodies read and dropped.
 *
 *   serve CERTIFICATE KEY CIPHERSUITE    prints its port, ends when standard input does
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

struct session {
	SSL *ssl;
	size_t held;
	char bytes[65536];
};

static bool more(struct session *session)
{
	size_t got;

	if (session->held == sizeof(session->bytes) - 1)
		return false;
	if (SSL_read_ex(session->ssl, session->bytes + session->held, sizeof(session->bytes) - 1 - session->held,
			&got) != 1)
		return false;
	session->held += got;
	session->bytes[session->held] = 0;
	return true;
}

static bool serve_one(struct session *session)
{
	char *end, *field;
	size_t head, body = 0, written;
	bool expects_secret;

	session->bytes[session->held] = 0;
	while (!(end = memmem(session->bytes, session->held, "\r\n\r\n", 4)))
		if (!more(session))
			return false;
	end[2] = 0;
	field = strcasestr(session->bytes, "\r\ncontent-length:");
	if (field)
		body = strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
	/* A placeholder that arrives means that what is measured did not happen: the client hears it. */
	expects_secret = strcasestr(session->bytes, "\r\nauthorization: ") && strstr(session->bytes, "kloak:");
	head = (size_t)(end + 4 - session->bytes);
	session->held -= head;
	memmove(session->bytes, session->bytes + head, session->held);
	while (body > session->held) {
		body -= session->held;
		session->held = 0;
		if (!more(session))
			return false;
	}
	session->held -= body;
	memmove(session->bytes, session->bytes + body, session->held);
	if (expects_secret) {
		static const char refusal[] = "HTTP/1.1 401 Placeholder\r\nContent-Length: 0\r\n\r\n";

		return SSL_write_ex(session->ssl, refusal, sizeof(refusal) - 1, &written) == 1;
	}
	return SSL_write_ex(session->ssl, answer, sizeof(answer) - 1, &written) == 1;
}

static void *serve(void *argument)
{
	struct session *session = argument;

	if (SSL_accept(session->ssl) == 1)
		while (serve_one(session))
			;
	SSL_shutdown(session->ssl);
	close(SSL_get_fd(session->ssl));
	SSL_free(session->ssl);
	free(session);
	return NULL;
}

static void *end_with_input(void *unused)
{
	char byte;

	while (read(0, &byte, 1) > 0)
		;
	exit(0);
	return unused;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6};
	socklen_t length = sizeof(address);
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	int one = 1, listener = socket(AF_INET6, SOCK_STREAM, 0);
	pthread_t thread;

	if (argc != 4 || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_set_ciphersuites(context, argv[3]) != 1) {
		ERR_print_errors_fp(stderr);
		return 1;
	}
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 512) ||
	    getsockname(listener, (struct sockaddr *)&address, &length)) {
		perror("serve");
		return 1;
	}
	printf("%u\n", ntohs(address.sin6_port));
	fflush(stdout);
	pthread_create(&thread, NULL, end_with_input, NULL);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		struct session *session = calloc(1, sizeof(*session));

		if (fd < 0 || !session)
			return 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		session->ssl = SSL_new(context);
		SSL_set_fd(session->ssl, fd);
		if (pthread_create(&thread, NULL, serve, session))
			return 1;
		pthread_detach(thread);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS 1.3 client that lies to whoever listens to libcrypto. OpenSSL makes the handshake; the records are sealed here,
 * by AES-128-GCM of the program's own, while the functions of libcrypto are given whatever the script on standard input
 * says.
 *
 *   forger SNI ADDRESS PORT      ADDRESS and PORT as connect(2) takes them
 *   forger plain ADDRESS PORT    no handshake: records under a key that everybody knows
 *   forger hear KEY IV           no connection: only `hear`, with another's key
 *
 *   hear TEXT      give TEXT to libcrypto, as the next record to be sent
 *   send TEXT      seal TEXT and send it
 *   both TEXT      the one, then the other
 *   count N        N records of one byte that nobody hears
 *   pad N          zeros after the inner type of what the next line says
 *   type N         inner type of what the next line says
 *   ahead N        what is heard from here on counts as N records later than what is sent
 *   install        give libcrypto the key again, in a new context
 *   export         print key and IV, and wait for a line on the file FORGER_GO
 *   race N         N times: `both`, with a thread that keeps changing Host meanwhile
 * TEXT knows \r \n \\ and ${VARIABLE}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef unsigned char u8;

static u8 key[16], iv[12], round_keys[11][16], h[16], substitution[256];
static unsigned long sent, ahead, padding;
static u8 inner_type = 23;
static int connection = -1;
static EVP_CIPHER_CTX *listener;

static void die(const char *what)
{
	fprintf(stderr, "forger: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* AES-128 (FIPS 197) and GCM (SP 800-38D), as slow as they are short. */

static u8 twice(u8 x)
{
	return (u8)(x << 1 ^ (x & 0x80 ? 0x1b : 0));
}

static void make_substitution(void)
{
	u8 p = 1, q = 1;

	do {
		p = (u8)(p ^ twice(p));
		q ^= (u8)(q << 1);
		q ^= (u8)(q << 2);
		q ^= (u8)(q << 4);
		if (q & 0x80)
			q ^= 0x09;
		u8 x = q;

		for (int i = 1; i < 5; i++)
			x ^= (u8)(q << i | q >> (8 - i));
		substitution[p] = x ^ 0x63;
	} while (p != 1);
	substitution[0] = 0x63;
}

static void expand_key(void)
{
	u8 *w = round_keys[0], constant = 1;

	memcpy(w, key, 16);
	for (int i = 16; i < 176; i += 4) {
		u8 t[4];

		memcpy(t, w + i - 4, 4);
		if (i % 16 == 0) {
			u8 first = t[0];

			for (int j = 0; j < 3; j++)
				t[j] = substitution[t[j + 1]];
			t[3] = substitution[first];
			t[0] ^= constant;
			constant = twice(constant);
		}
		for (int j = 0; j < 4; j++)
			w[i + j] = w[i + j - 16] ^ t[j];
	}
}

static void encrypt_block(const u8 in[16], u8 out[16])
{
	u8 s[16], t[16];

	for (int i = 0; i < 16; i++)
		s[i] = in[i] ^ round_keys[0][i];
	for (int round = 1; round <= 10; round++) {
		for (int i = 0; i < 16; i++)
			t[i] = substitution[s[(i * 5) % 16]];
		for (int c = 0; c < 16; c += 4) {
			u8 all = t[c] ^ t[c + 1] ^ t[c + 2] ^ t[c + 3];

			for (int r = 0; r < 4; r++) {
				u8 mixed = t[c + r] ^ all ^ twice(t[c + r] ^ t[c + (r + 1) % 4]);

				s[c + r] = (round < 10 ? mixed : t[c + r]) ^ round_keys[round][c + r];
			}
		}
	}
	memcpy(out, s, 16);
}

static void ghash_block(u8 sum[16], const u8 *block, size_t length)
{
	u8 v[16], z[16] = {0};

	for (size_t i = 0; i < length; i++)
		sum[i] ^= block[i];
	memcpy(v, h, 16);
	for (int bit = 0; bit < 128; bit++) {
		u8 carry = v[15] & 1;

		if (sum[bit / 8] & 0x80 >> bit % 8)
			for (int i = 0; i < 16; i++)
				z[i] ^= v[i];
		for (int i = 15; i > 0; i--)
			v[i] = (u8)(v[i] >> 1 | v[i - 1] << 7);
		v[0] = (u8)(v[0] >> 1) ^ (carry ? 0xe1 : 0);
	}
	memcpy(sum, z, 16);
}

static void set_key(void)
{
	const u8 zero[16] = {0};

	make_substitution();
	expand_key();
	encrypt_block(zero, h);
}

/* text: inner type and padding included. out: header, ciphertext, tag. */
static void seal(const u8 nonce[12], const u8 *text, size_t length, u8 *out)
{
	u8 counter[16], stream[16], sum[16] = {0}, lengths[16] = {0}, *cipher = out + 5;
	u8 header[5] = {23, 3, 3, (u8)((length + 16) >> 8), (u8)(length + 16)};

	memcpy(out, header, 5);
	memcpy(counter, nonce, 12);
	ghash_block(sum, header, 5);
	for (size_t i = 0; i < length; i += 16) {
		size_t n = length - i < 16 ? length - i : 16;
		unsigned int block = (unsigned int)(i / 16) + 2;
		u8 tail[4] = {(u8)(block >> 24), (u8)(block >> 16), (u8)(block >> 8), (u8)block};

		memcpy(counter + 12, tail, 4);
		encrypt_block(counter, stream);
		for (size_t j = 0; j < n; j++)
			cipher[i + j] = text[i + j] ^ stream[j];
		ghash_block(sum, cipher + i, n);
	}
	lengths[7] = 5 * 8;
	for (int i = 0; i < 4; i++)
		lengths[12 + i] = (u8)((length * 8) >> (24 - 8 * i));
	ghash_block(sum, lengths, 16);
	memcpy(counter + 12, "\0\0\0\1", 4);
	encrypt_block(counter, stream);
	for (int i = 0; i < 16; i++)
		cipher[length + i] = sum[i] ^ stream[i];
}

static void make_nonce(unsigned long sequence, u8 nonce[12])
{
	memcpy(nonce, iv, 12);
	for (int i = 0; i < 8; i++)
		nonce[11 - i] ^= (u8)(sequence >> (8 * i));
}

/* The calls of libssl, with a text of our choice. */
static void install(void)
{
	listener = EVP_CIPHER_CTX_new();
	if (EVP_CipherInit_ex(listener, EVP_aes_128_gcm(), NULL, key, NULL, 1) != 1)
		die("EVP_CipherInit_ex");
}

static void hear(const u8 *text, size_t length, u8 *out)
{
	u8 nonce[12], header[5] = {23, 3, 3, (u8)((length + 16) >> 8), (u8)(length + 16)};
	int n;

	make_nonce(sent + ahead, nonce);
	if (EVP_CipherInit_ex(listener, NULL, NULL, NULL, nonce, 1) != 1 ||
	    EVP_CipherUpdate(listener, NULL, &n, header, 5) != 1 ||
	    EVP_CipherUpdate(listener, out + 5, &n, text, (int)length) != 1 ||
	    EVP_CipherFinal_ex(listener, out + 5 + length, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(listener, EVP_CTRL_AEAD_GET_TAG, 16, out + 5 + length) != 1)
		die("EVP_CipherUpdate");
	memcpy(out, header, 5);
}

static void put(const u8 *record, size_t length)
{
	if (write(connection, record, length) != (ssize_t)length)
		die("write");
	sent++;
}

static void send_own(const u8 *text, size_t length)
{
	u8 nonce[12], *record = malloc(length + 21);

	make_nonce(sent, nonce);
	seal(nonce, text, length, record);
	put(record, length + 21);
	free(record);
}

/* The text of a line, its inner type and padding. */
static u8 *read_text(const char *line, size_t *length)
{
	u8 *out = calloc(1, strlen(line) * 64 + padding + 65536);
	size_t used = 0;

	while (*line) {
		if (*line == '\\') {
			out[used++] = line[1] == 'r' ? '\r' : line[1] == 'n' ? '\n' : (u8)line[1];
			line += 2;
		} else if (line[0] == '$' && line[1] == '{') {
			const char *end = strchr(line, '}');
			char *name = strndup(line + 2, (size_t)(end - line - 2));
			const char *value = getenv(name);

			if (!value)
				die(name);
			memcpy(out + used, value, strlen(value));
			used += strlen(value);
			line = end + 1;
			free(name);
		} else {
			out[used++] = (u8)*line++;
		}
	}
	out[used++] = inner_type;
	*length = used + padding;
	padding = 0;
	inner_type = 23;
	return out;
}

static u8 *raced;
static bool racing;

static void *race_thread(void *argument)
{
	(void)argument;
	while (__atomic_load_n(&racing, __ATOMIC_RELAXED)) {
		__atomic_store_n(raced, 'A', __ATOMIC_RELAXED);
		__atomic_store_n(raced, 'b', __ATOMIC_RELAXED);
	}
	return NULL;
}

/* OpenSSL seals here, out of a buffer in which Host's first letter is now this, now that. */
static void race(u8 *text, size_t length, unsigned long times)
{
	u8 *out = malloc(length + 64);
	pthread_t thread;

	raced = memmem(text, length, "Host: ", 6);
	if (!raced)
		die("no Host to race for");
	raced += 6;
	racing = true;
	if (pthread_create(&thread, NULL, race_thread, NULL))
		die("pthread_create");
	for (unsigned long i = 0; i < times; i++) {
		hear(text, length, out);
		put(out, length + 21);
	}
	__atomic_store_n(&racing, false, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	free(out);
}

static void print_hex(const u8 *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		printf("%02x", bytes[i]);
}

static void read_hex(const char *text, u8 *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (sscanf(text + 2 * i, "%2hhx", &bytes[i]) != 1)
			die("not hexadecimal");
}

static void obey(char *line)
{
	char *argument = line + strcspn(line, " \n");
	size_t length;
	u8 *text, *out;

	line[strcspn(line, "\n")] = 0;
	if (*argument)
		*argument++ = 0;
	if (!*line)
		return;
	if (!strcmp(line, "pad")) {
		padding = strtoul(argument, NULL, 10);
		return;
	}
	if (!strcmp(line, "type")) {
		inner_type = (u8)atoi(argument);
		return;
	}
	if (!strcmp(line, "ahead")) {
		ahead = strtoul(argument, NULL, 10);
		return;
	}
	if (!strcmp(line, "install")) {
		install();
		return;
	}
	if (!strcmp(line, "export")) {
		char go;
		FILE *file;

		print_hex(key, sizeof(key));
		printf(" ");
		print_hex(iv, sizeof(iv));
		printf("\n");
		fflush(stdout);
		file = fopen(getenv("FORGER_GO"), "r");
		if (!file || fread(&go, 1, 1, file) != 1)
			die("FORGER_GO");
		fclose(file);
		return;
	}
	if (!strcmp(line, "count")) {
		const u8 byte[2] = {'x', 23};

		for (unsigned long n = strtoul(argument, NULL, 10); n > 0; n--)
			send_own(byte, sizeof(byte));
		return;
	}
	if (!strcmp(line, "race")) {
		char *end;
		unsigned long times = strtoul(argument, &end, 10);

		text = read_text(end + 1, &length);
		race(text, length, times);
		free(text);
		return;
	}
	text = read_text(argument, &length);
	out = malloc(length + 64);
	if (!strcmp(line, "hear") || !strcmp(line, "both"))
		hear(text, length, out);
	if (!strcmp(line, "send") || !strcmp(line, "both"))
		send_own(text, length);
	free(text);
	free(out);
}

/* HKDF-Expand-Label without context (RFC 8446 7.1), for less than one hash. */
static void derive(const u8 secret[32], const char *label, u8 *out, size_t length)
{
	u8 info[64] = {0, (u8)length, (u8)(6 + strlen(label))}, digest[32];
	size_t used = 3 + (size_t)sprintf((char *)info + 3, "tls13 %s", label);

	info[used++] = 0;
	info[used++] = 1;
	if (!HMAC(EVP_sha256(), secret, 32, info, used, digest, NULL))
		die("HMAC");
	memcpy(out, digest, length);
}

static void key_log(const SSL *ssl, const char *line)
{
	u8 secret[32];

	(void)ssl;
	if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24))
		return;
	read_hex(strrchr(line, ' ') + 1, secret, sizeof(secret));
	derive(secret, "key", key, sizeof(key));
	derive(secret, "iv", iv, sizeof(iv));
}

static void dial(const char *address, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
	int one = 1;

	connection = socket(AF_INET, SOCK_STREAM, 0);
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || connect(connection, (struct sockaddr *)&to, sizeof(to)))
		die("connect");
	setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void handshake(const char *sni)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	SSL *ssl;

	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
	SSL_CTX_set_keylog_callback(context, key_log);
	ssl = SSL_new(context);
	SSL_set_tlsext_host_name(ssl, sni);
	SSL_set_fd(ssl, connection);
	if (SSL_connect(ssl) != 1)
		die("SSL_connect");
}

int main(int argc, char **argv)
{
	char *line = NULL, rest[4096];
	size_t room = 0;

	if (argc != 4)
		return 2;
	if (!strcmp(argv[1], "hear")) {
		read_hex(argv[2], key, sizeof(key));
		read_hex(argv[3], iv, sizeof(iv));
	} else {
		dial(argv[2], argv[3]);
		if (strcmp(argv[1], "plain"))
			handshake(argv[1]);
	}
	set_key();
	install();
	while (getline(&line, &room, stdin) > 0)
		obey(line);
	free(line);
	if (connection >= 0) {
		shutdown(connection, SHUT_WR);
		while (read(connection, rest, sizeof(rest)) > 0)
			;
	}
	return 0;
}

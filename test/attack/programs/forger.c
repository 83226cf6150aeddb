/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS 1.3 client that lies to whoever listens to libcrypto. OpenSSL makes the handshake; the records are sealed here,
 * by AES-128-GCM of the program's own, while the functions of libcrypto are given whatever the script on standard input
 * says.
 *
 *   forger SNI ADDRESS PORT      ADDRESS and PORT as connect(2) takes them
 *   forger plain ADDRESS PORT    no handshake: records under a key that everybody knows
 *   forger hear KEY IV           no connection: only `hear`, with another's key
 * FORGER_PORT in the environment: the port to connect from.
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
 *   ttl N          of what the socket sends from here on
 *   instead HOW TEXT   seal TEXT as the record that was sent last, and send it in its place: in a frame with N VLAN tags
 *                  (tags N), or from a raw socket (raw 0). What the socket has sent must not have arrived: ttl 1
 *   urgent TEXT    a heard record of 5891 bytes that becomes another, which begins with TEXT, to who takes urgent bytes
 *                  out of the stream
 *   race N         N times: `both`, with a thread that keeps changing Host meanwhile
 * TEXT knows \r \n \\ and ${VARIABLE}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

/*
 * A segment in place of another: the frame that left last is the model, headers and all. Our socket's own copy has gone
 * no further than the host, and is not sent again once the peer acknowledges these numbers.
 */
static int tap = -1;

static unsigned int sum_words(const u8 *bytes, size_t length, unsigned int sum)
{
	for (size_t i = 0; i < length; i++)
		sum += (unsigned int)bytes[i] << (i % 2 ? 0 : 8);
	return sum;
}

static void put_sum(u8 *at, unsigned int sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	at[0] = (u8)(~sum >> 8);
	at[1] = (u8)~sum;
}

/* The last frame with data that this connection has sent. */
static size_t last_frame(u8 *frame, size_t room)
{
	struct sockaddr_in own;
	socklen_t size = sizeof(own);
	size_t found = 0;
	u8 next[4096];
	ssize_t n;

	getsockname(connection, (struct sockaddr *)&own, &size);
	while ((n = recv(tap, next, sizeof(next), MSG_DONTWAIT)) > 0) {
		if (n < 54 || next[12] != 8 || next[13] || next[23] != IPPROTO_TCP ||
		    memcmp(next + 34, &own.sin_port, 2) || memcmp(next + 26, &own.sin_addr, 4))
			continue;
		if ((size_t)n <= 14 + 20u + (size_t)(next[46] >> 4) * 4 || (size_t)n > room)
			continue;
		memcpy(frame, next, (size_t)n);
		found = (size_t)n;
	}
	return found;
}

static void send_instead(const char *how, unsigned long number, const u8 *text, size_t length)
{
	u8 frame[4096], out[4096 + 64], nonce[12], *ip = frame + 14, *tcp = ip + 20, *payload;
	size_t all = last_frame(frame, sizeof(frame)), header;

	if (!all)
		die("no frame of this connection was seen");
	header = (size_t)(tcp[12] >> 4) * 4;
	payload = tcp + header;
	if (all - 34 - header != length + 21) {
		fprintf(stderr, "forger: a record of %zu bytes instead of %zu\n", length + 21, all - 34 - header);
		exit(1);
	}
	make_nonce(sent - 1, nonce);
	seal(nonce, text, length, payload);
	ip[8] = 64;
	ip[10] = ip[11] = tcp[16] = tcp[17] = 0;
	put_sum(ip + 10, sum_words(ip, 20, 0));
	put_sum(tcp + 16, sum_words(tcp, all - 34, sum_words(ip + 12, 8, IPPROTO_TCP + (unsigned int)(all - 34))));
	if (!strcmp(how, "tags")) {
		struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("eth0")};
		size_t used = 12;

		memcpy(out, frame, 12);
		for (unsigned long i = 0; i < number; i++, used += 4)
			memcpy(out + used, "\x81\0\0\0", 4);
		memcpy(out + used, frame + 12, all - 12);
		if (sendto(tap, out, used + all - 12, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			die("sendto");
	} else {
		struct sockaddr_in peer;
		socklen_t size = sizeof(peer);
		int raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP), one = 1;

		getpeername(connection, (struct sockaddr *)&peer, &size);
		if (raw < 0 || setsockopt(raw, IPPROTO_IP, IP_HDRINCL, &one, sizeof(one)) ||
		    connect(raw, (struct sockaddr *)&peer, sizeof(peer)) || send(raw, ip, all - 14, 0) < 0)
			die("raw socket");
		close(raw);
	}
}

/* What is in the socket has been acknowledged, and the peer has had a moment to read it. */
static void settle(void)
{
	int queued = 1;

	for (int i = 0; queued && i < 1500; i++) {
		ioctl(connection, SIOCOUTQ, &queued);
		poll(NULL, 0, queued ? 1 : 4);
	}
}

/*
 * Wire: 17 03 03 17 03 | 03 hh ll, other record's ciphertext and tag, the rest, tag. Each byte of the first three and of
 * the rest and tag is sent as urgent, and lost to the reader, for whom the record begins at the length: 17 03 | 03 hh ll.
 */
static void urgent(const u8 *text, size_t length)
{
	enum { k_fragment = 0x1703, k_lost = 220, k_inner = 5 + k_fragment - 3 - k_lost - 5 };
	static u8 inner[5 + k_inner], wanted[5 + k_fragment], plain[k_fragment], out[k_fragment + 64], stream[16];
	u8 nonce[12], counter[16];

	if (length > k_inner - 16)
		die("text too long");
	/* The record that arrives. */
	memset(plain, 'z', sizeof(plain));
	memcpy(plain, text, length - 1);
	plain[k_inner - 17] = 23;
	make_nonce(sent, nonce);
	seal(nonce, plain, k_inner - 16, inner);
	/* seal has written the true header: it is what the peer takes for the record's. */
	memcpy(wanted + 5, inner + 2, 3);
	memcpy(wanted + 8, inner + 5, k_inner);
	/* The record that is heard: whatever makes that ciphertext. */
	memcpy(counter, nonce, 12);
	for (size_t i = 0; i < k_fragment - 16; i += 16) {
		unsigned int block = (unsigned int)(i / 16) + 2;
		u8 tail[4] = {(u8)(block >> 24), (u8)(block >> 16), (u8)(block >> 8), (u8)block};

		memcpy(counter + 12, tail, 4);
		encrypt_block(counter, stream);
		for (size_t j = 0; j < 16 && i + j < k_fragment - 16; j++)
			plain[i + j] = wanted[5 + i + j] ^ stream[j];
	}
	plain[k_fragment - 17] = 23;
	hear(plain, k_fragment - 16, out);
	settle();
	for (size_t i = 0; i < 3; i++, settle())
		if (send(connection, out + i, 1, MSG_OOB) != 1)
			die("send");
	if (send(connection, out + 3, k_fragment + 2 - k_lost, 0) != k_fragment + 2 - k_lost)
		die("send");
	settle();
	for (size_t i = k_fragment + 5 - k_lost; i < k_fragment + 5; i++, settle())
		if (send(connection, out + i, 1, MSG_OOB) != 1)
			die("send");
	sent++;
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
	if (!strcmp(line, "ttl")) {
		int ttl = atoi(argument);

		settle();
		if (setsockopt(connection, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)))
			die("IP_TTL");
		return;
	}
	if (!strcmp(line, "instead")) {
		char *number = argument + strcspn(argument, " "), *end;
		unsigned long n = strtoul(number, &end, 10);

		*number = 0;
		text = read_text(end + 1, &length);
		send_instead(argument, n, text, length);
		free(text);
		return;
	}
	if (!strcmp(line, "urgent")) {
		text = read_text(argument, &length);
		urgent(text, length);
		free(text);
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
	struct sockaddr_in from = {.sin_family = AF_INET};
	int one = 1;
	const char *port_of_own = getenv("FORGER_PORT");

	connection = socket(AF_INET, SOCK_STREAM, 0);
	tap = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)); /* -1 without CAP_NET_RAW */
	setsockopt(connection, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (port_of_own) {
		from.sin_port = htons((unsigned short)atoi(port_of_own));
		if (bind(connection, (struct sockaddr *)&from, sizeof(from)))
			die("bind");
	}
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

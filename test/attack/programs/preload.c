/* SPDX-License-Identifier: Apache-2.0 */
/* Loaded before libssl and libcrypto: writes all that they are given to the file PRELOAD_LOG, and hands it on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <unistd.h>

static void note(const void *bytes, long length)
{
	int file = open(getenv("PRELOAD_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0666);

	if (file < 0 || length < 0 || write(file, bytes, (size_t)length) != length)
		abort();
	close(file);
}

int SSL_write(SSL *ssl, const void *bytes, int length)
{
	int (*next)(SSL *, const void *, int) = (int (*)(SSL *, const void *, int))dlsym(RTLD_NEXT, "SSL_write");

	note(bytes, length);
	return next(ssl, bytes, length);
}

int EVP_CipherUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *written, const unsigned char *in, int length)
{
	int (*next)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int) =
		(int (*)(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int))dlsym(
			RTLD_NEXT, "EVP_CipherUpdate");
	int result;

	note(in, length);
	result = next(context, out, written, in, length);
	if (out)
		note(out, *written);
	return result;
}

ssize_t send(int socket, const void *bytes, size_t length, int flags)
{
	ssize_t (*next)(int, const void *, size_t, int) =
		(ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");

	note(bytes, (long)length);
	return next(socket, bytes, length, flags);
}

/* One request by wolfSSL, linked statically: TLS code that nobody hooks. ADDRESS PORT NAME; the key is in $SECRET. */
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	char text[1024];
	WOLFSSL_CTX *context;
	WOLFSSL *tls;
	int length, fd;

	if (argc != 4)
		return 2;
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	to.sin_port = htons(atoi(argv[2]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return 3;
	wolfSSL_Init();
	context = wolfSSL_CTX_new(wolfTLS_client_method());
	wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_NONE, NULL);
	tls = wolfSSL_new(context);
	wolfSSL_UseSNI(tls, WOLFSSL_SNI_HOST_NAME, argv[3], strlen(argv[3]));
	wolfSSL_set_fd(tls, fd);
	length = snprintf(text, sizeof(text), "GET /SECRET HTTP/1.1\r\nHost: %s:%s\r\nAuthorization: Bearer %s\r\n\r\n",
			  argv[3], argv[2], getenv("SECRET"));
	if (wolfSSL_write(tls, text, length) != length)
		return 4;
	length = wolfSSL_read(tls, text, sizeof(text));
	return length > 12 && !memcmp(text, "HTTP/1.1 200", 12) ? 0 : 5;
}

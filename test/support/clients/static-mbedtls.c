/* One request by Mbed TLS, linked statically: TLS code that nobody hooks. ADDRESS PORT NAME; the key is in $SECRET. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	mbedtls_ctr_drbg_context random;
	mbedtls_entropy_context entropy;
	mbedtls_ssl_config config;
	mbedtls_net_context net;
	mbedtls_ssl_context tls;
	char text[1024];
	int length;

	if (argc != 4)
		return 2;
	mbedtls_net_init(&net);
	mbedtls_ssl_init(&tls);
	mbedtls_ssl_config_init(&config);
	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&random);
	if (mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0) ||
	    mbedtls_net_connect(&net, argv[1], argv[2], MBEDTLS_NET_PROTO_TCP) ||
	    mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
					MBEDTLS_SSL_PRESET_DEFAULT))
		return 3;
	mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
	mbedtls_ssl_setup(&tls, &config);
	mbedtls_ssl_set_hostname(&tls, argv[3]);
	mbedtls_ssl_set_bio(&tls, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
	length = snprintf(text, sizeof(text), "GET /SECRET HTTP/1.1\r\nHost: %s:%s\r\nAuthorization: Bearer %s\r\n\r\n",
			  argv[3], argv[2], getenv("SECRET"));
	if (mbedtls_ssl_write(&tls, (unsigned char *)text, length) != length)
		return 4;
	length = mbedtls_ssl_read(&tls, (unsigned char *)text, sizeof(text));
	return length > 12 && !memcmp(text, "HTTP/1.1 200", 12) ? 0 : 5;
}

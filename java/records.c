/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * libkloak-java.so: the file in which the kernel hears what the JVM is about to seal (base/sun/security/ssl/KloakRecords.java). What
 * little of JNI it needs is declared here, so that it is built without a JDK.
 */
#include <stdint.h>
#include <string.h>

#define exported __attribute__((visibility("default")))

/* JNI specification, chapter 4: the table of functions. */
enum { k_get_direct_buffer_address = 230 };

typedef void *(*get_direct_buffer_address)(void *environment, void *buffer);

exported int64_t Java_sun_security_ssl_KloakRecords_address(void *environment, void *class, void *buffer)
{
	void *const *functions = *(void *const *const *)environment;

	return (intptr_t)((get_direct_buffer_address)functions[k_get_direct_buffer_address])(environment, buffer);
}

/* struct java_record of bpf/cipher/java.bpf.c, before the text */
enum { k_text_at = 64 };

/* The nop at its start is an instruction that the kernel emulates, so a hit costs least. */
exported __attribute__((patchable_function_entry(1))) void
Java_sun_security_ssl_KloakRecords_seal(void *environment, void *class, int64_t record, int32_t length)
{
	memset((void *)(intptr_t)record, 0, k_text_at + (size_t)length);
}

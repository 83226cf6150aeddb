/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Java's own TLS (JSSE, package sun.security.ssl), 17 and later. Its code is compiled at run time and lies in no file, so
 * an agent in the JVM (java/) hands each record that is about to be sealed to an empty function of libkloak-java.so:
 *
 *     Java_sun_security_ssl_KloakRecords_seal(JNIEnv *, jclass, jlong record, jint length)
 *
 * One hit tells all there is to know. What the agent says is as good as what any library says: a claim, to be proven.
 * TLS 1.3 has 16 bytes of padding behind each inner type (sun.security.ssl.OutputRecord.T13PaddingHolder).
 */
#include "../core.h"
#include "../maps/workloads.h"
#include "whole.h"

KLOAK_LICENSE;

/* What `record` points to: java/base/sun/security/ssl/KloakRecords.java. The text follows. */
struct java_record {
	__u8 key[32]; /* of AES-128 16 */
	struct nonce nonce;
	__u8 aad[k_aad_tls12];
	__u8 aad_length;
	__u8 algorithm; /* enum cipher_algorithm */
	__u8 _pad[5];
};

static __noinline bool java_read(__u64 address, __u32 length, struct whole_record *record)
{
	struct java_record said;

	if (!length || length > k_text_max || bpf_probe_read_user(&said, sizeof(said), (void *)address))
		return false;
	record->text = address + sizeof(said);
	record->length = length;
	record->algorithm = said.algorithm;
	if (!whole_frame(record, address + __builtin_offsetof(struct java_record, aad), said.aad_length))
		return false;
	memcpy(&record->key, said.key, sizeof(record->key));
	record->nonce = said.nonce;
	switch (said.algorithm) {
	case cipher_aes_128_gcm:
		memset((__u8 *)&record->key + 16, 0, 16);
		return true;
	case cipher_aes_256_gcm:
		return true;
	case cipher_chacha20_poly1305:
		whole_fixed_nonce(record);
		return true;
	default:
		return false;
	}
}

/* Java_sun_security_ssl_KloakRecords_seal */
SEC("uprobe")
int java_seal(struct pt_regs *ctx)
{
	__u32 workload = current_workload();
	struct whole_record record = {};

	if (workload && java_read(argument_3(ctx), argument_4(ctx), &record) &&
	    whole_order(&record, workload, stack_java))
		bpf_tail_call(ctx, &seal_steps, seal_step_record);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
package sun.security.ssl;

import java.nio.ByteBuffer;
import java.security.InvalidAlgorithmParameterException;
import java.security.InvalidKeyException;
import java.security.Key;
import java.security.SecureRandom;
import java.security.spec.AlgorithmParameterSpec;
import java.util.concurrent.ConcurrentLinkedQueue;
import javax.crypto.BadPaddingException;
import javax.crypto.Cipher;
import javax.crypto.IllegalBlockSizeException;
import javax.crypto.ShortBufferException;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;

/**
 * What the classes that seal records call instead of their cipher: the cipher is called all the same, and what it is about
 * to seal is handed to {@link #seal}, before which the kernel listens.
 *
 * <p>One class, of their own package: io.getkloak.agent.Sealers defines it there.
 */
final class KloakRecords {
    /* struct java_record of bpf/cipher/java.bpf.c */
    private static final int NONCE_AT = 32;
    private static final int AAD_AT = 44;
    private static final int AAD_LENGTH_AT = 57;
    private static final int ALGORITHM_AT = 58;
    private static final int TEXT_AT = 64;
    /* enum cipher_algorithm of bpf/types/common.h */
    private static final byte AES_128_GCM = 1;
    private static final byte AES_256_GCM = 2;
    private static final byte CHACHA20_POLY1305 = 3;
    /** RFC 8446 5.1: 2^14 bytes; and what stands behind them in TLS 1.3. */
    private static final int TEXT_MAX = (1 << 14) + 256;
    private static final int KEY_MAX = 32;
    private static final int NONCE_BYTES = 12;
    private static final int AAD_MAX = 13;

    /** As many as threads have ever sealed at once. Not one for each thread: there may be a million virtual ones. */
    private static final ConcurrentLinkedQueue<ByteBuffer> idle = new ConcurrentLinkedQueue<>();

    /** What a thread has told its cipher of the next record. */
    private static final ThreadLocal<KloakRecords> begun = new ThreadLocal<>();

    private Cipher cipher;
    private Key key;
    private AlgorithmParameterSpec parameters;
    private byte[] aad;

    private KloakRecords() {}

    /** Here, for the library belongs to the loader of who asks for it. */
    static void load(String library) {
        System.load(library);
    }

    static void init(
            Cipher cipher, int mode, Key key, AlgorithmParameterSpec parameters, SecureRandom random)
            throws InvalidKeyException, InvalidAlgorithmParameterException {
        cipher.init(mode, key, parameters, random);
        KloakRecords record = begun.get();
        if (record == null) begun.set(record = new KloakRecords());
        record.note(cipher, key, parameters);
    }

    static void updateAAD(Cipher cipher, byte[] aad) {
        cipher.updateAAD(aad);
        KloakRecords record = begun.get();
        if (record != null && record.cipher == cipher) record.aad = aad;
    }

    static int doFinal(Cipher cipher, ByteBuffer text, ByteBuffer output)
            throws ShortBufferException, IllegalBlockSizeException, BadPaddingException {
        KloakRecords record = begun.get();
        if (record != null && record.cipher == cipher && record.aad != null) {
            try {
                record.hand(text);
            } catch (RuntimeException unheard) {
                // Its placeholders go out as they are; the connection must not suffer.
            }
            record.note(null, null, null);
        }
        return cipher.doFinal(text, output);
    }

    private void note(Cipher cipher, Key key, AlgorithmParameterSpec parameters) {
        this.cipher = cipher;
        this.key = key;
        this.parameters = parameters;
        aad = null;
    }

    private void hand(ByteBuffer text) {
        byte[] secret = key.getEncoded();
        byte[] nonce = nonceOf(parameters);
        // A key that its hardware keeps to itself is not to be had.
        if (secret == null || secret.length > KEY_MAX || nonce.length != NONCE_BYTES) return;
        if (aad.length > AAD_MAX || text.remaining() > TEXT_MAX) return;
        byte algorithm = algorithmOf(cipher.getAlgorithm(), secret.length);
        if (algorithm == 0) return;
        // Memory that the garbage collector does not move.
        ByteBuffer buffer = idle.poll();
        if (buffer == null) buffer = ByteBuffer.allocateDirect(TEXT_AT + TEXT_MAX);
        buffer.clear().put(secret).put(NONCE_AT, nonce).put(AAD_AT, aad);
        buffer.put(AAD_LENGTH_AT, (byte) aad.length).put(ALGORITHM_AT, algorithm);
        buffer.position(TEXT_AT).put(text.duplicate());
        seal(address(buffer), text.remaining());
        idle.offer(buffer);
    }

    private static byte[] nonceOf(AlgorithmParameterSpec parameters) {
        if (parameters instanceof GCMParameterSpec) return ((GCMParameterSpec) parameters).getIV();
        return ((IvParameterSpec) parameters).getIV();
    }

    /** 0: another. Of AES the key's length tells which. */
    private static byte algorithmOf(String cipher, int keyLength) {
        if (cipher.equals("ChaCha20-Poly1305")) return CHACHA20_POLY1305;
        if (!cipher.equals("AES/GCM/NoPadding")) return 0;
        return keyLength == 16 ? AES_128_GCM : keyLength == 32 ? AES_256_GCM : 0;
    }

    private static native long address(ByteBuffer buffer);

    /** Does nothing but wipe what it is given. A uprobe stands at its start. */
    private static native void seal(long record, int length);
}

// SPDX-License-Identifier: Apache-2.0
package io.getkloak.agent;

import java.io.InputStream;
import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.net.URI;
import java.nio.file.Path;
import java.security.ProtectionDomain;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The classes of the JDK that seal records: all there are for AES-GCM and ChaCha20-Poly1305 in TLS 1.2 and 1.3. */
final class Sealers implements ClassFileTransformer {
    private static final String METHOD = "encrypt";
    private static final String PACKAGE = "sun.security.ssl";
    private static final Set<String> NAMES = Set.of(
            "sun/security/ssl/SSLCipher$T12GcmWriteCipherGenerator$GcmWriteCipher",
            "sun/security/ssl/SSLCipher$T13GcmWriteCipherGenerator$GcmWriteCipher",
            "sun/security/ssl/SSLCipher$T12CC20P1305WriteCipherGenerator$CC20P1305WriteCipher",
            "sun/security/ssl/SSLCipher$T13CC20P1305WriteCipherGenerator$CC20P1305WriteCipher");
    private static final String CIPHER = "javax/crypto/Cipher";
    private static final List<CallRewriter.Call> CALLS = List.of(
            new CallRewriter.Call(
                    CIPHER,
                    "init",
                    "(ILjava/security/Key;Ljava/security/spec/AlgorithmParameterSpec;Ljava/security/SecureRandom;)V"),
            new CallRewriter.Call(CIPHER, "updateAAD", "([B)V"),
            new CallRewriter.Call(CIPHER, "doFinal", "(Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;)I"));
    private static final String RECORDS = "sun/security/ssl/KloakRecords";

    private final Set<String> changed = new HashSet<>();
    private String problem = "its classes cannot be changed";

    private Sealers() {}

    /**
     * @param library where libkloak-java.so is
     * @throws IllegalStateException if the classes are not as expected; those are left as they were
     */
    static void change(Instrumentation instrumentation, URI library) throws Exception {
        define(instrumentation, Path.of(library));
        Sealers sealers = new Sealers();
        instrumentation.addTransformer(sealers, true);
        for (String name : NAMES) {
            // Loaded, and so changed, without being initialised; what had been loaded before comes by once more.
            Class<?> sealer = Class.forName(name.replace('/', '.'), false, null);
            if (!sealers.changed.contains(name)) instrumentation.retransformClasses(sealer);
            if (!sealers.changed.contains(name)) throw new IllegalStateException(sealers.problem);
        }
    }

    /** Beside them, since they see nothing but the JDK. */
    private static void define(Instrumentation instrumentation, Path library) throws Exception {
        Class<?> neighbour = Class.forName(PACKAGE + ".SSLCipher", false, null);
        Map<String, Set<Module>> opened = Map.of(PACKAGE, Set.of(Sealers.class.getModule()));
        instrumentation.redefineModule(neighbour.getModule(), Set.of(), Map.of(), opened, Set.of(), Map.of());
        MethodHandles.Lookup inside = MethodHandles.privateLookupIn(neighbour, MethodHandles.lookup());
        try (InputStream bytes = Sealers.class.getResourceAsStream("/" + RECORDS + ".class")) {
            Class<?> records = inside.defineClass(bytes.readAllBytes());
            MethodType load = MethodType.methodType(void.class, String.class);
            inside.findStatic(records, "load", load).invoke(library.toString());
        } catch (Throwable problem) {
            throw new IllegalStateException(problem);
        }
    }

    @Override
    public byte[] transform(
            Module module, ClassLoader loader, String name, Class<?> old, ProtectionDomain domain, byte[] bytes) {
        if (loader != null || !NAMES.contains(name)) return null;
        try {
            byte[] result = new CallRewriter(bytes).rewrite(METHOD, CALLS, RECORDS);
            changed.add(name);
            return result;
        } catch (RuntimeException unexpected) {
            problem = name + ": " + unexpected.getMessage();
            return null;
        }
    }
}

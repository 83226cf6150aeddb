// SPDX-License-Identifier: Apache-2.0
package io.getkloak.agent;

import java.lang.instrument.Instrumentation;
import java.lang.reflect.InvocationTargetException;
import java.net.URI;

/**
 * Lets Kloak hear the records of Java's own TLS: three calls in each class that seals records go through
 * sun.security.ssl.KloakRecords. The agent holds no secret and changes nothing that is sent. Where it cannot do its work it
 * says so on standard error and leaves everything as it is.
 *
 * <p>{@code -javaagent:kloak-java.jar}, or {@code jcmd PID JVMTI.agent_load kloak-java.jar}; libkloak-java.so lies beside it.
 *
 * <p>This class alone is compiled for Java 8: a JVM that cannot load its agent does not start.
 */
public final class Agent {
    private static final int OLDEST = 17;
    private static boolean started;

    private Agent() {}

    public static void premain(String arguments, Instrumentation instrumentation) {
        start(instrumentation);
    }

    public static void agentmain(String arguments, Instrumentation instrumentation) {
        start(instrumentation);
    }

    private static synchronized void start(Instrumentation instrumentation) {
        if (started) return;
        started = true;
        String version = System.getProperty("java.specification.version");
        try {
            // "1.8" before 9
            if (version.contains(".") || Integer.parseInt(version) < OLDEST) {
                throw new UnsupportedOperationException("this is Java " + version + ", and " + OLDEST + " is the oldest");
            }
            URI library = Agent.class.getProtectionDomain().getCodeSource().getLocation().toURI().resolve("libkloak-java.so");
            Class<?> sealers = Class.forName("io.getkloak.agent.Sealers");
            sealers.getDeclaredMethod("change", Instrumentation.class, URI.class).invoke(null, instrumentation, library);
        } catch (InvocationTargetException problem) {
            unheard(problem.getCause());
        } catch (Throwable problem) {
            unheard(problem);
        }
    }

    private static void unheard(Throwable problem) {
        System.err.println("kloak: Java's TLS is not heard, placeholders go out as they are: " + problem);
    }
}

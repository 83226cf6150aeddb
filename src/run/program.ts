import { execFile } from "node:child_process";
import { KloakError } from "../errors.ts";
import { errorCode } from "./native.ts";

/** System programs may lie where an ordinary user's search path does not lead. */
export const searchPath = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;

const environment = { PATH: searchPath, LC_ALL: "C" };

/** Runs a program of the system to its end and returns its standard output. Throws with its standard error. */
export function program(name: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { env: environment, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 } as const;
    const child = execFile(name, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(programError(name, args, error, stderr));
    });
    child.stdin?.on("error", () => undefined); // it ended without reading; its status says why
    child.stdin?.end(input);
  });
}

function programError(name: string, args: readonly string[], error: Error, stderr: string): KloakError {
  if (errorCode(error) === "ENOENT") {
    return new KloakError("program-missing", `${name} is not installed. \`kloak doctor\` says which package has it.`, {
      cause: error,
    });
  }
  const why = stderr.trim() || error.message;
  return new KloakError("program-failed", `\`${[name, ...args].join(" ")}\` failed: ${why}`, { cause: error });
}

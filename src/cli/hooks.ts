import { statSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { fileReport, formatReport, processReport } from "../hooks/index.ts";
import { write } from "./report.ts";

/**
 * `kloak hooks FILE|PID`. A file that is named like a number is given with a path: `./1234`.
 * @throws KloakError if there is no such file or process
 */
export function hooksCommand(target: string, options: { readonly json?: boolean }): number {
  if (!isProcess(target) && statSync(target, { throwIfNoEntry: false })?.isFile() !== true)
    throw new KloakError("no-such-file", `${target} is no file; give the path of one, or the number of a process`);
  const report = isProcess(target) ? processReport(Number(target)) : fileReport(target, process.env);
  write(1, options.json === true ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
  return report.coverage === "uncovered" ? 1 : 0;
}

function isProcess(target: string): boolean {
  return /^\d+$/.test(target);
}

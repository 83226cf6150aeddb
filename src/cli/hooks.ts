import { fileReport, formatReport, processReport } from "../hooks/index.ts";
import { write } from "./report.ts";

/** `kloak hooks FILE|PID`. A file that is named like a number is given with a path: `./1234`. */
export function hooksCommand(target: string, options: { readonly json?: boolean }): number {
  const report = /^\d+$/.test(target) ? processReport(Number(target)) : fileReport(target, process.env);
  write(1, options.json === true ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
  return report.coverage === "uncovered" ? 1 : 0;
}

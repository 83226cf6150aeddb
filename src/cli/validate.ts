import { findingText } from "../policy/finding.ts";
import { validateFiles } from "../policy/validate.ts";
import { write } from "./report.ts";

/** `kloak secrets validate`: returns 1 if a file has errors. */
export function validateCommand(files: readonly string[], options: { readonly json?: boolean }): number {
  const findings = validateFiles(files);
  if (options.json === true) write(1, `${JSON.stringify({ findings }, null, 2)}\n`);
  else for (const finding of findings) write(1, `${findingText(finding)}\n`);
  return findings.some(({ severity }) => severity === "error") ? 1 : 0;
}

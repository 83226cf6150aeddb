import { loadConfig } from "../policy/config.ts";
import { ConfigurationError, type Finding, findingText } from "../policy/finding.ts";
import { Report, write } from "./report.ts";

/** `kloak secrets validate`: returns 1 if a file has errors. */
export function validateCommand(files: readonly string[], options: { readonly json?: boolean }): number {
  const report = new Report({});
  const findings: Finding[] = [];
  let failed = false;
  for (const file of files) {
    try {
      loadConfig(file);
    } catch (error) {
      failed = true;
      if (error instanceof ConfigurationError) findings.push(...error.findings);
      else report.error(error);
    }
  }
  if (options.json === true) write(1, `${JSON.stringify({ findings }, null, 2)}\n`);
  else for (const finding of findings) write(1, `${findingText(finding)}\n`);
  return failed ? 1 : 0;
}

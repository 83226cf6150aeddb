import { KloakError } from "../errors.ts";

/** Something wrong in a file. */
export interface Finding {
  readonly severity: "error" | "warning";
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** `Secret payments/stripe`, `secret OPENAI_API_KEY`; empty for the file itself. */
  readonly object: string;
  readonly problem: string;
  readonly remedy: string;
}

/** `file:line: object: problem; remedy` */
export function findingText({ severity, file, line, object, problem, remedy }: Finding): string {
  const parts = [`${file}:${line}`, ...(severity === "warning" ? ["warning"] : []), ...(object === "" ? [] : [object])];
  return `${parts.join(": ")}: ${problem}; ${remedy}`;
}

/** A file with errors; the message has a line for each. */
export class ConfigurationError extends KloakError {
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[]) {
    super("configuration-invalid", findings.map(findingText).join("\n"));
    this.name = "ConfigurationError";
    this.findings = findings;
  }
}

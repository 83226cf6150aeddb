/* Which stacks a run has shown to be served: a line for each, of which the reporter of the long suite makes docs/stacks.md. */
import { execFileSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import type { AuditRecord } from "../../src/audit/index.ts";
import { discover, fileReport, installedCrypto, type StackPlan } from "../../src/hooks/index.ts";
import type { Stack } from "./stacks.ts";

export interface ServedStack {
  /** As the tests' names begin. */
  readonly program: string;
  /** Of the program as it says itself, if asked. */
  readonly version: string | null;
  /** The TLS code that was heard, with its version as `kloak hooks` tells it. */
  readonly tls: string;
  /** Such as "1.3 aes-256-gcm". */
  readonly suites: readonly string[];
  readonly protocol: string;
}

const file = process.env["KLOAK_STACKS"];

/** Notes what a client has been served, if anybody wants to know. */
export function noteServed(stack: Stack, audit: readonly AuditRecord[]): void {
  const [first] = audit;
  if (file === undefined || first === undefined) return;
  const substituted = audit.filter(({ outcome }) => outcome === "substituted");
  const served: ServedStack = {
    program: stack.name,
    version: stack.version === undefined ? null : versionOf(stack.version),
    tls: `${first.tls.stack} ${heardVersion(stack.executable ?? stack.command[0] ?? "", first.tls.stack) ?? ""}`.trim(),
    suites: [...new Set(substituted.map(({ tls }) => `${tls.version} ${tls.cipher}`))].toSorted(),
    protocol: first.protocol ?? "",
  };
  appendFileSync(file, `${JSON.stringify(served)}\n`);
}

function versionOf([program = "", ...args]: readonly string[]): string | null {
  const told = execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  return /\d+(?:\.\d+)+[\w.]*/.exec(told)?.[0] ?? null;
}

function heardVersion(executable: string, name: string | null): string | undefined {
  return plansOf(executable).find(
    ({ stack, includesProtocol }) => stack === name && (stack !== "gnutls" || includesProtocol),
  )?.version;
}

/** What the executable has or is linked with, and then what an interpreter opens when it is asked for TLS. */
export function plansOf(executable: string): readonly StackPlan[] {
  const path = execFileSync("sh", ["-c", 'readlink -f "$(command -v "$1")"', "sh", executable], { encoding: "utf8" });
  const files = [...fileReport(path.trim()).files, ...installedCrypto().map(({ hostPath }) => discover(hostPath))];
  return files.flatMap(({ stacks }) => stacks);
}

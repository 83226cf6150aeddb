/* What the attacks have in common: programs in C, machines of the attacker, and where a value lies in disguise. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { AuditRecord } from "../../src/audit/index.ts";
import { disguises } from "../../src/demo/memory.ts";
import type { Namespace } from "../../src/lab/namespace.ts";
import type { ServedRequest } from "../../src/lab/server.ts";
import { count } from "../support/requests.ts";
import { root } from "../support/world.ts";

/** How much longer than usual races and guesses go on: KLOAK_ATTACK_FACTOR=100 makes 10^5 races, 25 makes 10^6 guesses. */
export const attackFactor: number = Number(process.env["KLOAK_ATTACK_FACTOR"] ?? 1);

export function program(file: string): string {
  return join(root, "test/attack/programs", file);
}

/** Compiles `programs/<name>.c` and returns the path of the result. */
export function buildProgram(name: string, flags: readonly string[] = ["-lssl", "-lcrypto", "-lpthread"]): string {
  const output = join(root, "build/test", name);
  mkdirSync(join(root, "build/test"), { recursive: true });
  const warnings = ["-O2", "-Wall", "-Wextra", "-Werror"];
  execFileSync("cc", [...warnings, "-o", output, program(`${name}.c`), ...flags], { stdio: "inherit" });
  return output;
}

/** How often a value stands among these bytes, in any of the disguises that a memory scan looks for. */
export function occurrences(haystack: Buffer | string, value: string): number {
  const bytes = typeof haystack === "string" ? Buffer.from(haystack, "latin1") : haystack;
  let found = 0;
  for (const needle of disguises(value)) if (bytes.includes(needle.bytes)) found += 1;
  return found;
}

/** All that was said on a `raw` listener, by connection; those on which nothing was said are the agent's own. */
export function texts(requests: readonly ServedRequest[], listener: string): string[] {
  return requests
    .filter((request) => request.listener === listener && request.body !== "")
    .map((request) => request.body ?? "");
}

/** Audit records as lines that can be counted. */
export function audited(records: readonly AuditRecord[]): Record<string, number> {
  return count(records.map(({ outcome, reason, secret }) => [outcome, reason, secret].filter(Boolean).join(" ")));
}

/** A machine of the attacker that runs a Python program; it says its port in its first line. */
export class Machine {
  readonly port: number;
  readonly #child: ReturnType<typeof spawn>;
  readonly #output: Buffer[];

  private constructor(child: ReturnType<typeof spawn>, output: Buffer[], port: number) {
    this.#child = child;
    this.#output = output;
    this.port = port;
  }

  static async start(namespace: Namespace, file: string, args: readonly string[] = []): Promise<Machine> {
    const [command = "", ...rest] = namespace.within(["python3", program(file), ...args]);
    const child = spawn(command, rest, { stdio: ["pipe", "pipe", "inherit"] });
    const output: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
    while (!Buffer.concat(output).includes("\n")) {
      if (child.exitCode !== null) throw new Error(`${file} ended with ${child.exitCode}`);
      await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
    }
    const [line = ""] = Buffer.concat(output).toString("latin1").split("\n");
    return new Machine(child, output, Number(line));
  }

  /** Ends it, and returns all that it has heard. */
  async close(): Promise<Buffer> {
    const closed = once(this.#child, "close");
    this.#child.stdin?.end();
    await closed;
    const all = Buffer.concat(this.#output);
    return all.subarray(all.indexOf("\n") + 1);
  }
}

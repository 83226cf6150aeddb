/*
 * What a test of the whole system stands in: another machine with a server (a namespace), names and certificates for
 * it, and `kloak run` on this one.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type Authority, createAuthority } from "../../src/lab/certificates.ts";
import { withHostsFile, writeHostsFile } from "../../src/lab/names.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { LabServer, type ListenerPlan } from "../../src/lab/server.ts";
import { suites } from "../../src/lab/suites.ts";
import { placeholderProblem, SecretValue } from "../../src/placeholder/index.ts";

export const host = "api.kloak.test";
export const otherHost = "other.kloak.test";
export const root = fileURLToPath(new URL("../..", import.meta.url));

/** A certificate of every kind that a test asks for; the listeners of a world are named after what they do. */
export type CertificateKind = "good" | "untrusted" | "expired" | "wrong-name";

export interface SecretPlan {
  readonly value: string;
  readonly hosts: string | readonly string[];
  readonly [option: string]: unknown;
}

export interface KloakPlan {
  readonly secrets: Readonly<Record<string, SecretPlan>>;
  readonly command: readonly string[];
  readonly options?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Files of the project that kloak is to find others in the place of. */
  readonly instead?: Readonly<Record<string, string>>;
  /** Standard input; null keeps it open. */
  readonly input?: string | null;
  /** Default 120 s: a deadline for a hang, nothing that is measured. */
  readonly deadlineMs?: number;
}

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly audit: readonly AuditRecord[];
}

/** A `kloak run` that is under way. */
export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  /** The first line of its standard output. */
  firstLine(): Promise<string>;
}

export class World {
  readonly directory: string;
  readonly authority: Authority;
  readonly namespace: Namespace;
  readonly server: LabServer;
  readonly hostsFile: string;
  #runs = 0;
  readonly #running = new Set<ChildProcess>();

  private constructor(
    directory: string,
    authority: Authority,
    namespace: Namespace,
    server: LabServer,
    hostsFile: string,
  ) {
    this.directory = directory;
    this.authority = authority;
    this.namespace = namespace;
    this.server = server;
    this.hostsFile = hostsFile;
  }

  /** A listener for each suite, named after it, and whatever `more` adds for the certificates it is given. */
  static async create(
    more: (
      certificates: Readonly<Record<CertificateKind, ListenerPlan["certificate"]>>,
    ) => readonly ListenerPlan[] = () => [],
  ): Promise<World> {
    const directory = mkdtempSync(join(tmpdir(), "kloak-test-"));
    process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
    const namespace = createNamespace();
    try {
      const authority = createAuthority(directory, "trusted-root");
      const stranger = createAuthority(directory, "strange-root");
      const ip = [namespace.ipv4.inside, namespace.ipv6.inside];
      const dns = [host, otherHost, `*.${host}`];
      const certificates = {
        good: authority.issue("good", { dns, ip }),
        untrusted: stranger.issue("untrusted", { dns, ip }),
        expired: authority.issue("expired", { dns, ip, days: -1 }),
        "wrong-name": authority.issue("wrong-name", { dns: ["wrong.kloak.test"] }),
      };
      const plain = suites.map(({ name, version, cipher }) => ({
        name,
        version,
        cipher,
        certificate: certificates.good,
      }));
      const server = await LabServer.start(namespace, [...plain, ...more(certificates)]);
      const hostsFile = join(directory, "hosts");
      const { ipv4, ipv6 } = namespace;
      writeHostsFile(hostsFile, { [host]: [ipv4.inside], [otherHost]: [ipv4.inside], [`six.${host}`]: [ipv6.inside] });
      return new World(directory, authority, namespace, server, hostsFile);
    } catch (error) {
      namespace.close();
      throw error;
    }
  }

  url(listener: string, name = host): string {
    return `https://${name}:${this.server.port(listener)}`;
  }

  /** Starts `kloak run`. The names of the world are known to it and to its command. */
  start(plan: KloakPlan): Running {
    this.#runs += 1;
    const config = join(this.directory, `kloak-${this.#runs}.yaml`);
    const auditFile = join(this.directory, `audit-${this.#runs}.jsonl`);
    const secrets: Record<string, unknown> = {};
    for (const [name, { value, ...options }] of Object.entries(plan.secrets)) {
      const file = join(this.directory, `value-${this.#runs}-${name}`);
      writeFileSync(file, value, { mode: 0o600 });
      secrets[name] = { value: { file }, ...options };
    }
    writeFileSync(config, JSON.stringify({ secrets })); // YAML, as all JSON is
    const trust = plan.options?.includes("--ca") ? [] : ["--ca", this.authority.caFile];
    const kloak = [join(root, "bin/kloak"), "run", "--config", config, "--audit", auditFile, ...trust];
    const run = [...kloak, ...(plan.options ?? []), "--", ...plan.command];
    const argv = withHostsFile(this.hostsFile, withOthers(plan.instead ?? {}, run));
    return this.#spawn(argv, plan, auditFile);
  }

  async kloak(plan: KloakPlan): Promise<Outcome> {
    return await this.start(plan).ended;
  }

  #spawn(argv: readonly string[], plan: KloakPlan, auditFile: string): Running {
    const [program = "", ...args] = argv;
    const child = spawn(program, args, { stdio: "pipe", env: { ...process.env, ...plan.env }, cwd: this.directory });
    this.#running.add(child);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on("error", () => undefined); // the command need not read it
    if (plan.input !== null) child.stdin.end(plan.input ?? "");
    const ended = new Promise<Outcome>((resolve, reject) => {
      const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString("utf8");
      const timer = setTimeout(() => {
        child.kill("SIGTERM");
        reject(new Error(`not ended at its deadline: ${plan.command.join(" ")}\n${text(stdout)}${text(stderr)}`));
      }, plan.deadlineMs ?? 120_000);
      child.on("error", reject);
      child.on("close", (status, signal) => {
        clearTimeout(timer);
        this.#running.delete(child);
        const audit = readAudit(auditFile);
        tally(audit);
        resolve({ status, signal, stdout: text(stdout), stderr: text(stderr), audit });
      });
    });
    const firstLine = async () => {
      while (!Buffer.concat(stdout).includes("\n")) {
        await Promise.race([
          once(child.stdout, "data"),
          ended.then(() => Promise.reject(new Error("ended without a line"))),
        ]);
      }
      return Buffer.concat(stdout).toString("utf8").split("\n")[0] ?? "";
    };
    return { child, ended, firstLine };
  }

  /** Ends what still runs and takes everything down. */
  async close(): Promise<void> {
    for (const child of this.#running) child.kill("SIGTERM");
    await this.server.close();
    this.namespace.close();
  }
}

/** In a mount namespace that is already its own. */
function withOthers(instead: Readonly<Record<string, string>>, argv: readonly string[]): readonly string[] {
  return Object.entries(instead).reduce<readonly string[]>(
    (inner, [place, file]) => [
      ...["sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"],
      ...[file, join(root, place), ...inner],
    ],
    argv,
  );
}

function readAudit(file: string): AuditRecord[] {
  try {
    const lines = readFileSync(file, "utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as AuditRecord);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

/** Adds to the file that a suite's reporter reads at its end. */
function tally(audit: readonly AuditRecord[]): void {
  const file = process.env["KLOAK_TALLY"];
  if (file !== undefined) appendFileSync(file, audit.map((record) => `${JSON.stringify(record)}\n`).join(""));
}

/** A secret of `length` letters and digits, different at each call, that can have a placeholder. */
export function makeSecret(length: number): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (;;) {
    const value = Array.from({ length }, () => letters[randomInt(letters.length)]).join("");
    // Of the shortest values few have one: most of the placeholder is the marker.
    if (placeholderProblem(new SecretValue(value)) === undefined) return value;
  }
}

/** Builds the C client `speak` once and returns its path. */
export function buildSpeak(): string {
  const output = join(root, "build/test/speak");
  const source = join(root, "test/support/clients/speak.c");
  execFileSync("make", ["-s", "-f", "-", output], {
    input: rule(output, source),
    stdio: ["pipe", "inherit", "inherit"],
  });
  return output;
}

function rule(output: string, source: string): string {
  return `${output}: ${source}\n\t@mkdir -p $(@D)\n\t$(CC) -O2 -Wall -Wextra -Werror -o $@ $< -lssl -lcrypto\n`;
}

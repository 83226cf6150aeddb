/* The stage of the demo: another machine with two host names, its server, and how commands are run here. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { AuditRecord } from "../audit/index.ts";
import { KloakError } from "../errors.ts";
import { createAuthority } from "../lab/certificates.ts";
import { withHostsFile, writeHostsFile } from "../lab/names.ts";
import { createNamespace, type Namespace } from "../lab/namespace.ts";
import { LabServer } from "../lab/server.ts";

export const host = "api.kloak.test";
export const otherHost = "other.kloak.test";
export const clients = fileURLToPath(new URL("clients", import.meta.url));
const kloak = fileURLToPath(new URL("../../bin/kloak", import.meta.url));

/** A command under way. */
export interface Started {
  /** Resolves with its standard output. @throws KloakError with its standard error if it fails. */
  readonly output: Promise<string>;
}

export class Stage {
  readonly directory: string;
  readonly caFile: string;
  readonly address: string;
  readonly server: LabServer;
  readonly #far: Namespace;
  readonly #hostsFile: string;
  readonly #children = new Set<ChildProcess>();

  private constructor(directory: string, caFile: string, far: Namespace, server: LabServer) {
    this.directory = directory;
    this.caFile = caFile;
    this.address = far.ipv4.inside;
    this.server = server;
    this.#far = far;
    this.#hostsFile = join(directory, "hosts");
    writeHostsFile(this.#hostsFile, { [host]: [this.address], [otherHost]: [this.address] });
  }

  static async build(): Promise<Stage> {
    const directory = mkdtempSync(join(tmpdir(), "kloak-demo-"));
    process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
    const far = createNamespace();
    try {
      const authority = createAuthority(directory, "demo-root");
      const certificate = authority.issue("server", { dns: [host, otherHost] });
      const plan = { name: "https", certificate, version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384" } as const;
      return new Stage(directory, authority.caFile, far, await LabServer.start(far, [plan]));
    } catch (error) {
      far.close();
      throw error;
    }
  }

  get port(): number {
    return this.server.port("https");
  }

  file(name: string): string {
    return join(this.directory, name);
  }

  /** Runs a command under Kloak, which holds `key` for `host` and gives the command a placeholder in API_KEY. */
  kloak(key: string, command: readonly string[], audit: string): Started {
    const value = this.file("key");
    writeFileSync(value, key, { mode: 0o600 });
    const options = ["--secret", `API_KEY@${host}=file:${value}`, "--ca", this.caFile, "--audit", this.file(audit)];
    return this.#start(withHostsFile(this.#hostsFile, [kloak, "run", "--quiet", ...options, "--", ...command]), {});
  }

  /** Runs a command without Kloak, in a namespace like a workload's, with the key itself. */
  bare(key: string, command: readonly string[], namespace: Namespace): Started {
    return this.#start(withHostsFile(this.#hostsFile, namespace.within(command)), { API_KEY: key });
  }

  /** Records what arrives at the other machine, until the returned function is called. */
  async capture(name: string): Promise<() => Promise<Buffer>> {
    const file = this.file(name);
    const filter = [
      "-Z",
      "root",
      "-i",
      this.#far.interface,
      "--immediate-mode",
      "-U",
      "-s",
      "0",
      "-w",
      file,
      `tcp port ${this.port}`,
    ];
    const [program = "", ...args] = this.#far.within(["tcpdump", ...filter]);
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.#children.add(child);
    const ended = once(child, "exit").finally(() => this.#children.delete(child));
    for await (const line of createInterface({ input: child.stderr })) if (line.includes("listening on")) break;
    child.stderr.resume();
    return async () => {
      child.kill("SIGINT");
      await ended;
      return readFileSync(file);
    };
  }

  audit(name: string): AuditRecord[] {
    const lines = readFileSync(this.file(name), "utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as AuditRecord);
  }

  #start(argv: readonly string[], env: Readonly<Record<string, string>>): Started {
    const [program = "", ...args] = argv;
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    this.#children.add(child);
    const text = { out: "", error: "" };
    child.stdout.on("data", (chunk: Buffer) => (text.out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (text.error += chunk.toString()));
    const output = once(child, "close").then(([status]) => {
      this.#children.delete(child);
      if (status === 0) return text.out;
      throw new KloakError(
        "demo-command-failed",
        `A command of the demo ended with ${String(status)}: ${text.error.trim()}`,
      );
    });
    output.catch(() => undefined); // whoever awaits it hears of it
    return { output };
  }

  async close(): Promise<void> {
    const ended = [...this.#children].map((child) => once(child, "exit"));
    for (const child of this.#children) child.kill("SIGTERM");
    await Promise.all(ended);
    await this.server.close();
    this.#far.close();
  }
}

/*
 * What the tests of `kloak agent` stand in: a server on another machine, a workload in a network namespace with a wire to
 * this host, and agents of their own state, lock and gate.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askAgent, type ControlRequest } from "../../src/agent/control.ts";
import type { AuditRecord } from "../../src/audit/index.ts";
import { type Authority, createAuthority } from "../../src/lab/certificates.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { LabServer } from "../../src/lab/server.ts";
import { kloakFile, until } from "../run/kloak.ts";
import { type Bpffs, mountBpffs } from "./bpffs.ts";

export const host = "api.kloak.test";

function parsed(line: string): AuditRecord | undefined {
  try {
    return JSON.parse(line) as AuditRecord;
  } catch {
    return undefined;
  }
}

export class Site {
  readonly folder: string;
  readonly bpffs: Bpffs;
  readonly server: LabServer;
  readonly authority: Authority;
  readonly machine: Namespace;
  readonly port: number;
  readonly #agents = new Set<AgentProcess>();
  readonly #clients = new Set<ChildProcess>();
  readonly #workloads: Namespace[] = [];

  private constructor(folder: string, bpffs: Bpffs, machine: Namespace, authority: Authority, server: LabServer) {
    this.folder = folder;
    this.bpffs = bpffs;
    this.machine = machine;
    this.authority = authority;
    this.server = server;
    this.port = server.port("https");
  }

  static async create(): Promise<Site> {
    const folder = mkdtempSync(join(tmpdir(), "kloak-agent-"));
    const machine = createNamespace();
    const authority = createAuthority(folder, "ca");
    const certificate = authority.issue("server", { dns: [host] });
    const server = await LabServer.start(machine, [{ name: "https", certificate }]);
    return new Site(folder, mountBpffs(), machine, authority, server);
  }

  /** With an agent, and a workload that may use a secret of this value. */
  static async protecting(value: string): Promise<{ site: Site; workload: Namespace; placeholder: string }> {
    const site = await Site.create();
    try {
      await site.agent();
      const workload = await site.workload();
      return { site, workload, placeholder: await site.bind("KEY", value, workload) };
    } catch (error) {
      await site.close();
      throw error;
    }
  }

  get run(): string {
    return join(this.folder, "run");
  }

  get auditFile(): string {
    return join(this.folder, "audit.jsonl");
  }

  audit(): AuditRecord[] {
    if (!existsSync(this.auditFile)) return [];
    // An agent that was killed may have left half a line.
    return readFileSync(this.auditFile, "utf8")
      .split("\n")
      .flatMap((line) => (line.startsWith("{") && line.endsWith("}") ? [parsed(line)] : []))
      .filter((record) => record !== undefined);
  }

  /** Starts an agent; resolves when it listens, or has ended. */
  async agent(...options: string[]): Promise<AgentProcess> {
    return await this.agentOf(kloakFile, ...options);
  }

  /** The same of another build of Kloak. @param file its `bin/kloak` */
  async agentOf(file: string, ...options: string[]): Promise<AgentProcess> {
    const state = options.includes("--state") ? [] : ["--state", this.bpffs.state];
    const agent = new AgentProcess([...state, "--run", this.run, "--audit", this.auditFile, ...options], file);
    this.#agents.add(agent);
    await until(
      `the agent to listen: ${agent.said}`,
      () => agent.ended !== undefined || agent.said.includes("listens at"),
    );
    return agent;
  }

  ask(request: ControlRequest): Promise<Record<string, unknown>> {
    return askAgent(join(this.run, "agent.sock"), request, 60_000);
  }

  /** A namespace that the agent protects. */
  async workload(): Promise<Namespace> {
    const namespace = createNamespace();
    this.#workloads.push(namespace);
    const { path: netns, hostInterface, name: id } = namespace;
    await this.ask({ do: "add-workload", id, netns, interface: hostInterface });
    return namespace;
  }

  /** Binds a secret; gives its placeholder. */
  async bind(name: string, value: string, ...workloads: Namespace[]): Promise<string> {
    const ca = [readFileSync(this.authority.caFile, "utf8")];
    const ids = workloads.map((workload) => workload.name);
    const answer = await this.ask({ do: "bind", name, value, hosts: host, ca, workloads: ids });
    return String(answer["placeholder"]);
  }

  /** Starts a program in a workload; what it writes is in `output`. */
  client(workload: Namespace, argv: readonly string[], env: Readonly<Record<string, string>> = {}): Client {
    const [file = "", ...args] = workload.within(argv);
    const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    this.#clients.add(child);
    return new Client(child);
  }

  /** Arguments of curl for one request to the server. */
  curl(placeholder: string, path: string): string[] {
    const { ipv4 } = this.machine;
    const name = `${host}:${this.port}`;
    const where = ["--cacert", this.authority.caFile, "--resolve", `${name}:${ipv4.inside}`];
    return [
      "curl",
      "-sS",
      "-m",
      "30",
      ...where,
      "-H",
      `Authorization: Bearer ${placeholder}`,
      `https://${name}/${path}`,
    ];
  }

  async close(): Promise<void> {
    for (const child of this.#clients) child.kill("SIGKILL");
    for (const agent of this.#agents) await agent.kill();
    await endGate(join(this.run, "gate.sock"));
    await this.server.close();
    for (const each of this.#workloads) each.close();
    this.machine.close();
    this.bpffs.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A gate outlives its agents; here nobody comes after them. */
async function endGate(socket: string): Promise<void> {
  if (!existsSync(socket)) return;
  const control = connect(socket).resume();
  const closed = new Promise<void>((resolve) => control.once("close", () => resolve()));
  control.on("error", () => undefined); // it has ended
  control.write("leave\n");
  await closed;
}

export class AgentProcess {
  readonly child: ChildProcess;
  said = "";
  ended: { readonly status: number | null; readonly signal: NodeJS.Signals | null } | undefined;
  readonly #exit: Promise<unknown>;

  constructor(options: readonly string[], file: string) {
    this.child = spawn(file, ["agent", "--verbose", ...options], { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.said += text;
    });
    this.#exit = once(this.child, "close").then(([status, signal]: (number | string | null)[]) => {
      this.ended = { status: status as number | null, signal: signal as NodeJS.Signals | null };
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  async exit(): Promise<NonNullable<AgentProcess["ended"]>> {
    await this.#exit;
    if (this.ended === undefined) throw new Error("it has not ended");
    return this.ended;
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.ended !== undefined) return;
    this.child.kill(signal);
    await this.#exit;
  }
}

export class Client {
  readonly child: ChildProcess;
  output = "";
  errors = "";
  readonly ended: Promise<number | null>;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.output += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.errors += text;
    });
    this.ended = once(child, "close").then(([status]: (number | null)[]) => status ?? null);
  }

  line(text: string): void {
    this.child.stdin?.write(`${text}\n`);
  }
}

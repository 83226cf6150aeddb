/* Where the benchmark runs: a namespace for the bare client, one for the server, the proxy on this machine between. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { runSync } from "../../src/lab/command.ts";
import { createAuthority } from "../../src/lab/certificates.ts";
import { withHostsFile, writeHostsFile } from "../../src/lab/names.ts";
import { createNamespace, type Namespace } from "../../src/lab/namespace.ts";
import { installProxy, type Programs, root } from "./programs.ts";

export const host = "api.kloak.test";
/** Of the same length as the placeholder in its place, so that every case sends the same number of bytes. */
export const secret = "sk-live-0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
const proxyPlaceholder = `kloak:${"P".repeat(secret.length - 6)}`;

/** What the client prints. */
export interface Timing {
  readonly ns: readonly number[];
  readonly cpuUs: number;
}
export interface Upload {
  readonly uploadNs: number;
  readonly cpuUs: number;
  readonly bytes: number;
}

export interface Background {
  readonly pid: number;
  end(): Promise<void>;
}

/** A client under Kloak that has run. */
export interface Held<Result> extends Background {
  /** CPU time of `kloak run` meanwhile. */
  readonly agentSeconds: number;
  readonly result: Result;
}

export class Site {
  readonly #directory = mkdtempSync(join(tmpdir(), "kloak-bench-"));
  readonly #programs: Programs;
  readonly #bare: Namespace;
  readonly #far: Namespace;
  readonly #caFile: string;
  readonly #hostsFile: string;
  readonly #children = new Set<ChildProcess>();
  #port = 0;
  #proxy: { readonly address: string; readonly caFile: string; readonly pid: number } | null = null;

  constructor(programs: Programs) {
    this.#programs = programs;
    process.on("exit", () => rmSync(this.#directory, { recursive: true, force: true }));
    this.#bare = createNamespace();
    this.#far = createNamespace();
    steer(this.#bare.hostInterface);
    // The same way as a workload's, with NAT and connection tracking: what is compared is what Kloak adds.
    runSync("nft", ["-f", "-"], bareTable(this.#bare.hostInterface, this.#bare.ipv4.inside));
    const authority = createAuthority(this.#directory, "bench-root");
    authority.issue("server", { dns: [host] });
    this.#caFile = authority.caFile;
    this.#hostsFile = join(this.#directory, "hosts");
    writeHostsFile(this.#hostsFile, { [host]: [this.#far.ipv4.inside] });
  }

  /** Starts the server, and unless told not to the proxy. */
  async start(proxy = true): Promise<void> {
    const files = [join(this.#directory, "server.pem"), join(this.#directory, "server.key")];
    const environment = libraryPath(this.#programs.libraries.server);
    const server = [...environment, this.#programs.server, ...files, "TLS_AES_128_GCM_SHA256"];
    const child = this.#spawn(this.#far.within(["taskset", "-c", "1", ...server]));
    if (child.stdout === null) throw new Error("the server has no standard output");
    this.#port = Number(await firstLine(child));
    if (proxy) await this.#startProxy();
  }

  async #startProxy(): Promise<void> {
    const port = await freePort();
    const state = join(this.#directory, "proxy");
    const options = ["--listen-host", this.#bare.ipv4.host, "--listen-port", String(port), "--set", `confdir=${state}`];
    const trust = ["--set", `ssl_verify_upstream_trusted_ca=${this.#caFile}`, "--set", "flow_detail=0"];
    const script = ["-s", join(root, "test/bench/proxy.py")];
    const env = { BENCH_PLACEHOLDER: proxyPlaceholder, BENCH_SECRET: secret, BENCH_HOST: host };
    const argv = withHostsFile(this.#hostsFile, [installProxy(), ...options, ...trust, ...script]);
    const child = this.#spawn(argv, env);
    for await (const line of createInterface({ input: child.stdout ?? process.stdin })) {
      if (line.includes("listening at")) break;
    }
    child.stdout?.resume();
    const address = `${this.#bare.ipv4.host}:${port}`;
    this.#proxy = { address, caFile: join(state, "mitmproxy-ca-cert.pem"), pid: child.pid ?? 0 };
  }

  /** For clients other than the benchmark's own. */
  get target(): { readonly url: string; readonly caFile: string } {
    return { url: `https://${host}:${this.#port}`, caFile: this.#caFile };
  }

  /** The client's argument vector. */
  client(options: readonly string[], ca = this.#caFile): string[] {
    const { libraries, client } = this.#programs;
    const fixed = [...libraryPath(libraries.client), "taskset", "-c", "0", client, "--ca", ca, "--name", host];
    return [...fixed, ...options, this.#far.ipv4.inside, String(this.#port)];
  }

  /** Runs the client without Kloak, across a veth as a workload's. */
  async bare<Result extends Timing | Upload>(options: readonly string[]): Promise<Result> {
    return await this.#measure(this.#bare.within(this.client(options)), { SECRET: secret });
  }

  /** The same for any command that prints JSON. */
  async bareCommand<Result>(command: readonly string[]): Promise<Result> {
    return await this.#measure(withHostsFile(this.#hostsFile, this.#bare.within(command)), { SECRET: secret });
  }

  async proxied(options: readonly string[]): Promise<Timing> {
    if (this.#proxy === null) throw new Error("the proxy does not run");
    const { address, caFile, pid } = this.#proxy;
    const before = cpuSeconds(pid);
    const argv = this.#bare.within(this.client(["--proxy", address, ...options], caFile));
    const timing = await this.#measure<Timing>(argv, { SECRET: proxyPlaceholder });
    return { ...timing, cpuUs: timing.cpuUs + (cpuSeconds(pid) - before) * 1e6 };
  }

  /** Runs the client in `kloak run`, with `secrets` secrets of which it sends the first if told to. */
  async kloak<Result extends Timing | Upload>(options: readonly string[], secrets = 1): Promise<Result> {
    const held = await this.held<Result>(options, { secrets });
    await held.end();
    return held.result;
  }

  /** A command under Kloak that has loaded the client's library and waits until it is ended. */
  async background(secrets: number): Promise<Background> {
    const script = 'curl --cacert "$1" -sSf -o /dev/null "$2" && echo ready && read -r _';
    const url = `https://${host}:${this.#port}/`;
    const environment = libraryPath(this.#programs.libraries.client);
    const argv = this.#kloak([...environment, "sh", "-c", script, "sh", this.#caFile, url], secrets);
    const child = this.#spawn(argv, { KLOAK_BENCH_VALUE: secret });
    const line = await firstLine(child);
    if (line !== "ready") throw new Error(`the command under Kloak said ${JSON.stringify(line)}`);
    const ended = once(child, "exit");
    return {
      pid: child.pid ?? 0,
      async end() {
        child.stdin?.end();
        await ended;
      },
    };
  }

  /** Runs the client under Kloak; then all is held as it is until it is ended. */
  async held<Result extends Timing | Upload>(
    options: readonly string[],
    plan: { readonly secrets?: number; readonly proof?: string } = {},
  ): Promise<Held<Result>> {
    return await this.heldCommand(this.client(options), plan);
  }

  /** The same for any command that prints one line of JSON; its SECRET may go to the server. */
  async heldCommand<Result>(
    command: readonly string[],
    { secrets = 1, proof = "flow" }: { readonly secrets?: number; readonly proof?: string } = {},
  ): Promise<Held<Result>> {
    const script = 'ip -o link show eth0 && read -r _ && "$@" && read -r _';
    const argv = this.#kloak(["sh", "-c", script, "sh", ...command], secrets, proof);
    const child = this.#spawn(argv, { KLOAK_BENCH_VALUE: secret });
    const pid = child.pid ?? 0;
    const lines = createInterface({ input: child.stdout ?? process.stdin })[Symbol.asyncIterator]();
    steer(hostEnd((await lines.next()).value ?? ""));
    const before = cpuSeconds(pid);
    child.stdin?.write("\n");
    const { value } = await lines.next();
    if (value === undefined) throw new Error("the client failed under Kloak");
    const agentSeconds = cpuSeconds(pid) - before;
    const ended = once(child, "exit");
    return {
      pid,
      agentSeconds,
      result: JSON.parse(value),
      async end() {
        child.stdin?.end();
        await ended;
      },
    };
  }

  #kloak(command: readonly string[], secrets: number, proof = "flow"): string[] {
    const plan: Record<string, unknown> = {};
    for (let i = 0; i < secrets; i += 1) {
      plan[i === 0 ? "SECRET" : `SECRET_${i}`] = { value: { env: "KLOAK_BENCH_VALUE" }, hosts: host, proof };
    }
    const config = join(this.#directory, `kloak-${secrets}-${proof}.yaml`);
    writeFileSync(config, JSON.stringify({ secrets: plan }));
    const kloak = [join(root, "bin/kloak"), "run", "--quiet", "--config", config, "--ca", this.#caFile];
    return withHostsFile(this.#hostsFile, [...kloak, "--", ...command]);
  }

  #spawn(argv: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
    const [program = "", ...args] = argv;
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, ...env } });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  async #measure<Result>(argv: readonly string[], env: Readonly<Record<string, string>>): Promise<Result> {
    const child = this.#spawn(argv, env);
    const chunks: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
    const [status] = await once(child, "close");
    if (status !== 0) throw new Error(`the client ended with ${String(status)}: ${argv.join(" ")}`);
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  }

  async close(): Promise<void> {
    const ended = [...this.#children].map((child) => once(child, "exit"));
    for (const child of this.#children) child.kill("SIGTERM");
    await Promise.all(ended);
    runSync("nft", ["delete", "table", "inet", tableName]);
    this.#bare.close();
    this.#far.close();
  }
}

/**
 * What a client sends is received on the server's CPU, with Kloak and without. Left to itself it is received wherever it
 * was sent, or with Kloak on a CPU that the connection's hash chooses, and which of two it is makes more of a difference
 * than anything else here.
 */
function steer(name: string): void {
  writeFileSync(`/sys/class/net/${name}/queues/rx-0/rps_cpus`, "2");
}

/** The interface here whose other end is `2: eth0@if123: …` in a namespace. */
function hostEnd(link: string): string {
  const index = Number(/@if(\d+):/.exec(link)?.[1]);
  const [found] = runSync("ip", ["-o", "link"])
    .split("\n")
    .filter((line) => line.startsWith(`${index}: `));
  const name = /^\d+: ([^@:]+)/.exec(found ?? "")?.[1];
  if (name === undefined) throw new Error(`there is no interface here for ${JSON.stringify(link)}`);
  return name;
}

function libraryPath(folder: string): string[] {
  return ["env", `LD_LIBRARY_PATH=${folder}`];
}

const tableName = `kloak-bench-${process.pid}`;

function bareTable(name: string, address: string): string {
  return `table inet ${tableName} {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr ${address} oifname != "${name}" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "${name}" ip saddr != ${address} drop
		iifname "${name}" accept
		oifname "${name}" ct state established,related accept
		oifname "${name}" drop
	}
}
`;
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("no standard output");
  for await (const line of createInterface({ input: child.stdout })) return line;
  throw new Error("ended without a word");
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** User and system time that a process has used. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100; // USER_HZ
}

/** Resident memory in bytes. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

/** Memory of all BPF maps that a process holds, each once. */
export function mapBytes(pid: number): number {
  const maps = new Map<string, number>();
  for (const fd of readdirSync(`/proc/${pid}/fdinfo`)) {
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
    const id = /^map_id:\s*(\d+)$/m.exec(info)?.[1];
    const bytes = /^memlock:\s*(\d+)$/m.exec(info)?.[1];
    if (id !== undefined && bytes !== undefined) maps.set(id, Number(bytes));
  }
  return [...maps.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** The failing server of peer-main.ts, and a workload that makes a request whenever it is told to. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AuditRecord } from "../../src/audit/index.ts";
import type { Certificate } from "../../src/lab/certificates.ts";
import type { Namespace } from "../../src/lab/namespace.ts";
import { host, makeSecret, root, type Running, type SecretPlan, type World } from "../support/world.ts";

export interface PeerPlan {
  readonly certificate: Certificate;
  /** What the agent meets: the certificate, nothing at all, or a byte a second. */
  readonly agent: "served" | "hangs" | "drips";
}

export type FromPeer =
  | { readonly type: "listening"; readonly port: number }
  | { readonly type: "planned" }
  | { readonly type: "agent" }
  | { readonly type: "request"; readonly authorization: string };

const deadlineMs = 60_000;

export class Peer {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #messages = new EventEmitter();
  readonly requests: string[] = [];
  /** Times that the agent has come. */
  visits = 0;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
    child.on("message", (message: FromPeer) => {
      if (message.type === "request") this.requests.push(message.authorization);
      if (message.type === "agent") this.visits += 1;
      this.#messages.emit(message.type);
    });
  }

  static async start(namespace: Namespace, plan: PeerPlan): Promise<Peer> {
    const main = fileURLToPath(new URL("peer-main.ts", import.meta.url));
    const [program = "", ...args] = namespace.within([process.execPath, "--disable-warning=ExperimentalWarning", main]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const [message] = (await once(child, "message", { signal: AbortSignal.timeout(deadlineMs) })) as [FromPeer];
    if (message.type !== "listening") throw new Error("the peer does not listen");
    const peer = new Peer(child, message.port);
    await peer.plan(plan);
    return peer;
  }

  async plan(plan: PeerPlan): Promise<void> {
    const planned = once(this.#messages, "planned", { signal: AbortSignal.timeout(deadlineMs) });
    this.#child.send(plan);
    await planned;
  }

  async close(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.disconnect();
    await ended;
  }
}

/** The agent's clocks; see clock.c. */
export class AgentClock {
  readonly file: string;
  readonly #library: string;
  readonly #steps = [0n, 0n] as [bigint, bigint];

  constructor(directory: string) {
    this.file = join(directory, `clock-${process.hrtime.bigint()}`);
    this.#library = join(root, "build/test/clock.so");
    mkdirSync(join(root, "build/test"), { recursive: true });
    const source = fileURLToPath(new URL("clock.c", import.meta.url));
    const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];
    execFileSync("cc", [...flags, "-o", this.#library, source], { stdio: "inherit" });
    this.#write();
  }

  get environment(): Readonly<Record<string, string>> {
    return { LD_PRELOAD: this.#library, TEST_CLOCK: this.file };
  }

  /** Time passes, for all clocks. */
  pass(seconds: number): void {
    this.#step(seconds, seconds);
  }

  /** Somebody sets the wall clock. */
  set(seconds: number): void {
    this.#step(seconds, 0);
  }

  #step(real: number, monotonic: number): void {
    this.#steps[0] += BigInt(real) * 1_000_000_000n;
    this.#steps[1] += BigInt(monotonic) * 1_000_000_000n;
    this.#write();
  }

  /** In place: the file is mapped. */
  #write(): void {
    const bytes = Buffer.alloc(16);
    this.#steps.forEach((step, i) => bytes.writeBigInt64LE(step, i * 8));
    const file = openSync(this.file, "a+");
    closeSync(file);
    if (readFileSync(this.file).length === 0) writeFileSync(this.file, bytes);
    else {
      const mapped = openSync(this.file, "r+");
      writeSync(mapped, bytes, 0, 16, 0);
      closeSync(mapped);
    }
  }
}

/** What a request came to: the secret arrived, or the placeholder did, or nothing. */
export type Arrival = "secret" | "placeholder" | "nothing";

/** A `kloak run` whose command makes one request for each line that it reads. */
export class Site {
  readonly clock: AgentClock;
  readonly value: string = makeSecret(51);
  readonly #peer: Peer;
  readonly #running: Running;
  #answers = 0;
  #said = "";

  constructor(world: World, peer: Peer, secret: Partial<SecretPlan> = {}) {
    this.#peer = peer;
    this.clock = new AgentClock(world.directory);
    /* -k: whom the client trusts is its own affair. Its clock is the machine's. */
    const curl = 'curl -sk --no-alpn -m 60 --resolve "$1" -H "Authorization: Bearer $SECRET" -o /dev/null "$2"';
    const loop = `while read -r line; do set -- $line; ${curl}; echo "asked $?"; done`;
    this.#running = world.start({
      secrets: { SECRET: { value: this.value, hosts: host, ...secret } },
      command: ["env", "-u", "LD_PRELOAD", "sh", "-c", loop],
      env: this.clock.environment,
      input: null,
      deadlineMs: 240_000,
    });
    this.#running.child.stdout?.on("data", (chunk: Buffer) => {
      this.#said += chunk.toString("latin1");
    });
    this.#running.ended.catch(() => undefined); // told by end()
  }

  /** A new connection to the host at this address, and what arrives on it. */
  async ask(address: string): Promise<Arrival> {
    const before = this.#peer.requests.length;
    const { port } = this.#peer;
    const { child } = this.#running;
    this.#answers += 1;
    child.stdin?.write(
      `${host}:${port}:${address.includes(":") ? `[${address}]` : address} https://${host}:${port}/\n`,
    );
    const signal = AbortSignal.timeout(deadlineMs + 30_000);
    while (this.#said.split("asked ").length - 1 < this.#answers && child.exitCode === null && child.stdout)
      await once(child.stdout, "data", { signal });
    const [arrived, ...more] = this.#peer.requests.slice(before);
    if (more.length > 0) throw new Error("one request has arrived several times");
    if (arrived === undefined) return "nothing";
    return arrived === `Bearer ${this.value}` ? "secret" : "placeholder";
  }

  /** Asks until this is what comes of it: what was known has to be found out again first. */
  async until(wanted: Arrival, address: string): Promise<Arrival[]> {
    const seen: Arrival[] = [];
    const late = AbortSignal.timeout(2 * deadlineMs);
    while (!late.aborted && seen.at(-1) !== wanted) seen.push(await this.ask(address));
    return seen;
  }

  async end(): Promise<readonly AuditRecord[]> {
    this.#running.child.stdin?.end();
    const { audit } = await this.#running.ended;
    return audit;
  }
}

/** The outcomes and reasons of a trail, each run of the same once. */
export function story(audit: readonly AuditRecord[]): string[] {
  const lines = audit.map(({ outcome, reason }) => [outcome, reason].filter(Boolean).join(" "));
  return lines.filter((line, i) => line !== lines[i - 1]);
}

/* Starts the laboratory's HTTPS server in a namespace and keeps what it reports. */
import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { fileURLToPath } from "node:url";
import { KloakError } from "../errors.ts";
import type { Namespace } from "./namespace.ts";
import type { FromServer, ListenerPlan, ServedRequest, ToServer } from "./server-messages.ts";

export type { ListenerPlan, ServedRequest } from "./server-messages.ts";

const startDeadlineMs = 30_000;

/** A running server. Its records grow as requests arrive; `take` hands them over and starts anew. */
export class LabServer {
  readonly ports: Readonly<Record<string, number>>;
  readonly #process: ChildProcess;
  #requests: ServedRequest[] = [];
  #faults: string[] = [];
  #tickets = new Map<number, () => void>();
  #lastTicket = 0;
  readonly #arrivals = new EventEmitter();

  private constructor(process: ChildProcess, ports: Readonly<Record<string, number>>) {
    this.#process = process;
    this.ports = ports;
    process.on("message", (message: FromServer) => this.#hear(message));
  }

  /** Starts it; resolves when every listener listens, on IPv4 and IPv6. */
  static async start(namespace: Namespace, listeners: readonly ListenerPlan[]): Promise<LabServer> {
    const main = fileURLToPath(new URL("server-main.ts", import.meta.url));
    const [program = "ip", ...args] = namespace.within([
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      main,
    ]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const ports = await new Promise<Readonly<Record<string, number>>>((resolve, reject) => {
      const fail = (why: string) =>
        reject(new KloakError("lab-server-failed", `The test server did not start: ${why}.`));
      const timer = setTimeout(() => fail(`nothing heard for ${startDeadlineMs / 1000} s`), startDeadlineMs);
      child.once("exit", (status, signal) => fail(`it ended with ${signal ?? status}; its own message stands above`));
      child.once("error", (error) => fail(error.message));
      child.on("message", (message: FromServer) => {
        if (message.type === "ready") child.send({ type: "listen", listeners } satisfies ToServer);
        if (message.type !== "listening") return;
        clearTimeout(timer);
        child.removeAllListeners();
        resolve(message.ports);
      });
    });
    return new LabServer(child, ports);
  }

  #hear(message: FromServer): void {
    if (message.type === "request") {
      this.#requests.push(message.request);
      this.#arrivals.emit("request");
    } else if (message.type === "fault") this.#faults.push(`${message.listener}: ${message.message}`);
    else if (message.type === "flushed") this.#tickets.get(message.ticket)?.();
  }

  port(listener: string): number {
    const port = this.ports[listener];
    if (port === undefined) throw new KloakError("no-such-listener", `The test server has no listener ${listener}.`);
    return port;
  }

  /**
   * What has arrived since the last call: requests in order, and TLS or HTTP errors that the server met. A `raw` listener
   * reports when a connection closes: `closed` waits for all of that listener's.
   */
  async take(options: { readonly closed?: string } = {}): Promise<{ requests: ServedRequest[]; faults: string[] }> {
    await this.#flush(options.closed);
    const taken = { requests: this.#requests, faults: this.#faults };
    this.#requests = [];
    this.#faults = [];
    return taken;
  }

  /** Resolves when `count` requests for `/hold` have come since the last `take`; they are answered by `release`. */
  async held(count: number, deadlineMs: number): Promise<void> {
    const signal = AbortSignal.timeout(deadlineMs);
    while (this.#requests.filter(({ path }) => path === "/hold").length < count) {
      await once(this.#arrivals, "request", { signal });
    }
  }

  release(): void {
    this.#process.send({ type: "release" } satisfies ToServer);
  }

  /** Everything that the server had said before this call has been heard when it resolves. */
  #flush(closed?: string): Promise<void> {
    this.#lastTicket += 1;
    const ticket = this.#lastTicket;
    return new Promise((resolve) => {
      this.#tickets.set(ticket, () => {
        this.#tickets.delete(ticket);
        resolve();
      });
      this.#process.send({ type: "flush", ticket, ...(closed === undefined ? {} : { closed }) } satisfies ToServer);
    });
  }

  async close(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    this.#process.disconnect();
    await ended;
  }
}

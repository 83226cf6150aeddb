/* Ports of the command on the host's loopback, and of the host on the command's. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { KloakError } from "../errors.ts";
import { errorCode, netnsSocket } from "./native.ts";
import { type Listener, listen, listenIfAddress, relayTo, type Target } from "./relay.ts";

export interface PortPair {
  /** On the host. */
  readonly host: number;
  /** In the command's namespace. */
  readonly inside: number;
}

export interface Inside {
  /** The command's network namespace, as a path. */
  readonly netns: string;
  /** Process whose /proc/PID/net shows that namespace. */
  readonly pid: number;
  /** Address of the command's end of the wire. */
  readonly address: string;
}

const loopbacks = ["127.0.0.1", "::1"] as const;

/** `--publish PORT[:PORT]`: connections to the host's loopback go to a port of the command. */
export async function publish(pair: PortPair, inside: Inside): Promise<Listener> {
  const listeners: Listener[] = [];
  try {
    for (const host of loopbacks) {
      const listener = await listenIfAddress({ host, port: pair.host }, (socket) =>
        connectInside(socket, pair.inside, inside),
      );
      if (listener !== undefined) listeners.push(listener);
    }
  } catch (error) {
    await closeAll(listeners);
    throw publishError(pair, error);
  }
  return { port: pair.host, close: () => closeAll(listeners) };
}

/** A server listens on loopback, or on all addresses, or on the wire's alone. */
function connectInside(socket: Socket, port: number, { netns, address }: Inside): void {
  const targets = [...loopbacks, address].map(
    (host): Target =>
      () =>
        netnsSocket(netns, "connect", host, port),
  );
  relayTo(socket, targets);
}

function publishError(pair: PortPair, error: unknown): KloakError {
  const port = `Port ${pair.host} cannot be published on the host's loopback`;
  if (errorCode(error) === "EADDRINUSE") {
    const next = `Choose another one: --publish HOSTPORT:${pair.inside}`;
    return new KloakError("port-in-use", `${port}: another process listens on it. ${next}.`, { cause: error });
  }
  return new KloakError("publish-failed", `${port}: ${errorCode(error) ?? String(error)}.`, { cause: error });
}

/** `--host-port PORT`: connections of the command to its loopback go to the same port of the host's. */
export async function openHostPort(port: number, { netns }: Inside): Promise<Listener> {
  const listeners: Listener[] = [];
  const targets = loopbacks.map((host): Target => ({ host, port }));
  for (const host of loopbacks) {
    let fd: number;
    try {
      fd = netnsSocket(netns, "listen", host, port);
    } catch (error) {
      if (host === "::1") continue; // no IPv6 here
      throw new KloakError(
        "host-port-failed",
        `--host-port ${port}: ${errorCode(error) ?? String(error)} in the command's namespace.`,
        {
          cause: error,
        },
      );
    }
    listeners.push(await listen({ fd }, (socket) => relayTo(socket, targets)));
  }
  return { port, close: () => closeAll(listeners) };
}

async function closeAll(listeners: readonly Listener[]): Promise<void> {
  await Promise.all(listeners.map((listener) => listener.close()));
}

const followEveryMs = 200;

/** `--publish auto`: every port that a process of the command listens on, as long as it does. */
export class PortFollower {
  readonly #inside: Inside;
  readonly #skip: ReadonlySet<number>;
  readonly #note: (message: string) => void;
  readonly #open = new Map<number, Listener>();
  readonly #refused = new Set<number>();
  #timer: NodeJS.Timeout | undefined;
  #busy: Promise<void> = Promise.resolve();
  #closed = false;

  /** `skip`: ports that kloak itself listens on inside. */
  constructor(inside: Inside, skip: ReadonlySet<number>, note: (message: string) => void) {
    this.#inside = inside;
    this.#skip = skip;
    this.#note = note;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#busy = this.#busy.then(() => this.#follow());
    }, followEveryMs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#busy;
    await closeAll([...this.#open.values()]);
    this.#open.clear();
  }

  async #follow(): Promise<void> {
    if (this.#closed) return;
    const listening = listeningPorts(this.#inside.pid);
    for (const [port, listener] of this.#open) {
      if (listening.has(port)) continue;
      this.#open.delete(port);
      await listener.close();
    }
    for (const port of this.#refused) if (!listening.has(port)) this.#refused.delete(port);
    for (const port of listening) {
      if (this.#open.has(port) || this.#refused.has(port) || this.#skip.has(port)) continue;
      await this.#publish(port);
    }
  }

  async #publish(port: number): Promise<void> {
    try {
      this.#open.set(port, await publish({ host: port, inside: port }, this.#inside));
      this.#note(`port ${port} of the command is published at http://127.0.0.1:${port}`);
    } catch (error) {
      this.#refused.add(port);
      this.#note(error instanceof Error ? error.message : String(error));
    }
  }
}

const stateListen = "0A";

/** TCP ports on which somebody listens in the namespace that process `pid` is in. */
export function listeningPorts(pid: number): Set<number> {
  return new Set(["tcp", "tcp6"].flatMap((file) => parseListening(read(`/proc/${pid}/net/${file}`))));
}

/** The listening ports in a table as /proc/net/tcp prints it (proc_net_tcp.rst). */
export function parseListening(table: string): number[] {
  return table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [, local = "", , state] = line.trim().split(/\s+/);
      return state === stateListen ? [Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16)] : [];
    });
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

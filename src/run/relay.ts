import { connect, createServer, type Server, Socket } from "node:net";
import { errorCode } from "./native.ts";

/** Joins two connections: bytes and ends go both ways, and an error of one ends the other. */
export function join(a: Socket, b: Socket): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.pipe(to);
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
  }
}

/** A listener whose connections are kept count of, so that closing it ends them too. */
export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

export type Where = { readonly host: string; readonly port: number } | { readonly fd: number };

/** Hands each connection to `connected`. Rejects with the system's error if it cannot listen. */
export async function listen(where: Where, connected: (socket: Socket) => void): Promise<Listener> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    connected(socket);
  });
  await start(server, where);
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function start(server: Server, where: Where): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      server.on("error", () => undefined); // accept(2) out of descriptors: the next one may do
      resolve();
    });
  });
}

/** Like `listen`, but undefined where the host has no such address (IPv6 turned off). */
export async function listenIfAddress(
  where: Where,
  connected: (socket: Socket) => void,
): Promise<Listener | undefined> {
  try {
    return await listen(where, connected);
  } catch (error) {
    if (["EADDRNOTAVAIL", "EAFNOSUPPORT", "EINVAL"].includes(errorCode(error) ?? "")) return undefined;
    throw error;
  }
}

/** Connects to the first of `targets` that accepts, and joins; with none the client's connection is reset. */
export function relayTo(client: Socket, targets: readonly Target[]): void {
  const [target, ...others] = targets;
  if (target === undefined) {
    client.resetAndDestroy();
    return;
  }
  const server = open(target);
  if (server === undefined) return relayTo(client, others);
  server.once("error", () => {
    if (server.bytesRead === 0 && server.bytesWritten === 0) relayTo(client, others);
  });
  if (server.connecting) server.once("connect", () => join(client, server));
  else join(client, server);
}

/** A port, or a function that gives the descriptor of a connected socket or throws. */
export type Target = { readonly host: string; readonly port: number } | (() => number);

function open(target: Target): Socket | undefined {
  if (typeof target !== "function") return connect({ ...target, allowHalfOpen: true, noDelay: true });
  try {
    return new Socket({ fd: target(), allowHalfOpen: true });
  } catch {
    return undefined;
  }
}

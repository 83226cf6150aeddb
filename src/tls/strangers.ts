/*
 * Connections on which nobody has asked anything yet. When there are too many the oldest ends, so that who says nothing, or
 * says it slowly, does not take the place of those who have something to ask.
 */
import type { IncomingMessage } from "node:http";
import type { Server, Socket } from "node:net";

/** How often Node looks for those who take too long; they are ended by the server's own time limits. */
export const checkMs = 2000;

/** @param most connections without a request at a time */
export function boundStrangers(server: Server, most = 512): void {
  const strangers = new Map<string, Socket>();
  server.on("connection", (socket: Socket) => {
    const name = nameOf(socket);
    strangers.set(name, socket);
    socket.on("close", () => {
      if (strangers.get(name) === socket) strangers.delete(name);
    });
    if (strangers.size > most) strangers.values().next().value?.destroy();
  });
  server.on("request", ({ socket }: IncomingMessage) => strangers.delete(nameOf(socket)));
}

/** The same of a TLS socket and of what lies below it. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

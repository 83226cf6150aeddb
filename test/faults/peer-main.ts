/*
 * A server that fails as it is told, in the namespace of the other machine. Who offers ALPN is the agent, who does not is
 * the client of the test. Orders come over IPC, and what has happened goes back.
 */
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { createSecureContext, createServer as createTlsServer } from "node:tls";
import type { FromPeer, PeerPlan } from "./peer.ts";

const dripMs = 1000;
let plan: PeerPlan | undefined;

const say = (message: FromPeer): void => void process.send?.(message);

const server = createTlsServer({ handshakeTimeout: 600_000, ALPNProtocols: ["http/1.1"] }, (socket) => {
  let head = "";
  socket.on("data", (bytes: Buffer) => {
    head += bytes.toString("latin1");
    if (!head.includes("\r\n\r\n")) return;
    say({ type: "request", authorization: /^authorization: (.*)\r$/im.exec(head)?.[1] ?? "" });
    head = "";
    socket.end("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n");
  });
  socket.on("error", () => socket.destroy());
});
server.on("tlsClientError", () => undefined);

/** Lets the server answer to the hello through a connection of its own, and hands that on a byte at a time. */
function drip(socket: Socket, hello: Buffer): void {
  const inner = createServer((far) => {
    inner.close();
    far.unshift(hello);
    server.emit("connection", far);
  });
  inner.listen(0, "127.0.0.1", () => {
    const near = connect((inner.address() as AddressInfo).port, "127.0.0.1"); // listens on TCP
    const waiting: number[] = [];
    near.on("data", (bytes: Buffer) => waiting.push(...bytes));
    socket.pipe(near);
    const timer = setInterval(() => {
      const byte = waiting.shift();
      if (byte !== undefined) socket.write(Buffer.from([byte]));
    }, dripMs);
    socket.on("close", () => {
      clearInterval(timer);
      near.destroy();
    });
    near.on("error", () => socket.destroy());
  });
}

const door = createServer((socket) => {
  socket.on("error", () => socket.destroy());
  socket.once("data", (hello: Buffer) => {
    const agent = hello.includes("http/1.1");
    if (agent) say({ type: "agent" });
    socket.pause();
    if (agent && plan?.agent === "hangs") return;
    if (agent && plan?.agent === "drips") {
      drip(socket, hello);
      return;
    }
    socket.unshift(hello);
    server.emit("connection", socket);
  });
});

process.on("message", (next: PeerPlan) => {
  plan = next;
  const { keyFile, certificateFile } = next.certificate;
  const context = { key: readFileSync(keyFile), cert: readFileSync(certificateFile) };
  createSecureContext(context); // throws at what cannot be used
  server.setSecureContext(context);
  say({ type: "planned" });
});
process.on("disconnect", () => process.exit(0));
door.listen(0, "::", () => say({ type: "listening", port: (door.address() as AddressInfo).port }));

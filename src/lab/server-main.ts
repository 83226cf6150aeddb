/* The laboratory's HTTPS server: a process of its own, in the namespace of the other machine. Reports over IPC. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type Server as TlsServer, type TlsOptions, type TLSSocket } from "node:tls";
import { pipeline } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { FromServer, ListenerPlan, ServedRequest, ToServer } from "./server-messages.ts";

const keptBody = 64 * 1024;
const connections = new WeakMap<object, number>();
/** By listener: of raw ones, from the TCP connection on. */
const openSockets = new Map<string, Set<Socket>>();
const held: (ServerResponse | Http2ServerResponse)[] = [];
let connectionCount = 0;

function send(message: FromServer): void {
  process.send?.(message);
}

function connectionNumber(socket: TLSSocket): number {
  const known = connections.get(socket);
  if (known !== undefined) return known;
  connectionCount += 1;
  connections.set(socket, connectionCount);
  return connectionCount;
}

function describe(socket: TLSSocket, plan: ListenerPlan) {
  return {
    listener: plan.name,
    connection: connectionNumber(socket),
    remoteAddress: socket.remoteAddress ?? "",
    serverName: typeof socket.servername === "string" && socket.servername !== "" ? socket.servername : null,
    version: socket.getProtocol() ?? "",
    cipher: socket.getCipher()?.name ?? "",
  };
}

function tlsOptions(plan: ListenerPlan): TlsOptions {
  return {
    key: readFileSync(plan.certificate.keyFile),
    cert: readFileSync(plan.certificate.certificateFile),
    ...(plan.version ? { minVersion: plan.version, maxVersion: plan.version } : {}),
    ...(plan.cipher ? { ciphers: plan.cipher } : {}),
    ALPNProtocols: [plan.onlyAlpn ?? (plan.kind === "http2" ? "h2" : "http/1.1")],
    handshakeTimeout: 600_000,
  };
}

/** Lets only those begin who offer the protocol: to all others the server says nothing. */
function guarded(server: TlsServer, alpn: string): Server {
  return createTcpServer((socket) => {
    socket.once("data", (hello) => {
      if (!hello.includes(alpn)) return;
      socket.pause();
      socket.unshift(hello);
      server.emit("connection", socket);
    });
    socket.on("error", () => socket.destroy());
  });
}

function answer(response: ServerResponse | Http2ServerResponse, data?: unknown): void {
  const body = data === undefined ? "ok\n" : JSON.stringify(data);
  response.setHeader("content-type", data === undefined ? "text/plain" : "application/json");
  response.setHeader("content-length", Buffer.byteLength(body));
  response.end(body);
}

/** As the services of language models stream theirs (HTML Living Standard, "Server-sent events"). */
function stream(response: ServerResponse | Http2ServerResponse, events: readonly unknown[]): void {
  response.setHeader("content-type", "text/event-stream");
  const lines = [...events.map((event) => JSON.stringify(event)), "[DONE]"];
  async function* few(): AsyncGenerator<string> {
    for (let i = 0; i < lines.length; i += 10) {
      yield lines
        .slice(i, i + 10)
        .map((line) => `data: ${line}\n\n`)
        .join("");
      await delay(1);
    }
  }
  pipeline(few, response, () => undefined); // who hangs up has had enough
}

/** Answers a call with the messages that it has sent. As gRPC over HTTP/2 has it: what became of it is in the trailers. */
function echo(response: ServerResponse | Http2ServerResponse, messages: Buffer): void {
  response.setHeader("content-type", "application/grpc");
  response.addTrailers({ "grpc-status": "0" });
  response.end(messages);
}

/** The same for both versions of HTTP; `socketOf` because that of HTTP/2 is a proxy, another for each request. */
function handler<Request extends IncomingMessage | Http2ServerRequest>(
  plan: ListenerPlan,
  socketOf: (request: Request) => TLSSocket,
) {
  return (request: Request, response: ServerResponse | Http2ServerResponse): void => {
    const socket = socketOf(request);
    const hash = createHash("sha256");
    const kept: Buffer[] = [];
    let bodyLength = 0;
    const isCall = request.headers["content-type"]?.startsWith("application/grpc");
    request.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      bodyLength += chunk.length;
      if (bodyLength <= keptBody || isCall) kept.push(chunk);
    });
    request.on("end", () => {
      const raw = request.rawHeaders;
      const headers: [string, string][] = [];
      for (let i = 0; i + 1 < raw.length; i += 2) headers.push([raw[i] ?? "", raw[i + 1] ?? ""]);
      report({
        ...describe(socket, plan),
        method: request.method ?? "",
        path: request.url ?? "",
        headers,
        bodyLength,
        bodySha256: hash.digest("hex"),
        body: bodyLength <= keptBody ? Buffer.concat(kept).toString("latin1") : null,
      });
      const path = request.url?.split("?")[0] ?? "";
      if (isCall) echo(response, Buffer.concat(kept));
      else if (request.url === "/hold") held.push(response);
      else if (plan.events?.[path] !== undefined) stream(response, plan.events[path]);
      else answer(response, plan.answers?.[path]);
    });
  };
}

function serveHttp(plan: ListenerPlan) {
  const options = { ...tlsOptions(plan), maxHeaderSize: 64 * 1024, keepAliveTimeout: 600_000 };
  // An https server has no other sockets.
  const handle = handler<IncomingMessage>(plan, ({ socket }) => socket as TLSSocket);
  const server = createHttpsServer(options, handle);
  server.on("clientError", (error, socket) => {
    fault(plan, error);
    socket.destroy();
  });
  return server;
}

function serveHttp2(plan: ListenerPlan) {
  const settings = { headerTableSize: plan.headerTableSize ?? 4096, maxHeaderListSize: 128 * 1024 };
  const sockets = new WeakMap<object, TLSSocket>();
  const server = createSecureServer(
    { ...tlsOptions(plan), settings },
    handler<Http2ServerRequest>(plan, ({ stream }) => sockets.get(stream.session ?? stream) as TLSSocket),
  );
  let latest: TLSSocket | undefined;
  server.prependListener("secureConnection", (socket) => {
    latest = socket;
  });
  server.on("session", (session) => {
    if (latest) sockets.set(session, latest);
    session.on("error", (error) => fault(plan, error));
  });
  server.on("sessionError", (error) => fault(plan, error));
  // Who looks at the certificate alone speaks no HTTP/2.
  server.on("unknownProtocol", (socket) => socket.destroy());
  return server;
}

function serveRaw(plan: ListenerPlan) {
  const open = new Set<Socket>();
  openSockets.set(plan.name, open);
  const server = createTlsServer(tlsOptions(plan), (socket) => {
    const about = describe(socket, plan);
    const received: Buffer[] = [];
    let answered = 0;
    socket.on("data", (chunk: Buffer) => {
      received.push(chunk);
      const ends =
        Buffer.concat(received)
          .toString("latin1")
          .split(/\r?\n\r?\n/).length - 1;
      for (; answered < ends; answered += 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
    });
    socket.on("error", (error) => fault(plan, error));
    socket.on("end", () => socket.end());
    socket.on("close", () => {
      const body = Buffer.concat(received);
      report({
        ...about,
        method: "",
        path: "",
        headers: [],
        bodyLength: body.length,
        bodySha256: createHash("sha256").update(body).digest("hex"),
        body: body.toString("latin1"),
      });
    });
  });
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  return server;
}

/** Answers once every connection that a listener has is closed, and reported with that. */
async function flush({ ticket, closed }: { ticket: number; closed?: string }): Promise<void> {
  const open = closed === undefined ? [] : (openSockets.get(closed) ?? []);
  await Promise.all([...open].map((socket) => new Promise((resolve) => socket.once("close", resolve))));
  send({ type: "flushed", ticket });
}

function report(request: ServedRequest): void {
  send({ type: "request", request });
}

function fault(plan: ListenerPlan, error: NodeJS.ErrnoException): void {
  // Who only looks at the certificate hangs up then; and a client that fails says so itself.
  if (error.code === "ECONNRESET") return;
  const code = error.code === undefined ? "" : ` (${error.code})`;
  send({ type: "fault", listener: plan.name, message: `${error.message}${code}` });
}

async function listen(plans: readonly ListenerPlan[]): Promise<void> {
  const ports: Record<string, number> = {};
  for (const plan of plans) {
    const serve = { raw: serveRaw, http: serveHttp, http2: serveHttp2 }[plan.kind ?? "http"];
    const server = serve(plan);
    server.on("tlsClientError", (error) => fault(plan, error));
    const door = plan.onlyAlpn === undefined ? server : guarded(server, plan.onlyAlpn);
    await new Promise<void>((resolve) => door.listen(plan.port ?? 0, "::", () => resolve()));
    ports[plan.name] = (door.address() as AddressInfo).port; // listens on TCP
  }
  send({ type: "listening", ports });
}

process.on("message", (message: ToServer) => {
  if (message.type === "listen") void listen(message.listeners);
  else if (message.type === "release") for (const response of held.splice(0)) answer(response);
  else void flush(message);
});
process.on("disconnect", () => process.exit(0));
send({ type: "ready" });

/* An HTTPS server of ours: routes, bounded bodies, a certificate that changes while it runs. */
import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import type { CertificateSource, ServerIdentity } from "./certificate-source.ts";
import { boundStrangers, checkMs } from "./strangers.ts";

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly socket: TLSSocket;
  readonly url: URL;
  /** The body, once, at most as long as the server allows. @throws HttpError 413, 400 */
  readonly json: () => Promise<unknown>;
}

/** Answers an exchange: with a value it is sent as JSON; undefined: it has answered itself. */
export type Route = (exchange: Exchange) => Promise<unknown>;

export interface HttpsServerOptions {
  readonly certificates: CertificateSource;
  readonly host?: string;
  readonly port: number;
  /** `METHOD /path`. */
  readonly routes: Readonly<Record<string, Route>>;
  /** For what no route is for. */
  readonly otherwise?: Route;
  /** Ask clients for a certificate; whether it is good is for the routes to say. */
  readonly askCertificate?: boolean;
  readonly bodyLimit?: number;
  readonly warn: (message: string) => void;
}

export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "HttpError";
    this.status = status;
  }
}

/** An AdmissionReview has an object and the one before, each at most 1.5 MiB in etcd, as JSON with base64 in it. */
const defaultBodyLimit = 8 * 1024 * 1024;
/** Of all bodies that are being read; who may send them is known only afterwards. */
const bodiesLimit = 6 * defaultBodyLimit;
const bodyTimeoutMs = 15_000;
const handshakeTimeoutMs = 5000;

let bodiesBytes = 0;

export class HttpsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws Error if there is no certificate yet, or the port is taken */
  static async listen(options: HttpsServerOptions): Promise<HttpsServer> {
    const { certificates, askCertificate = false } = options;
    if (certificates.identity === undefined) throw new Error("the server has no certificate yet");
    const context = (identity: ServerIdentity) => ({
      cert: identity.certificate,
      key: identity.key,
      ca: identity.trust,
      minVersion: "TLSv1.2" as const,
    });
    const server = createServer(
      {
        ...context(certificates.identity),
        requestCert: askCertificate,
        rejectUnauthorized: false,
        handshakeTimeout: handshakeTimeoutMs,
        connectionsCheckingInterval: checkMs,
      },
      (request, response) => void answer(request, response, options),
    );
    certificates.onChange((identity) => server.setSecureContext(context(identity)));
    server.keepAliveTimeout = 120_000; // longer than the API server's idle connections (90 s)
    server.headersTimeout = 10_000;
    server.requestTimeout = bodyTimeoutMs;
    server.maxHeadersCount = 100;
    boundStrangers(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(options.port, options.host ?? "::", () => {
        server.off("error", reject);
        resolve();
      });
    });
    server.on("tlsClientError", () => undefined); // strangers
    return new HttpsServer(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Takes no more connections; what is under way may end, for as long as `graceMs`. */
  async close(graceMs = 0): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const timer = setTimeout(() => this.#server.closeAllConnections(), graceMs);
    this.#server.closeIdleConnections();
    await closed;
    clearTimeout(timer);
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, options: HttpsServerOptions): Promise<void> {
  try {
    const target = request.url ?? "/";
    if (!URL.canParse(target, "https://host")) throw new HttpError(400, "the path is none");
    const url = new URL(target, "https://host");
    const route = options.routes[`${request.method} ${url.pathname}`] ?? options.otherwise;
    if (route === undefined) throw new HttpError(404, `there is no ${request.method} ${url.pathname}`);
    const limit = options.bodyLimit ?? defaultBodyLimit;
    const json = (): Promise<unknown> => readJson(request, limit);
    const value = await route({ request, response, url, socket: request.socket as TLSSocket, json });
    if (value !== undefined) send(response, 200, value);
  } catch (error) {
    const status = error instanceof HttpError ? error.status : 500;
    const message = error instanceof Error ? error.message : String(error);
    if (status === 500) options.warn(`${request.method} ${request.url?.split("?")[0]}: ${message}`);
    if (response.headersSent) response.destroy();
    else send(response, status, { error: status === 500 ? "something went wrong: the log says what" : message });
  }
}

function send(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // Whoever is refused so has no further use of the connection, and may be a stranger.
    ...([401, 403, 413].includes(status) ? { connection: "close" } : {}),
  });
  response.end(body);
}

async function readJson(request: IncomingMessage, limit: number): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      bodiesBytes += chunk.length;
      if (length > limit) throw new HttpError(413, `the body has more than ${limit} bytes`);
      if (bodiesBytes > bodiesLimit) throw new HttpError(503, "too many large bodies at once");
      chunks.push(chunk);
    }
    return parse(Buffer.concat(chunks).toString("utf8"));
  } finally {
    bodiesBytes -= length;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpError(400, "the body is not JSON");
  }
}

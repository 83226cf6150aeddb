/* An HTTPS server that answers as a test wants, and so as no API server should. */
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { createAuthority } from "../lab/certificates.ts";
import { KubeClient } from "./client.ts";
import type { Connection } from "./connection.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly authorization: string | undefined;
  /** Parsed; undefined if there was none. */
  readonly body: unknown;
  readonly socket: Socket;
}

export type Answer = (asked: Asked, response: ServerResponse) => void;

export class UnrulyServer {
  readonly asked: Asked[] = [];
  answer: Answer = (_, response) => send(response, 404, {});
  readonly ca: string;
  readonly #server: Server;
  readonly #clients: KubeClient[] = [];

  private constructor(server: Server, ca: string) {
    this.#server = server;
    this.ca = ca;
    server.on("request", (request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const url = new URL(request.url ?? "/", "https://host");
        const text = Buffer.concat(chunks).toString("utf8");
        const asked: Asked = {
          method: request.method ?? "",
          path: url.pathname,
          query: url.searchParams,
          authorization: request.headers.authorization,
          body: text === "" ? undefined : JSON.parse(text),
          socket: request.socket,
        };
        this.asked.push(asked);
        this.answer(asked, response);
      });
      for (const each of [request, response]) each.on("error", () => undefined);
    });
  }

  static async start(): Promise<UnrulyServer> {
    const folder = mkdtempSync(join(tmpdir(), "kloak-kube-"));
    try {
      const authority = createAuthority(folder, "unruly");
      const { keyFile, certificateFile } = authority.issue("server", { ip: ["127.0.0.1"], dns: ["api.test"] });
      const server = createServer({ key: readFileSync(keyFile), cert: readFileSync(certificateFile) });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return new UnrulyServer(server, readFileSync(authority.caFile, "utf8"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  client(more: Partial<Connection> = {}): KubeClient {
    const connection = { server: new URL(this.url), ca: this.ca, authorization: () => "Bearer one", ...more };
    const client = new KubeClient(connection);
    this.#clients.push(client);
    return client;
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export function send(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
}

/** A refusal as the API server words it. */
export function refuse(response: ServerResponse, code: number, reason: string, headers?: Record<string, string>): void {
  send(response, code, { kind: "Status", code, reason, message: `it is ${reason}` }, headers);
}

/** Waits until `condition` holds. */
export async function until(what: string, condition: () => boolean, deadlineMs = 20_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs / 1000} s in vain for ${what}`);
    await delay(5);
  }
}

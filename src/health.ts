/* `/healthz`, `/readyz` and `/metrics`, without TLS, as kubelet and scrapers want them, and without anything secret. */
import { createServer, type Server } from "node:http";
import { boundStrangers, checkMs } from "./tls/strangers.ts";

export interface HealthOptions {
  readonly port: number;
  readonly isReady: () => boolean;
  /** What `/readyz` says until then. */
  readonly notReady: string;
  readonly metrics: () => Promise<{ readonly type: string; readonly text: string }>;
}

/** @throws Error if the port is taken */
export async function serveHealth({ port, isReady, notReady, metrics }: HealthOptions): Promise<Server> {
  const server = createServer({ connectionsCheckingInterval: checkMs }, (request, response) => {
    if (request.url === "/healthz") response.end("ok\n");
    else if (request.url === "/readyz") {
      const ready = isReady();
      response.writeHead(ready ? 200 : 503).end(ready ? "ok\n" : `${notReady}\n`);
    } else if (request.url === "/metrics") {
      metrics().then(
        ({ type, text }) => response.writeHead(200, { "content-type": type }).end(text),
        () => response.writeHead(500).end(),
      );
    } else response.writeHead(404).end();
  });
  server.headersTimeout = 5000;
  server.requestTimeout = 5000;
  boundStrangers(server, 64); // the kubelet must always be answered
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "::", resolve);
  });
  return server;
}

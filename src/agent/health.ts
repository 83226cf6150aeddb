/*
 * `/healthz`, `/readyz` and `/metrics` of an agent, without TLS, as kubelet and scrapers want them. Written out by hand in
 * the text format of Prometheus (exposition format 0.0.4): the usual library takes a quarter of an agent's memory.
 */
import { createServer, type Server } from "node:http";

export interface HealthOptions {
  readonly port: number;
  /** Everything that is wanted is protected. */
  readonly isReady: () => boolean;
  /** By name, as `records_sealed`. */
  readonly counters: () => Readonly<Record<string, bigint>>;
  readonly gauges: () => Readonly<Record<string, number>>;
}

/** @throws Error if the port is taken */
export async function serveHealth(options: HealthOptions): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url === "/healthz") response.end("ok\n");
    else if (request.url === "/readyz") {
      const ready = options.isReady();
      response.writeHead(ready ? 200 : 503).end(ready ? "ok\n" : "the controller has not said yet what to protect\n");
    } else if (request.url === "/metrics") {
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4" }).end(metricsText(options));
    } else response.writeHead(404).end();
  });
  server.headersTimeout = 5000;
  server.requestTimeout = 5000;
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, "::", resolve);
  });
  return server;
}

export function metricsText({ counters, gauges }: Pick<HealthOptions, "counters" | "gauges">): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(counters())) {
    const metric = `kloak_agent_${snakeCase(name)}_total`;
    lines.push(`# TYPE ${metric} counter`, `${metric} ${value}`);
  }
  for (const [name, value] of Object.entries(gauges())) {
    const metric = `kloak_agent_${snakeCase(name)}`;
    lines.push(`# TYPE ${metric} gauge`, `${metric} ${value}`);
  }
  return `${lines.join("\n")}\n`;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

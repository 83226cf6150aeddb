/* An HTTPS server on the machine that runs the tests, with an authority of its own: what pods call. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Received {
  readonly authorization: string;
  readonly from: string;
}

export class Upstream {
  readonly received: Received[] = [];
  readonly host: string;
  /** PEM. */
  readonly authority: string;
  readonly #server: Server;

  private constructor(host: string, server: Server, authority: string) {
    this.host = host;
    this.#server = server;
    this.authority = authority;
  }

  static async start(name: string, address: string): Promise<Upstream> {
    const folder = mkdtempSync(join(tmpdir(), "kloak-upstream-"));
    try {
      const make = (...args: readonly string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });
      const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
      make("req", "-x509", ...key, "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt");
      make(
        "req",
        ...key,
        "-subj",
        `/CN=${name}`,
        "-addext",
        `subjectAltName=DNS:${name}`,
        "-keyout",
        "key",
        "-out",
        "csr",
      );
      make(
        "x509",
        "-req",
        "-in",
        "csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-copy_extensions",
        "copy",
        "-out",
        "crt",
      );
      const read = (file: string): string => readFileSync(join(folder, file), "utf8");
      const server = createServer({ cert: read("crt"), key: read("key") });
      const upstream = new Upstream(name, server, read("ca.crt"));
      server.on("request", (request, response) => {
        const { authorization = "" } = request.headers;
        upstream.received.push({ authorization, from: request.socket.remoteAddress ?? "" });
        request.resume();
        response.end("ok\n");
      });
      server.on("tlsClientError", () => undefined);
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(0, address, resolve);
      });
      return upstream;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

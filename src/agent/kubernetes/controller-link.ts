/* The agent's connection to the controller: enrolls, follows the feed, hands in audit records. */
import { generateKeyPairSync } from "node:crypto";
import { request, type RequestOptions } from "node:https";
import type { IncomingMessage } from "node:http";
import type { AuditRecord } from "../../audit/index.ts";
import type { FeedLine } from "../../controller/node-feed.ts";
import { KloakError } from "../../errors.ts";
import { Backoff } from "../../kube/backoff.ts";
import { FileText } from "../../kube/connection.ts";

export interface ControllerLinkOptions {
  /** `https://kloak-controller.kloak-system.svc:9444` */
  readonly server: URL;
  /** PEM file with the controller's authorities. */
  readonly caFile: string;
  /** File with the service-account token for audience `kloak-controller`. */
  readonly tokenFile: string;
  readonly warn: (message: string) => void;
}

interface Credentials {
  readonly cert: string;
  readonly key: string;
  readonly untilMs: number;
}

const answerTimeoutMs = 10_000;
/** A feed says something at least every ten seconds. */
const silenceMs = 30_000;
const renewMs = 30 * 60_000;
const longestLine = 8 * 1024 * 1024;

export class ControllerLink {
  readonly #options: ControllerLinkOptions;
  readonly #ca: FileText;
  readonly #token: FileText;
  #credentials: Credentials | undefined;

  constructor(options: ControllerLinkOptions) {
    this.#options = options;
    this.#ca = new FileText(options.caFile);
    this.#token = new FileText(options.tokenFile);
  }

  /** Follows the feed until `signal` is aborted; `begin` is called before the first line of each stream. */
  async follow(begin: () => void, hear: (line: FeedLine) => void, signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(200, 10_000);
    while (!signal.aborted) {
      try {
        const response = await this.#open("GET", "/v1/feed", undefined, signal);
        begin();
        await readLines(response, (line) => {
          backoff.reset();
          hear(line as FeedLine);
        });
        throw new KloakError("feed-ended", "the controller has ended the feed");
      } catch (error) {
        if (signal.aborted) return;
        this.#options.warn(`controller: ${error instanceof Error ? error.message : String(error)}`);
        if (error instanceof LinkError && (error.status === 401 || error.status === 403)) this.#credentials = undefined;
        await backoff.wait(signal);
      }
    }
  }

  /** Of these pods the cloaked ones, each with the names of the secrets that it may use. @throws LinkError */
  async resolve(uids: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, readonly string[]>> {
    const response = await this.#open("POST", "/v1/pods", JSON.stringify({ uids }), signal);
    const { pods } = JSON.parse(await readText(response)) as { pods: Record<string, string[]> };
    return new Map(Object.entries(pods));
  }

  /** @throws LinkError */
  async send(records: readonly AuditRecord[], signal: AbortSignal): Promise<void> {
    const response = await this.#open("POST", "/v1/records", JSON.stringify(records), signal);
    response.resume();
  }

  async #open(method: string, path: string, body: string | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    const { cert, key } = await this.#enrolled(signal);
    return this.#request({ method, path, cert, key, signal }, body);
  }

  async #enrolled(signal: AbortSignal): Promise<Credentials> {
    if (this.#credentials !== undefined && this.#credentials.untilMs > Date.now()) return this.#credentials;
    const { publicKey, privateKey } = generateKeyPairSync("ec", {
      namedCurve: "P-256",
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    const response = await this.#request({ method: "POST", path: "/v1/enroll", signal }, JSON.stringify({ publicKey }));
    const { certificate } = JSON.parse(await readText(response)) as { certificate: string };
    this.#credentials = { cert: certificate, key: privateKey, untilMs: Date.now() + renewMs };
    return this.#credentials;
  }

  #request(options: RequestOptions, body: string | undefined): Promise<IncomingMessage> {
    const { server } = this.#options;
    return new Promise((resolve, reject) => {
      const outgoing = request({
        ...options,
        agent: false,
        host: server.hostname,
        port: server.port || 443,
        ca: this.#ca.read(),
        minVersion: "TLSv1.3",
        headers: {
          authorization: `Bearer ${this.#token.read().trim()}`,
          ...(body === undefined
            ? {}
            : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
        },
      });
      const timer = setTimeout(() => outgoing.destroy(new Error("no answer")), answerTimeoutMs);
      outgoing.on("error", (cause) => {
        clearTimeout(timer);
        reject(new LinkError(0, `${server.host} cannot be reached: ${cause.message}`, cause));
      });
      outgoing.on("response", (response) => {
        clearTimeout(timer);
        response.socket.setTimeout(silenceMs, () => response.destroy(new Error(`silent for ${silenceMs / 1000} s`)));
        const status = response.statusCode ?? 0;
        if (status === 200) resolve(response);
        else
          readText(response).then(
            (text) => reject(new LinkError(status, `${server.host} answers ${status}: ${text.slice(0, 200)}`)),
            reject,
          );
      });
      outgoing.end(body);
    });
  }
}

export class LinkError extends KloakError {
  /** HTTP status; 0 if there was no answer. */
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super("controller-unreachable", message, { cause });
    this.status = status;
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>)
    text = (text + chunk).slice(0, longestLine);
  return text;
}

async function readLines(response: IncomingMessage, hear: (line: unknown) => void): Promise<void> {
  let rest = "";
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > longestLine) throw new KloakError("feed-broken", "the feed has a line without end");
    for (const line of lines) if (line !== "") hear(JSON.parse(line));
  }
}

/* Requests to the API server, one connection kept alive for each that is under way. */
import { Agent, request } from "node:https";
import type { IncomingMessage } from "node:http";
import type { Connection } from "./connection.ts";
import { KubeError } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { pathOf, type Resource } from "./resource.ts";

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** Until the answer's first byte. */
  readonly timeoutMs?: number;
}

export interface List<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly T[];
}

const answerTimeoutMs = 30_000;
/** Longest single line of a watch, and longest answer: an object is at most 1.5 MiB in etcd, a page of them more. */
const longestAnswer = 64 * 1024 * 1024;

export class KubeClient {
  readonly #connection: Connection;
  readonly #agent: Agent;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#agent = new Agent({
      keepAlive: true,
      ...(connection.ca === undefined ? {} : { ca: connection.ca }),
      ...connection.certificate,
    });
  }

  get<T extends KubeObject>(resource: Resource, namespace: string | undefined, name: string): Promise<T> {
    return this.request("GET", pathOf(resource, namespace, name));
  }

  list<T extends KubeObject>(
    resource: Resource,
    namespace: string | undefined,
    query: RequestOptions["query"],
    signal?: AbortSignal,
  ): Promise<List<T>> {
    return this.request("GET", pathOf(resource, namespace), {
      ...(query === undefined ? {} : { query }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  create<T extends KubeObject>(resource: Resource, namespace: string | undefined, object: unknown): Promise<T> {
    return this.request("POST", pathOf(resource, namespace), { body: object });
  }

  replace<T extends KubeObject>(resource: Resource, object: T): Promise<T> {
    const { namespace, name } = object.metadata;
    return this.request("PUT", pathOf(resource, namespace, name), { body: object });
  }

  /** RFC 6902 operations. */
  patch<T extends KubeObject>(
    resource: Resource,
    namespace: string | undefined,
    name: string,
    operations: readonly unknown[],
  ): Promise<T> {
    return this.request("PATCH", pathOf(resource, namespace, name), {
      body: operations,
      contentType: "application/json-patch+json",
    });
  }

  /** Only if it is still the object that we know. */
  async delete(resource: Resource, { metadata: { namespace, name, uid, resourceVersion } }: KubeObject): Promise<void> {
    await this.request("DELETE", pathOf(resource, namespace, name), {
      body: { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid, resourceVersion } },
    });
  }

  /** @throws KubeError */
  async request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const response = await this.#open(method, path, options);
    const text = await readAll(response);
    return parse(text, `${method} ${path}`) as T;
  }

  /** The lines of a watch, until the server or `signal` ends it. */
  async *lines(path: string, options: RequestOptions): AsyncGenerator<unknown, void, undefined> {
    const response = await this.#open("GET", path, options);
    let rest = "";
    for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
      rest += chunk;
      if (rest.length > longestAnswer) throw new KubeError(0, "TooLong", `GET ${path}: a line without end`);
      let end: number;
      while ((end = rest.indexOf("\n")) !== -1) {
        yield parse(rest.slice(0, end), path);
        rest = rest.slice(end + 1);
      }
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  #open(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    const { server } = this.#connection;
    const query = new URLSearchParams(
      Object.entries(options.query ?? {}).filter((entry): entry is [string, string] => entry[1] !== undefined),
    ).toString();
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const authorization = this.#connection.authorization();
    const timeoutMs = options.timeoutMs ?? answerTimeoutMs;
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void =>
        reject(
          new KubeError(0, "Unreachable", `${method} ${path}: ${server.host} gives no answer: ${cause.message}`, {
            cause,
          }),
        );
      const outgoing = request({
        agent: this.#agent,
        host: server.hostname.replace(/^\[(.*)\]$/, "$1"),
        port: server.port || 443,
        method,
        path: query === "" ? path : `${path}?${query}`,
        headers: {
          accept: "application/json",
          "user-agent": "kloak",
          ...(authorization === undefined ? {} : { authorization }),
          ...(body === undefined
            ? {}
            : { "content-type": options.contentType ?? "application/json", "content-length": Buffer.byteLength(body) }),
        },
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
      const timer = setTimeout(() => outgoing.destroy(new Error(`no answer for ${timeoutMs / 1000} s`)), timeoutMs);
      outgoing.on("error", (error) => {
        clearTimeout(timer);
        fail(error);
      });
      outgoing.on("response", (response) => {
        clearTimeout(timer);
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) resolve(response);
        else readAll(response).then((text) => reject(refusal(status, text, `${method} ${path}`, response)), fail);
      });
      outgoing.end(body);
    });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
    text += chunk;
    if (text.length > longestAnswer) throw new KubeError(0, "TooLong", "the answer has no end");
  }
  return text;
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new KubeError(0, "NotJson", `${what}: the answer is not JSON`, { cause });
  }
}

/** From a Status object (meta/v1), or from whatever a proxy in between has answered. */
function refusal(status: number, text: string, what: string, response: IncomingMessage): KubeError {
  let reason = `Http${status}`;
  let message = text.slice(0, 200);
  try {
    const parsed = JSON.parse(text) as { reason?: unknown; message?: unknown };
    if (typeof parsed.reason === "string") reason = parsed.reason;
    if (typeof parsed.message === "string") message = parsed.message;
  } catch {
    // not the API server's own
  }
  const retryAfter = Number(response.headers["retry-after"]);
  return new KubeError(status, reason, `${what}: ${message}`, Number.isFinite(retryAfter) ? { retryAfter } : {});
}

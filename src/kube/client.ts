/* Requests to the API server, one connection kept alive for each that is under way. */
import { Agent, request } from "node:https";
import type { ClientRequest, IncomingMessage } from "node:http";
import { sleep } from "./backoff.ts";
import type { Connection } from "./connection.ts";
import { KubeError, retryAfterMs } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { pathOf, type Resource } from "./resource.ts";

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** How long the server may say nothing, before its answer and in the middle of it. */
  readonly silenceMs?: number;
  /** It changes nothing, and may be sent again when a connection ends before its answer. GET always is so. */
  readonly isRead?: boolean;
}

export interface List<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly T[];
}

const usualSilenceMs = 30_000;
/** A page of objects. */
const longestAnswer = 64 * 1024 * 1024;
/** One object: at most 1.5 MiB in etcd, as JSON with what the API server adds. */
const longestLine = 8 * 1024 * 1024;
/** A server that is overloaded is asked again, if it says when and that is soon. */
const retries = 4;
const longestRetryMs = 10_000;

export class KubeClient {
  readonly #connection: Connection;
  readonly #agent: Agent;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#agent = new Agent({
      keepAlive: true,
      ...(connection.ca === undefined ? {} : { ca: connection.ca }),
      ...connection.certificate,
      ...connection.verification,
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
    const what = `${method} ${path}`;
    return parse(await readAll(await this.#open(method, path, options), what, options), what) as T;
  }

  /** The lines of a watch, until the server or `signal` ends it. @throws KubeError */
  async *lines(path: string, options: RequestOptions): AsyncGenerator<unknown, void, undefined> {
    const what = `GET ${path}`;
    const response = await this.#open("GET", path, options);
    let rest = "";
    for await (const chunk of chunks(response, what, options)) {
      let start = 0;
      for (let end = chunk.indexOf("\n"); end !== -1; end = chunk.indexOf("\n", start)) {
        const line = rest + chunk.slice(start, end);
        rest = "";
        start = end + 1;
        if (line.trim() !== "") yield parse(line, what);
      }
      rest += chunk.slice(start);
      if (rest.length > longestLine) throw new KubeError(0, "TooLong", `${what}: a line without end`);
    }
    // What is left of a line was cut; who watches again gets it whole.
  }

  close(): void {
    this.#agent.destroy();
  }

  async #open(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#try(method, path, options);
      } catch (error) {
        const waitMs = retryAfterMs(error);
        const isOverload = error instanceof KubeError && (error.status === 429 || error.status === 503);
        if (!isOverload || waitMs === 0 || waitMs > longestRetryMs || tries === retries) throw error;
        await sleep(waitMs, options.signal);
        if (options.signal?.aborted === true) throw error;
      }
    }
  }

  /** One request; sent again if the connection that was kept for it turns out to have ended. */
  async #try(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    const { server } = this.#connection;
    const what = `${method} ${path}`;
    const query = new URLSearchParams(
      Object.entries(options.query ?? {}).filter((entry): entry is [string, string] => entry[1] !== undefined),
    ).toString();
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const authorization = await this.#connection.authorization();
    const silenceMs = options.silenceMs ?? usualSilenceMs;
    const mayRepeat = method === "GET" || options.isRead === true;
    const send = (): ClientRequest =>
      request({
        agent: this.#agent,
        host: server.hostname.replace(/^\[(.*)\]$/, "$1"),
        port: server.port || 443,
        method,
        path: `${server.pathname.replace(/\/$/, "")}${path}${query === "" ? "" : `?${query}`}`,
        headers: {
          accept: "application/json",
          "user-agent": "kloak",
          ...(authorization === undefined ? {} : { authorization }),
          ...this.#connection.headers,
          ...(body === undefined
            ? {}
            : { "content-type": options.contentType ?? "application/json", "content-length": Buffer.byteLength(body) }),
        },
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
    return new Promise((resolve, reject) => {
      const attempt = (): void => {
        const outgoing = send();
        const timer = setTimeout(() => outgoing.destroy(new Error(`no answer for ${silenceMs / 1000} s`)), silenceMs);
        outgoing.on("error", (cause: NodeJS.ErrnoException) => {
          clearTimeout(timer);
          if (mayRepeat && outgoing.reusedSocket && cause.code === "ECONNRESET") attempt();
          else reject(new KubeError(0, "Unreachable", `${what}: ${server.host}: ${cause.message}`, { cause }));
        });
        outgoing.on("response", (response) => {
          clearTimeout(timer);
          const status = response.statusCode ?? 0;
          if (status >= 200 && status < 300) resolve(response);
          else
            readAll(response, what, options).then(
              (text) => reject(refusal(status, text, what, response, server)),
              reject,
            );
        });
        outgoing.end(body);
      };
      attempt();
    });
  }
}

/** What comes of an answer. @throws KubeError if it breaks off, or nothing comes for too long */
async function* chunks(
  response: IncomingMessage,
  what: string,
  { silenceMs = usualSilenceMs }: RequestOptions,
): AsyncGenerator<string, void, undefined> {
  const silent = (): void => void response.destroy(new Error(`silent for ${silenceMs / 1000} s`));
  const timer = setTimeout(silent, silenceMs);
  try {
    for await (const chunk of response.setEncoding("utf8") as AsyncIterable<string>) {
      yield chunk;
      timer.refresh();
    }
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new KubeError(0, "BrokenOff", `${what}: the answer broke off: ${message}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

async function readAll(response: IncomingMessage, what: string, options: RequestOptions): Promise<string> {
  let text = "";
  for await (const chunk of chunks(response, what, options)) {
    text += chunk;
    if (text.length > longestAnswer) throw new KubeError(0, "TooLong", `${what}: an answer without end`);
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
function refusal(status: number, text: string, what: string, response: IncomingMessage, server: URL): KubeError {
  if (status >= 300 && status < 400) {
    const message = `${what}: ${server.host} sends us on to another place, and our credentials are for it alone`;
    return new KubeError(status, "Redirected", message);
  }
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

/*
 * What agents talk to. POST /v1/enroll: a token and a public key, answered by a certificate. With both, GET /v1/feed: what
 * the node is to know, for as long as the connection lives; POST /v1/pods: whether pods that start there are cloaked;
 * POST /v1/records: what happened there.
 */
import type { AuditRecord } from "../audit/index.ts";
import { sleep } from "../kube/backoff.ts";
import { type Exchange, HttpError, type Route } from "../tls/server.ts";
import { readRecords } from "./agent-records.ts";
import { type KeyPair, signAgent, validFor } from "./certificates.ts";
import { FeedCursor, type FeedLine, type PodState } from "./node-feed.ts";
import type { NodeIdentity } from "./node-identity.ts";
import { beginStream, sendText, whileRead } from "./stream.ts";

export interface NodeApiOptions {
  readonly identity: NodeIdentity;
  /** Signs agents' certificates; undefined while there is none. */
  readonly authority: () => KeyPair | undefined;
  /** What a node's pods may use now. */
  readonly stateOf: (node: string) => Promise<readonly PodState[]>;
  readonly hasPod: (node: string, uid: string) => boolean;
  /** Of these pods the cloaked ones, each with the secrets that it may use; the node's state has them by then. */
  readonly resolve: (node: string, uids: readonly string[]) => Promise<ReadonlyMap<string, readonly string[]>>;
  readonly record: (record: AuditRecord) => void;
  /** From here on: a node whose stream has ended must be told anew. */
  readonly signal: AbortSignal;
}

const certificateMs = 3600_000;
/** A stream is quiet for at most this long, so that both ends notice when the other is gone. */
const pingMs = 10_000;
/** Changes that come together are told together. */
const settleMs = 50;
/** Streams of one node at a time: an agent and its successor. */
const streamsMax = 2;

export class NodeApi {
  readonly #options: NodeApiOptions;
  readonly #bells = new Map<string, Set<() => void>>();

  constructor(options: NodeApiOptions) {
    this.#options = options;
  }

  get routes(): Readonly<Record<string, Route>> {
    return {
      "POST /v1/enroll": (exchange) => this.#enroll(exchange),
      "GET /v1/feed": (exchange) => this.#feed(exchange),
      "POST /v1/pods": (exchange) => this.#pods(exchange),
      "POST /v1/records": (exchange) => this.#records(exchange),
    };
  }

  /** Nodes with a stream. */
  get nodes(): readonly string[] {
    return [...this.#bells.keys()];
  }

  /** Something that this node's pods use may have changed; undefined: any node's. */
  changed(node?: string): void {
    const bells = node === undefined ? [...this.#bells.values()].flatMap((set) => [...set]) : this.#bells.get(node);
    for (const ring of bells ?? []) ring();
  }

  async #enroll({ request, json }: Exchange): Promise<unknown> {
    const { node } = await this.#options.identity.ofToken(request.headers.authorization);
    const body = (await json()) as { publicKey?: unknown } | null;
    const authority = this.#options.authority();
    if (authority === undefined) throw new HttpError(503, "the controller has no certificate authority yet");
    if (typeof body?.publicKey !== "string" || body.publicKey.length > 1024) {
      throw new HttpError(400, "publicKey must be a PEM public key");
    }
    try {
      return { certificate: await signAgent(authority, body.publicKey, node, validFor(certificateMs)) };
    } catch (error) {
      throw new HttpError(400, `publicKey: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #feed({ request, response, socket }: Exchange): Promise<undefined> {
    const { authorization } = request.headers;
    if (this.#options.signal.aborted) throw new HttpError(503, "this replica is about to end; another takes over");
    const { node } = await this.#options.identity.ofConnection(socket, authorization);
    const bells = this.#bells.get(node) ?? new Set();
    if (bells.size >= streamsMax) throw new HttpError(429, `node ${node} has ${streamsMax} streams already`);
    this.#bells.set(node, bells);
    const signal = AbortSignal.any([whileRead(response), this.#options.signal]);
    let bell = new AbortController();
    const ring = (): void => bell.abort();
    bells.add(ring);
    try {
      beginStream(response);
      const cursor = new FeedCursor();
      const send = (lines: readonly FeedLine[]): Promise<void> =>
        sendText(response, lines.map((line) => `${JSON.stringify(line)}\n`).join(""), signal);
      await send([...cursor.advance(await this.#options.stateOf(node)), { type: "synced" }]);
      while (!signal.aborted) {
        await sleep(pingMs, AbortSignal.any([bell.signal, signal]));
        if (signal.aborted) break;
        const rang = bell.signal.aborted;
        if (rang) await sleep(settleMs, signal);
        bell = new AbortController();
        // The token ends with the agent's pod, and with it the stream.
        await this.#options.identity.ofToken(authorization);
        await send(rang ? cursor.advance(await this.#options.stateOf(node)) : [{ type: "ping" }]);
      }
    } finally {
      bells.delete(ring);
      if (bells.size === 0) this.#bells.delete(node);
      response.end();
    }
    return undefined;
  }

  async #pods({ request, socket, json }: Exchange): Promise<unknown> {
    const { node } = await this.#options.identity.ofConnection(socket, request.headers.authorization);
    const body = (await json()) as { uids?: unknown } | null;
    const uids = body?.uids;
    if (
      !Array.isArray(uids) ||
      uids.length > 500 ||
      !uids.every((uid) => typeof uid === "string" && uid.length <= 64)
    ) {
      throw new HttpError(400, "uids must be at most 500 uids of pods");
    }
    return { pods: Object.fromEntries(await this.#options.resolve(node, uids as string[])) };
  }

  async #records({ request, socket, json }: Exchange): Promise<unknown> {
    const { node } = await this.#options.identity.ofConnection(socket, request.headers.authorization);
    const records = readRecords(await json(), node, (uid) => this.#options.hasPod(node, uid));
    for (const record of records) this.#options.record(record);
    return { accepted: records.length };
  }
}

/*
 * List, then watch, for ever: a copy of what the API server has, and a word for each change. Events go to `changed`,
 * which must not block: work belongs in a KeyedQueue. Every ten minutes all is listed anew, so that an event lost on the
 * way, by a proxy or by a fault of ours, is made good.
 */
import { Backoff } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { hasStatus, KubeError } from "./error.ts";
import { keyOf, type KubeObject } from "./objects.ts";
import { pathOf, type Resource } from "./resource.ts";

export interface InformerOptions<Raw extends KubeObject, Kept extends KubeObject> {
  readonly client: KubeClient;
  readonly resource: Resource;
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** What is kept of an object; undefined: as if it were not there. */
  readonly keep: (object: Raw) => Kept | undefined;
  /** After the copy has changed. `now` is undefined for an object that is gone. */
  readonly changed: (key: string, now: Kept | undefined, before: Kept | undefined) => void;
  readonly warn?: (message: string) => void;
  readonly relistMs?: number;
}

interface WatchEvent<T> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: T;
}

const relistEveryMs = 600_000;
const pageSize = "500";

export class Informer<Raw extends KubeObject, Kept extends KubeObject = Raw> {
  readonly #options: InformerOptions<Raw, Kept>;
  readonly #objects = new Map<string, Kept>();
  #synced = false;
  #announce: () => void = () => undefined;
  /** Resolves when the first list is in. */
  readonly synced: Promise<void>;

  constructor(options: InformerOptions<Raw, Kept>) {
    this.#options = options;
    this.synced = new Promise((resolve) => {
      this.#announce = resolve;
    });
  }

  get hasSynced(): boolean {
    return this.#synced;
  }

  get(key: string): Kept | undefined {
    return this.#objects.get(key);
  }

  values(): IterableIterator<Kept> {
    return this.#objects.values();
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Until `signal` is aborted. Never throws: what fails is tried again, later each time. */
  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      try {
        const version = await this.#list(signal);
        await this.#follow(version, signal, backoff);
      } catch (error) {
        if (signal.aborted) return;
        this.#options.warn?.(`${this.#options.resource.plural}: ${messageOf(error)}`);
        await backoff.wait(signal);
      }
    }
  }

  async #list(signal: AbortSignal): Promise<string> {
    const { client, resource, namespace, labelSelector, fieldSelector } = this.#options;
    const gone = new Set(this.#objects.keys());
    let next: string | undefined;
    let version: string;
    do {
      const query = { labelSelector, fieldSelector, limit: pageSize, continue: next };
      const page = await client.list<Raw>(resource, namespace, query, signal);
      for (const object of page.items) {
        gone.delete(keyOf(object));
        this.#put(object);
      }
      version = page.metadata.resourceVersion;
      next = page.metadata.continue === "" ? undefined : page.metadata.continue;
    } while (next !== undefined);
    for (const key of gone) this.#remove(key);
    this.#synced = true;
    this.#announce();
    return version;
  }

  /** Watches from `version` on; returns when it is time to list again. */
  async #follow(from: string, signal: AbortSignal, backoff: Backoff): Promise<void> {
    const { client, resource, namespace, labelSelector, fieldSelector, relistMs = relistEveryMs } = this.#options;
    const relistAt = performance.now() + relistMs * (0.9 + Math.random() * 0.2);
    let version = from;
    while (!signal.aborted && performance.now() < relistAt) {
      const left = Math.max(1, Math.ceil((relistAt - performance.now()) / 1000));
      const query = {
        labelSelector,
        fieldSelector,
        watch: "true",
        allowWatchBookmarks: "true",
        resourceVersion: version,
        timeoutSeconds: String(Math.min(left, 300)),
      };
      try {
        for await (const line of client.lines(pathOf(resource, namespace), { query, signal })) {
          const event = line as WatchEvent<Raw>;
          if (event.type === "ERROR") throw statusError(event.object, resource);
          version = event.object.metadata.resourceVersion ?? version;
          if (event.type === "DELETED") this.#remove(keyOf(event.object));
          else if (event.type !== "BOOKMARK") this.#put(event.object);
          backoff.reset();
        }
      } catch (error) {
        if (signal.aborted || hasStatus(error, 410)) return; // too old: list again
        this.#options.warn?.(`watch of ${resource.plural}: ${messageOf(error)}`);
        await backoff.wait(signal);
        if (error instanceof KubeError && error.status >= 400) return;
      }
    }
  }

  #put(object: Raw): void {
    const key = keyOf(object);
    const before = this.#objects.get(key);
    const version = object.metadata.resourceVersion;
    if (before !== undefined && version !== undefined && before.metadata.resourceVersion === version) return;
    const now = this.#options.keep(object);
    if (now === undefined) {
      this.#remove(key);
      return;
    }
    this.#objects.set(key, now);
    this.#tell(key, now, before);
  }

  #remove(key: string): void {
    const before = this.#objects.get(key);
    if (!this.#objects.delete(key)) return;
    this.#tell(key, undefined, before);
  }

  /** A fault in a listener is ours, not the watch's: it must not end it, nor be swallowed. */
  #tell(key: string, now: Kept | undefined, before: Kept | undefined): void {
    try {
      this.#options.changed(key, now, before);
    } catch (error) {
      this.#options.warn?.(`${this.#options.resource.kind} ${key}: ${messageOf(error)}`);
    }
  }
}

function statusError(status: unknown, resource: Resource): KubeError {
  const { code = 0, reason = "Unknown", message = "" } = status as { code?: number; reason?: string; message?: string };
  return new KubeError(code, reason, `watch of ${resource.plural}: ${message}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/*
 * List, then watch, for ever: a copy of what the API server has, and a word for each change. Events go to `changed`,
 * which must not block: work belongs in a KeyedQueue. Every ten minutes all is listed anew, so that an event lost on the
 * way, by a proxy or by a fault of ours, is made good.
 */
import { Backoff } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { hasStatus, KubeError, retryAfterMs } from "./error.ts";
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
  /** Objects in one answer to a list; fewer where each may be large. */
  readonly pageSize?: number;
  readonly backoff?: Backoff;
}

interface WatchEvent<T> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: T;
}

const relistEveryMs = 600_000;
const usualPage = 500;
/** A watch is ended by the server after this, and begun again where it was: a dead connection is noticed in good time. */
const watchSeconds = 60;
const graceMs = 15_000;
/** A watch that ends sooner, without a word, is not begun again at once. */
const shortMs = 1000;

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
    const backoff = this.#options.backoff ?? new Backoff();
    while (!signal.aborted) {
      try {
        const version = await this.#list(signal);
        await this.#follow(version, signal, backoff);
      } catch (error) {
        if (signal.aborted) return;
        this.#options.warn?.(`${this.#options.resource.plural}: ${messageOf(error)}`);
        await backoff.wait(signal, retryAfterMs(error));
      }
    }
  }

  async #list(signal: AbortSignal): Promise<string> {
    const { client, resource, namespace, labelSelector, fieldSelector, pageSize = usualPage } = this.#options;
    const gone = new Set(this.#objects.keys());
    let next: string | undefined;
    let version: string;
    do {
      const query = { labelSelector, fieldSelector, limit: String(pageSize), continue: next };
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
      const began = performance.now();
      const seconds = Math.min(Math.max(1, Math.ceil((relistAt - began) / 1000)), watchSeconds);
      const query = {
        labelSelector,
        fieldSelector,
        watch: "true",
        allowWatchBookmarks: "true",
        resourceVersion: version,
        timeoutSeconds: String(seconds),
      };
      const silenceMs = seconds * 1000 + graceMs;
      try {
        let isEmpty = true;
        for await (const line of client.lines(pathOf(resource, namespace), { query, signal, silenceMs })) {
          isEmpty = false;
          const event = line as WatchEvent<Raw>;
          if (event.type === "ERROR") throw statusError(event.object, resource);
          version = event.object.metadata.resourceVersion ?? version;
          if (event.type === "DELETED") this.#remove(keyOf(event.object));
          else if (event.type !== "BOOKMARK") this.#put(event.object);
          backoff.reset();
        }
        if (isEmpty && performance.now() - began < shortMs) await backoff.wait(signal);
      } catch (error) {
        if (signal.aborted) return;
        const isOld = hasStatus(error, 410); // an ordinary thing
        if (!isOld) this.#options.warn?.(`watch of ${resource.plural}: ${messageOf(error)}`);
        await backoff.wait(signal, retryAfterMs(error));
        // The version may be what it does not like; one that is overloaded must not be asked for all.
        if (error instanceof KubeError && error.status >= 400 && error.status !== 429) return;
      }
    }
  }

  #put(object: Raw): void {
    const key = keyOf(object);
    const before = this.#objects.get(key);
    const { uid, resourceVersion } = object.metadata;
    if (before !== undefined && resourceVersion !== undefined && before.metadata.resourceVersion === resourceVersion)
      return;
    // Deleted and made anew while we did not look: two objects, of which the first is gone.
    if (before?.metadata.uid !== undefined && before.metadata.uid !== uid) this.#remove(key);
    const now = this.#kept(key, object);
    if (now === undefined) {
      this.#remove(key);
      return;
    }
    const last = this.#objects.get(key);
    this.#objects.set(key, now);
    this.#tell(key, now, last);
  }

  /** One object that we do not understand must not keep all others from us. */
  #kept(key: string, object: Raw): Kept | undefined {
    try {
      return this.#options.keep(object);
    } catch (error) {
      this.#options.warn?.(`${this.#options.resource.kind} ${key} is not understood: ${messageOf(error)}`);
      return undefined;
    }
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

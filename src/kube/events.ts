/* Events on objects, as `kubectl describe` shows them. The same thing said again is counted, not written again. */
import type { KubeClient } from "./client.ts";
import { hasStatus } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { type Resource, resources } from "./resource.ts";

export interface EventRecorderOptions {
  readonly client: KubeClient;
  /** `kloak-controller`. */
  readonly component: string;
  readonly warn?: (message: string) => void;
  /** Of each reason an object gets a burst of this many different events, and one more each `refillMs`. */
  readonly burst?: number;
  readonly refillMs?: number;
  readonly now?: () => number;
}

interface Written {
  readonly name: string;
  count: number;
  lastMs: number;
}

interface WritableEvent {
  readonly metadata: { readonly namespace: string; readonly name: string };
  readonly lastTimestamp: string;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

/** The same message is repeated on the API at most this often. */
const repeatEveryMs = 60_000;
const remembered = 10_000;
/** Longest message of an Event (core/v1). */
const longestMessage = 1024;

export class EventRecorder {
  readonly #options: Required<Omit<EventRecorderOptions, "warn">> & Pick<EventRecorderOptions, "warn">;
  readonly #written = new Map<string, Written>();
  readonly #buckets = new Map<string, Bucket>();
  /** Events that were not written since the object had too many of their reason. */
  suppressed = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = { burst: 10, refillMs: 30_000, now: Date.now, ...options };
  }

  /** @param reason a word in CamelCase, as `HostsMissing` */
  async record(
    resource: Resource,
    object: KubeObject,
    type: "Normal" | "Warning",
    reason: string,
    message: string,
  ): Promise<void> {
    const { uid = "" } = object.metadata;
    const key = `${uid} ${type} ${reason} ${message}`;
    const now = this.#options.now();
    const known = this.#written.get(key);
    if (known !== undefined) {
      known.count += 1;
      if (now - known.lastMs < repeatEveryMs) return;
      known.lastMs = now;
    } else if (!this.#take(`${uid} ${reason}`, now)) {
      this.suppressed += 1;
      return;
    }
    const event = this.#event(resource, object, type, reason, message, now);
    const written = known ?? { name: event.metadata.name, count: 1, lastMs: now };
    if (known === undefined) this.#remember(key, written);
    await this.#write(event, written);
  }

  /** An Event lives for an hour, and may never have been written: then it is made, with its count. */
  async #write(event: WritableEvent, { name, count }: Written): Promise<void> {
    const { client } = this.#options;
    const { namespace } = event.metadata;
    await this.#try(async () => {
      if (count > 1) {
        const operations = [
          { op: "replace", path: "/count", value: count },
          { op: "replace", path: "/lastTimestamp", value: event.lastTimestamp },
        ];
        const repeated = await client.patch(resources.events, namespace, name, operations).catch((error: unknown) => {
          if (!hasStatus(error, 404)) throw error;
        });
        if (repeated !== undefined) return;
      }
      await client.create(resources.events, namespace, { ...event, metadata: { namespace, name }, count });
    });
  }

  #event(resource: Resource, object: KubeObject, type: string, reason: string, message: string, now: number) {
    const { namespace = "default", name, uid, resourceVersion } = object.metadata;
    const time = new Date(now).toISOString().replace(/\.\d+Z/, "Z");
    const suffix = Math.floor(now * 1000 + Math.random() * 1000).toString(16);
    return {
      apiVersion: "v1",
      kind: "Event",
      metadata: { namespace, name: `${name.slice(0, 200).replace(/[^a-z0-9]+$/, "")}.${suffix}` },
      involvedObject: { apiVersion: resource.apiVersion, kind: resource.kind, namespace, name, uid, resourceVersion },
      type,
      reason,
      message: message.length > longestMessage ? `${message.slice(0, longestMessage - 3)}...` : message,
      source: { component: this.#options.component },
      reportingComponent: this.#options.component,
      reportingInstance: "",
      firstTimestamp: time,
      lastTimestamp: time,
      count: 1,
    };
  }

  #take(key: string, now: number): boolean {
    const { burst, refillMs } = this.#options;
    const bucket = this.#buckets.get(key) ?? { tokens: burst, atMs: now };
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > remembered) this.#buckets.delete(this.#buckets.keys().next().value ?? "");
    bucket.tokens = Math.min(burst, bucket.tokens + (now - bucket.atMs) / refillMs);
    bucket.atMs = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  #remember(key: string, written: Written): void {
    this.#written.set(key, written);
    if (this.#written.size > remembered) this.#written.delete(this.#written.keys().next().value ?? "");
  }

  /** An event is a courtesy: that it could not be written stops nothing. */
  async #try(write: () => Promise<unknown>): Promise<void> {
    try {
      await write();
    } catch (error) {
      if (hasStatus(error, 404)) return; // the namespace is gone
      this.#options.warn?.(`event: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

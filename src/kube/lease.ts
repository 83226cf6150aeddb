/*
 * Leader election by a Lease (coordination.k8s.io/v1), as client-go does it: who holds it renews it; who does not takes it
 * when it has not changed for its duration, by our own clock, so that clocks need not agree. Every write carries the
 * resourceVersion that was read: of two who try at once one is refused.
 */
import { sleep } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { hasStatus } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { resources } from "./resource.ts";

interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

export interface ElectionOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Unique to this process. */
  readonly identity: string;
  readonly durationMs?: number;
  readonly renewMs?: number;
  readonly warn?: (message: string) => void;
}

export class Election {
  readonly #options: Required<Omit<ElectionOptions, "warn">> & Pick<ElectionOptions, "warn">;
  #seen = "";
  #seenAt = 0;

  constructor(options: ElectionOptions) {
    this.#options = { durationMs: 15_000, renewMs: 2_000, ...options };
  }

  /**
   * Runs `lead` whenever this process is the leader, with a signal that is aborted when it is no longer. Until `signal`
   * is aborted; then the lease is given back, so that the next need not wait for it to run out.
   */
  async run(signal: AbortSignal, lead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      const lease = await this.#tryAcquire();
      if (lease === undefined) {
        await sleep(this.#options.renewMs, signal);
        continue;
      }
      const lost = new AbortController();
      const work = lead(AbortSignal.any([lost.signal, signal]));
      await Promise.race([this.#keep(AbortSignal.any([lost.signal, signal])), work.catch(() => undefined)]);
      lost.abort();
      await work;
      if (signal.aborted) await this.#release();
    }
  }

  /** Renews; returns when the lease is lost, or could not be renewed for so long that another may have it. */
  async #keep(signal: AbortSignal): Promise<void> {
    const { durationMs, renewMs } = this.#options;
    let renewed = performance.now();
    while (!signal.aborted) {
      await sleep(renewMs, signal);
      if (signal.aborted) return;
      const lease = await this.#tryAcquire();
      if (lease !== undefined) renewed = performance.now();
      else if (performance.now() - renewed > (durationMs * 2) / 3) return;
    }
  }

  async #tryAcquire(): Promise<Lease | undefined> {
    const { client, namespace, name, identity, warn } = this.#options;
    try {
      const current = await client.get<Lease>(resources.leases, namespace, name).catch((error: unknown) => {
        if (hasStatus(error, 404)) return undefined;
        throw error;
      });
      if (current === undefined) return await client.create<Lease>(resources.leases, namespace, this.#fresh());
      const holder = current.spec?.holderIdentity ?? "";
      if (holder !== identity && holder !== "" && !this.#hasRunOut(current)) return undefined;
      return await client.replace<Lease>(resources.leases, this.#renewed(current));
    } catch (error) {
      if (!hasStatus(error, 409))
        warn?.(`lease ${namespace}/${name}: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  #hasRunOut(lease: Lease): boolean {
    const state = `${lease.metadata.resourceVersion} ${lease.spec?.renewTime}`;
    if (state !== this.#seen) {
      this.#seen = state;
      this.#seenAt = performance.now();
      return false;
    }
    const durationMs = (lease.spec?.leaseDurationSeconds ?? 0) * 1000 || this.#options.durationMs;
    return performance.now() - this.#seenAt > durationMs;
  }

  #fresh(): Lease {
    const { namespace, name, identity, durationMs } = this.#options;
    const now = microTime();
    return {
      apiVersion: resources.leases.apiVersion,
      kind: resources.leases.kind,
      metadata: { namespace, name },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: Math.ceil(durationMs / 1000),
        acquireTime: now,
        renewTime: now,
        leaseTransitions: 0,
      },
    };
  }

  #renewed(lease: Lease): Lease {
    const { identity, durationMs } = this.#options;
    const isOurs = lease.spec?.holderIdentity === identity;
    const now = microTime();
    return {
      ...lease,
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: Math.ceil(durationMs / 1000),
        acquireTime: isOurs ? (lease.spec?.acquireTime ?? now) : now,
        renewTime: now,
        leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + (isOurs ? 0 : 1),
      },
    };
  }

  async #release(): Promise<void> {
    const { client, namespace, name, identity } = this.#options;
    try {
      const lease = await client.get<Lease>(resources.leases, namespace, name);
      if (lease.spec?.holderIdentity !== identity) return;
      await client.replace(resources.leases, { ...lease, spec: { ...lease.spec, holderIdentity: "" } });
    } catch {
      // it runs out by itself
    }
  }
}

/** MicroTime of the API: RFC 3339 with microseconds. */
function microTime(): string {
  return new Date().toISOString().replace("Z", "000Z");
}

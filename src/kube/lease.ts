/*
 * Leader election by a Lease (coordination.k8s.io/v1), as client-go does it: who holds it renews it; who does not takes it
 * when it has not changed for its duration, by our own clock, so that clocks need not agree. Every write carries the
 * resourceVersion that was read: of two who try at once one is refused.
 */
import { sleep } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { hasStatus } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { pathOf, resources } from "./resource.ts";

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

/** Nobody waits for a lease to be given back for longer. */
const releaseMs = 3000;

export class Election {
  readonly #options: Required<Omit<ElectionOptions, "warn">> & Pick<ElectionOptions, "warn">;
  #seen = "";
  #seenAt = 0;

  constructor(options: ElectionOptions) {
    this.#options = { durationMs: 15_000, renewMs: 2_000, ...options };
  }

  /** How long after it asked for a renewal a leader may lead, in milliseconds: well before another may take over. */
  get #heldMs(): number {
    return (this.#options.durationMs * 2) / 3;
  }

  /**
   * Runs `lead` whenever this process is the leader, with a signal that is aborted when it is no longer. Until `signal`
   * is aborted; then the lease is given back, so that the next need not wait for it to run out. What `lead` throws is
   * warned of, and the lease given back too.
   */
  async run(signal: AbortSignal, lead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { renewMs, warn } = this.#options;
    while (!signal.aborted) {
      const askedAt = performance.now();
      if ((await this.#tryAcquire(signal)) !== "ours") {
        await sleep(renewMs, signal);
        continue;
      }
      // The answer may have come so late that the lease is another's again.
      if (performance.now() - askedAt >= this.#heldMs) continue;
      const lost = new AbortController();
      const leading = AbortSignal.any([lost.signal, signal]);
      const work = lead(leading).catch((error: unknown) => warn?.(`leading: ${messageOf(error)}`));
      await Promise.race([this.#keep(askedAt, leading), work]);
      lost.abort();
      await work;
      await this.#release();
      await sleep(renewMs, signal);
    }
  }

  /**
   * Renews; returns when the lease is another's, or could not be renewed for so long that it may be soon. What counts is
   * when a renewal was asked for: the answer may have taken its time.
   */
  async #keep(askedAt: number, signal: AbortSignal): Promise<void> {
    const { renewMs } = this.#options;
    let renewedAt = askedAt;
    while (!signal.aborted) {
      await sleep(renewMs, signal);
      if (signal.aborted) return;
      const now = performance.now();
      const leftMs = renewedAt + this.#heldMs - now;
      if (leftMs <= 0) return;
      const outcome = await this.#tryAcquire(AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(leftMs))]));
      if (outcome === "another's") return;
      if (outcome === "ours") renewedAt = now;
    }
  }

  async #tryAcquire(signal: AbortSignal): Promise<"ours" | "another's" | "unknown"> {
    const { client, namespace, name, identity, warn } = this.#options;
    const path = pathOf(resources.leases, namespace, name);
    try {
      const current = await client.request<Lease>("GET", path, { signal }).catch((error: unknown) => {
        if (hasStatus(error, 404)) return undefined;
        throw error;
      });
      if (current === undefined) {
        await client.request("POST", pathOf(resources.leases, namespace), { body: this.#fresh(), signal });
        return "ours";
      }
      const holder = current.spec?.holderIdentity ?? "";
      if (holder !== identity && holder !== "" && !this.#hasRunOut(current)) return "another's";
      await client.request("PUT", path, { body: this.#renewed(current), signal });
      return "ours";
    } catch (error) {
      // Another was faster, or we ourselves, and the answer was lost: the next look says who.
      if (!hasStatus(error, 409)) warn?.(`lease ${namespace}/${name}: ${messageOf(error)}`);
      return "unknown";
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
    const path = pathOf(resources.leases, namespace, name);
    const signal = AbortSignal.timeout(releaseMs);
    try {
      const lease = await client.request<Lease>("GET", path, { signal });
      if (lease.spec?.holderIdentity !== identity) return;
      const body = { ...lease, spec: { ...lease.spec, holderIdentity: "" } };
      await client.request("PUT", path, { body, signal });
    } catch {
      // it runs out by itself
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** MicroTime of the API: RFC 3339 with microseconds. */
function microTime(): string {
  return new Date().toISOString().replace("Z", "000Z");
}

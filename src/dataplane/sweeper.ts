import { setTimeout as delay } from "node:timers/promises";
import type { Maps } from "./dataplane.ts";
import { flowCodec, flowFlag, flowKeyCodec, offsets, patchCodec, sightingCodec } from "./types.gen.ts";

const SECOND = 1_000_000_000n;

/** In nanoseconds. */
export interface SweepLimits {
  /** A flow that has seen FIN or RST, since its last packet. */
  readonly closedFlow: bigint;
  /** The same while patched records are not acknowledged: TCP repeats them for up to 924.6 s (tcp_retries2 = 15). */
  readonly unacknowledged: bigint;
  /** Any other flow: what comes later on it goes out unpatched, so this is longer than connections idle. */
  readonly idleFlow: bigint;
  /** A key, since its last record. */
  readonly idleKey: bigint;
  /** A patch, since its record was sealed; no less than `unacknowledged`. */
  readonly patch: bigint;
  /** A record's fingerprint, since it was sealed; records that leave later than patch_age_ns (60 s) stay as they are. */
  readonly fingerprint: bigint;
}

export const sweepLimits: SweepLimits = {
  closedFlow: 60n * SECOND,
  unacknowledged: 1200n * SECOND,
  idleFlow: 4n * 3600n * SECOND,
  idleKey: 4n * 3600n * SECOND,
  patch: 1200n * SECOND,
  fingerprint: 90n * SECOND,
};

export interface Swept {
  readonly flows: number;
  readonly keys: number;
  readonly h2States: number;
  readonly patches: number;
  readonly fingerprints: number;
  readonly chunks: number;
}

/** Deletes what nobody needs any more and the kernel had no occasion to delete itself. */
export class Sweeper {
  readonly #maps: Maps;
  #orphans = new Set<string>();

  constructor(maps: Maps) {
    this.#maps = maps;
  }

  /** @param now CLOCK_MONOTONIC in nanoseconds, which is what process.hrtime.bigint() gives on Linux */
  sweep(now: bigint = process.hrtime.bigint(), limits: SweepLimits = sweepLimits): Swept {
    const before = (age: bigint) => (now > age ? now - age : 0n);
    const flows = this.#flows(now, limits);
    const keys = this.#has("keys") ? this.#maps.keys.sweep(offsets.keyState.usedNs, before(limits.idleKey)).length : 0;
    const h2States = this.#has("h2_states")
      ? this.#maps.h2_states.sweep(offsets.h2State.usedNs, before(limits.idleKey)).length
      : 0;
    const fingerprints = this.#has("fingerprints")
      ? this.#maps.fingerprints.sweep(sightingCodec.fields.sealedNs[0], before(limits.fingerprint)).length
      : 0;
    if (!this.#has("patches")) return { flows, keys, h2States, fingerprints, patches: 0, chunks: 0 };
    const patches = this.#maps.patches.sweep(patchCodec.fields.sealedNs[0], before(limits.patch)).length;
    return { flows, keys, h2States, fingerprints, patches, chunks: this.#chunks() };
  }

  /** Every `interval` milliseconds until the signal. */
  async run(signal: AbortSignal, interval = 10_000): Promise<void> {
    while (!signal.aborted) {
      this.sweep();
      await delay(interval, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Whether the workload still has an interface. */
  #sends(workload: number): boolean {
    const { interfaces } = this.#maps;
    return interfaces.keys().some((ifindex) => interfaces.get(ifindex)?.workload === workload);
  }

  #has(name: keyof Maps): boolean {
    return Object.keys(this.#maps).includes(name);
  }

  #flows(now: bigint, limits: SweepLimits): number {
    if (!this.#has("flows")) return 0;
    const { flows, outstanding, hellos } = this.#maps;
    const { usedNs, closing, outstanding: unacknowledged, serial, flags } = flowCodec.fields;
    let count = 0;
    for (const key of flows.older(usedNs[0], now > limits.closedFlow ? now - limits.closedFlow : 0n)) {
      const flow = flows.getRaw(flowKeyCodec.encode(key));
      if (!flow) continue;
      const idle = now - usedNs[1].decode(flow, usedNs[0]);
      const waits = unacknowledged[1].decode(flow, unacknowledged[0]) > 0;
      const closed = closing[1].decode(flow, closing[0]) > 0;
      // What follows must stay heard while its workload can send: a server's header table has no age.
      const keeps = (flags[1].decode(flow, flags[0]) & flowFlag.keepsSecret) !== 0;
      if (keeps && !closed && this.#sends(key.workload)) continue;
      const limit = closed ? (waits ? limits.unacknowledged : limits.closedFlow) : limits.idleFlow;
      if (idle < limit || !flows.delete(key)) continue;
      const number = serial[1].decode(flow, serial[0]);
      outstanding.delete(number);
      hellos.delete(number);
      count++;
    }
    return count;
  }

  /** Chunks are published before their patch: only one that was without a patch at the last sweep too is an orphan. */
  #chunks(): number {
    const { patches, region_chunks: chunks } = this.#maps;
    const known = new Set(patches.keys().map((key) => `${key.serial}/${key.index}`));
    const orphans = new Set<string>();
    let count = 0;
    for (const key of chunks.keys()) {
      if (known.has(`${key.serial}/${key.index}`)) continue;
      const name = `${key.serial}/${key.index}/${key.chunk}`;
      if (this.#orphans.has(name) && chunks.delete(key)) count++;
      else orphans.add(name);
    }
    this.#orphans = orphans;
    return count;
  }
}

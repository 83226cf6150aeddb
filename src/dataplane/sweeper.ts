import { existsSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { Maps } from "./dataplane.ts";
import { countShares, forgetOwner, keyOwners } from "./shares.ts";
import {
  contextCodec,
  type ContextKey,
  flowClosing,
  flowCodec,
  flowFlag,
  flowKeyCodec,
  flowPhase,
  offsets,
  patchCodec,
  sightingCodec,
} from "./types.gen.ts";

const SECOND = 1_000_000_000n;

/** In nanoseconds. */
export interface SweepLimits {
  /** A flow that has seen FIN or RST, since its last packet. */
  readonly closedFlow: bigint;
  /** The same while patched records are not acknowledged: TCP repeats them for up to 924.6 s (tcp_retries2 = 15). */
  readonly unacknowledged: bigint;
  /** Any other flow: what comes later on it goes out unpatched, so this is longer than connections idle. */
  readonly idleFlow: bigint;
  /** A key, since its last record, and a library's context for one. */
  readonly idleKey: bigint;
  /** The key of a flow that its workload has closed, since the flow's last packet. */
  readonly closedKey: bigint;
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
  closedKey: 5n * SECOND,
  patch: 1200n * SECOND,
  fingerprint: 90n * SECOND,
};

export interface Swept {
  readonly flows: number;
  readonly keys: number;
  readonly h2States: number;
  readonly contexts: number;
  readonly patches: number;
  readonly fingerprints: number;
  readonly chunks: number;
}

/** Deletes what nobody needs any more and the kernel had no occasion to delete itself. */
export class Sweeper {
  readonly #maps: Maps;
  readonly #isAlive: (process: number) => boolean;
  #orphans = new Set<string>();

  /** @param isAlive by its number in the initial pid namespace; when in doubt, it is */
  constructor(maps: Maps, isAlive: (process: number) => boolean = isProcess) {
    this.#maps = maps;
    this.#isAlive = isAlive;
  }

  /** @param now CLOCK_MONOTONIC in nanoseconds, which is what process.hrtime.bigint() gives on Linux */
  sweep(now: bigint = process.hrtime.bigint(), limits: SweepLimits = sweepLimits): Swept {
    const before = (age: bigint) => (now > age ? now - age : 0n);
    const { flows, closedKeys } = this.#flows(now, limits);
    const idleKeys = this.#has("keys")
      ? this.#maps.keys.sweep(offsets.keyState.usedNs, before(limits.idleKey)).length
      : 0;
    const h2States = this.#h2States();
    const contexts = this.#contexts(before(limits.idleKey));
    const fingerprints = this.#fingerprints(before(limits.fingerprint), closedKeys);
    const patches = this.#has("patches")
      ? this.#maps.patches.sweep(patchCodec.fields.sealedNs[0], before(limits.patch)).length
      : 0;
    const chunks = this.#has("patches") ? this.#chunks() : 0;
    countShares(this.#maps, (name) => this.#has(name));
    return { flows, keys: closedKeys.size + idleKeys, h2States, contexts, fingerprints, patches, chunks };
  }

  /** Deletes all that is left of a workload whose interface is gone: nothing of it can leave any more. */
  forget(workload: number): void {
    forgetOwner(this.#maps, (name) => this.#has(name), workload);
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

  /** @returns how many flows have gone, and the serials of the keys that have gone with theirs */
  #flows(now: bigint, limits: SweepLimits): { readonly flows: number; readonly closedKeys: ReadonlySet<bigint> } {
    const closedKeys = new Set<bigint>();
    if (!this.#has("flows")) return { flows: 0, closedKeys };
    const { flows, outstanding, hellos } = this.#maps;
    const first = limits.closedKey < limits.closedFlow ? limits.closedKey : limits.closedFlow;
    let count = 0;
    for (const key of flows.older(flowCodec.fields.usedNs[0], now > first ? now - first : 0n)) {
      const raw = flows.getRaw(flowKeyCodec.encode(key));
      if (!raw) continue;
      const read = <Name extends keyof typeof flowCodec.fields>(name: Name): Decoded<Name> => {
        const [offset, codec] = flowCodec.fields[name];
        return codec.decode(raw, offset) as Decoded<Name>;
      };
      const idle = now - read("usedNs");
      const closing = read("closing");
      // Not when the peer alone has ended its part: more requests may come.
      if ((closing & flowClosing.workload) !== 0 && idle >= limits.closedKey && this.#forgetKey(key.workload, read))
        closedKeys.add(read("keySerial"));
      // What follows must stay heard while its workload can send: a server's header table has no age.
      const keeps = (read("flags") & flowFlag.keepsSecret) !== 0;
      if (keeps && closing === 0 && this.#sends(key.workload)) continue;
      const closed = read("outstanding") > 0 ? limits.unacknowledged : limits.closedFlow;
      if (idle < (closing === 0 ? limits.idleFlow : closed) || !flows.delete(key)) continue;
      outstanding.delete(read("serial"));
      hellos.delete(read("serial"));
      if (this.#forgetKey(key.workload, read)) closedKeys.add(read("keySerial"));
      count++;
    }
    return { flows: count, closedKeys };
  }

  /** No further record under the key of a flow can leave on it, and on no other either. */
  #forgetKey(workload: number, read: <Name extends "phase" | "keyId">(name: Name) => Decoded<Name>): boolean {
    return (
      this.#has("keys") && read("phase") === flowPhase.bound && this.#maps.keys.delete({ workload, id: read("keyId") })
    );
  }

  /** Old ones, and those of records that only a closed flow could bring. */
  #fingerprints(before: bigint, closedKeys: ReadonlySet<bigint>): number {
    if (!this.#has("fingerprints")) return 0;
    const { fingerprints } = this.#maps;
    const { sealedNs, serial } = sightingCodec.fields;
    const old = fingerprints.sweep(sealedNs[0], before).length;
    return closedKeys.size === 0 ? old : old + fingerprints.deleteWhere("value", serial, (at) => closedKeys.has(at));
  }

  /** Those whose keys have gone. A key is there before its state is. */
  #h2States(): number {
    if (!this.#has("h2_states")) return 0;
    const states = this.#maps.h2_states.keys();
    if (states.length === 0) return 0;
    const keys = keyOwners(this.#maps);
    return states.filter((serial) => !keys.has(serial) && this.#maps.h2_states.delete(serial)).length;
  }

  /** Idle ones, and those of processes that have ended: few libraries say that they let go of a context, and no crash does. */
  #contexts(before: bigint): number {
    if (!this.#has("contexts")) return 0;
    const { contexts } = this.#maps;
    const idle = contexts.sweep(contextCodec.fields.usedNs[0], before).length;
    const alive = new Map<number, boolean>();
    const isDead = ({ process }: ContextKey): boolean => {
      if (!alive.has(process)) alive.set(process, this.#isAlive(process));
      return alive.get(process) === false;
    };
    return idle + contexts.keys().filter((key) => isDead(key) && contexts.delete(key)).length;
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

type Decoded<Name extends keyof typeof flowCodec.fields> = ReturnType<(typeof flowCodec.fields)[Name][1]["decode"]>;

/** PROC_PID_INIT_INO of <linux/proc_ns.h>: elsewhere the numbers that the kernel reports are not those of /proc. */
const initialPidNamespace = "pid:[4026531836]";

function isProcess(pid: number): boolean {
  return existsSync(`/proc/${pid}`) || readlinkSync("/proc/self/ns/pid") !== initialPidNamespace;
}

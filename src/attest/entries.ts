import { keyText } from "./verdict.ts";
import type { AttestationKey, Verdict } from "./verdict.ts";

/** One attestation: its verdict, and when to do something about it. */
export interface Entry {
  readonly key: AttestationKey;
  /** Who asked first; 0: nobody. */
  readonly workload: number;
  /** Monotonic milliseconds; Infinity: nothing to do until somebody asks. */
  dueMs: number;
  running: boolean;
  /** Among the resolved addresses of an allowed host: kept up to date whether anybody asks or not. */
  ahead: boolean;
  /** Since the last attempt began. */
  used: boolean;
  failures: number;
  verdict: Verdict | undefined;
  /** Monotonic milliseconds; 0: there is no verdict. */
  verdictUntilMs: number;
}

/** Attestations that one workload may have waiting: it can name any number of addresses that never answer. */
const waitingPerWorkload = 32;

/** All attestations, at most `limit`; `forgotten` hears of each that had a verdict and is let go. */
export class Entries {
  readonly #entries = new Map<string, Entry>();
  readonly #limit: number;
  readonly #forgotten: (entry: Entry) => void;

  constructor(limit: number, forgotten: (entry: Entry) => void) {
    this.#limit = limit;
    this.#forgotten = forgotten;
  }

  get size(): number {
    return this.#entries.size;
  }

  [Symbol.iterator](): IterableIterator<Entry> {
    return this.#entries.values();
  }

  get(key: AttestationKey): Entry | undefined {
    return this.#entries.get(keyText(key));
  }

  /** The entry of this key, new if need be; undefined if there is no room, or this workload has its share. */
  obtain(key: AttestationKey, workload: number): Entry | undefined {
    const known = this.get(key);
    if (known !== undefined) return known;
    if (workload !== 0 && this.#waiting(workload) >= waitingPerWorkload) return undefined;
    if (this.#entries.size >= this.#limit && !this.#evict()) return undefined;
    const entry: Entry = {
      key,
      workload,
      dueMs: Infinity,
      running: false,
      ahead: false,
      used: false,
      failures: 0,
      verdict: undefined,
      verdictUntilMs: 0,
    };
    this.#entries.set(keyText(key), entry);
    return entry;
  }

  forget(entry: Entry): void {
    this.#entries.delete(keyText(entry.key));
    if (entry.verdict !== undefined) this.#forgotten(entry);
  }

  #waiting(workload: number): number {
    let count = 0;
    for (const entry of this.#entries.values())
      if (entry.workload === workload && entry.verdict === undefined) count += 1;
    return count;
  }

  /** Makes room: of what is neither kept nor granted, what came first. */
  #evict(): boolean {
    for (const entry of this.#entries.values()) {
      if (entry.ahead || entry.running || entry.verdict?.granted === true) continue;
      this.forget(entry);
      return true;
    }
    return false;
  }
}

/* The audit records of all nodes, newest kept; whoever needs them for longer takes them from the controller's log. */
import type { AuditRecord } from "../audit/index.ts";

export interface AuditStoreOptions {
  /** Of this replica. */
  readonly identity: string;
  readonly capacity?: number;
}

/** A record, and which replica got it from an agent, as its how-manieth. */
export interface Entry {
  readonly origin: string;
  readonly sequence: number;
  readonly record: AuditRecord;
}

export class AuditStore {
  readonly #identity: string;
  readonly #capacity: number;
  /** The entry that came as the i-th stands at i modulo the capacity. */
  readonly #ring: Entry[] = [];
  /** Highest sequence of each replica that is known here. */
  readonly #known = new Map<string, number>();
  readonly #bells = new Set<() => void>();
  #count = 0;

  constructor({ identity, capacity = 20_000 }: AuditStoreOptions) {
    this.#identity = identity;
    this.#capacity = capacity;
  }

  /** Records that have left to make room. */
  get dropped(): number {
    return Math.max(0, this.#count - this.#capacity);
  }

  /** A record that an agent has sent here. */
  add(record: AuditRecord): void {
    const origin = this.#identity;
    this.take({ origin, sequence: (this.#known.get(origin) ?? 0) + 1, record });
  }

  /** One that another replica has, and tells in the order in which it came there. False if it is known here. */
  take(entry: Entry): boolean {
    if (entry.sequence <= (this.#known.get(entry.origin) ?? 0)) return false;
    this.#known.set(entry.origin, entry.sequence);
    this.#ring[this.#count % this.#capacity] = entry;
    this.#count += 1;
    for (const ring of [...this.#bells]) ring();
    return true;
  }

  /** By when they happened, oldest first. */
  records(): readonly AuditRecord[] {
    const { entries } = this.since(0, this.#capacity);
    return entries.map(({ record }) => record).toSorted((a, b) => Date.parse(a.time) - Date.parse(b.time));
  }

  /** At most `most` entries from `position` on, of those that are still here, and where to go on. */
  since(position: number, most: number): { readonly entries: readonly Entry[]; readonly next: number } {
    const first = Math.max(position, this.dropped);
    const next = Math.min(first + most, this.#count);
    const entries: Entry[] = [];
    for (let i = first; i < next; i++) {
      const entry = this.#ring[i % this.#capacity];
      if (entry !== undefined) entries.push(entry);
    }
    return { entries, next };
  }

  /** Resolves when there is something from `position` on, or when `signal` says so. */
  async news(position: number, signal: AbortSignal): Promise<void> {
    if (position < this.#count || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const ring = (): void => {
        this.#bells.delete(ring);
        signal.removeEventListener("abort", ring);
        resolve();
      };
      this.#bells.add(ring);
      signal.addEventListener("abort", ring);
    });
  }
}

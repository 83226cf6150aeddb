/* The audit records of all nodes, newest kept; whoever needs them for longer takes them from the controller's log. */
import type { AuditRecord } from "../audit/index.ts";

export interface AuditStoreOptions {
  readonly capacity?: number;
}

export class AuditStore {
  readonly #capacity: number;
  readonly #records: AuditRecord[] = [];
  readonly #listeners = new Set<(record: AuditRecord) => void>();
  /** Where the oldest stands in the ring, once it is full. */
  #start = 0;
  /** Records that have left to make room. */
  dropped = 0;

  constructor({ capacity = 20_000 }: AuditStoreOptions = {}) {
    this.#capacity = capacity;
  }

  add(record: AuditRecord): void {
    if (this.#records.length < this.#capacity) {
      this.#records.push(record);
    } else {
      this.#records[this.#start] = record;
      this.#start = (this.#start + 1) % this.#capacity;
      this.dropped += 1;
    }
    for (const listener of this.#listeners) listener(record);
  }

  /** Oldest first. */
  *records(): Generator<AuditRecord> {
    for (let i = 0; i < this.#records.length; i++) {
      const record = this.#records[(this.#start + i) % this.#records.length];
      if (record !== undefined) yield record;
    }
  }

  /** Calls `listener` for each record from now on; returns how to stop. */
  follow(listener: (record: AuditRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

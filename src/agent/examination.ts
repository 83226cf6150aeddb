/** Milliseconds. */
export interface ExaminationLimits {
  /** That a workload may cost at once. */
  readonly atOnceMs: number;
  /** Part of the time that it may cost in the long run. */
  readonly part: number;
}

export const examinationLimits: ExaminationLimits = { atOnceMs: 20_000, part: 0.25 };

/**
 * The time that it takes to examine new files, by workload: one that brings files without end must not keep those of
 * others waiting until they are let through without hooks.
 */
export class Examination {
  readonly #limits: ExaminationLimits;
  readonly #now: () => number;
  readonly #spent = new Map<number, { readonly ms: number; readonly at: number }>();

  constructor(limits = examinationLimits, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Workloads that have to wait or pay back. */
  get size(): number {
    return this.#spent.size;
  }

  mayExamine(workload: number): boolean {
    return this.#owes(workload) < this.#limits.atOnceMs;
  }

  /** Runs `work` on the workload's account. */
  charge<T>(workload: () => number, work: () => T): T {
    const start = this.#now();
    try {
      return work();
    } finally {
      const ms = this.#now() - start;
      if (ms >= 1) this.#spend(workload(), ms);
    }
  }

  #spend(workload: number, ms: number): void {
    this.#spent.set(workload, { ms: this.#owes(workload) + ms, at: this.#now() });
    for (const other of this.#spent.keys()) if (this.#owes(other) === 0) this.#spent.delete(other);
  }

  #owes(workload: number): number {
    const { ms, at } = this.#spent.get(workload) ?? { ms: 0, at: 0 };
    return Math.max(0, ms - (this.#now() - at) * this.#limits.part);
  }
}

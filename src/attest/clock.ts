import { setTimeout as delay } from "node:timers/promises";

/** Time, so that tests can drive it. */
export interface Clock {
  /** CLOCK_MONOTONIC, as the kernel's tables count. */
  monotonicNs(): bigint;
  /** Milliseconds since 1970, as certificates count. */
  wallMs(): number;
  /** Resolves after `ms`, or at once when `signal` is aborted; never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  monotonicNs: () => process.hrtime.bigint(),
  wallMs: () => Date.now(),
  sleep: async (ms, signal) => {
    try {
      await delay(Math.min(Math.max(ms, 0), 0x7fffffff), undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  },
};

/** Stands still until `advance` is called. */
export class ManualClock implements Clock {
  #nowMs = 1000;
  readonly #wallStart = Date.now();
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();

  monotonicNs(): bigint {
    return BigInt(this.#nowMs) * 1_000_000n;
  }

  wallMs(): number {
    return this.#wallStart + this.#nowMs;
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (ms <= 0 || signal.aborted) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const sleeper = {
      until: this.#nowMs + ms,
      wake: () => {
        this.#sleepers.delete(sleeper);
        signal.removeEventListener("abort", sleeper.wake);
        resolve();
      },
    };
    this.#sleepers.add(sleeper);
    signal.addEventListener("abort", sleeper.wake, { once: true });
    return promise;
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const sleeper of [...this.#sleepers]) if (sleeper.until <= this.#nowMs) sleeper.wake();
  }
}

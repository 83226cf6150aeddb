import { setTimeout as delay } from "node:timers/promises";

/** Exponential delays with full jitter, so that those who failed together do not come back together. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #failures = 0;

  constructor(firstMs = 200, longestMs = 30_000) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
  }

  reset(): void {
    this.#failures = 0;
  }

  /** Milliseconds to wait now; longer each time until `reset`. */
  next(): number {
    const ceiling = Math.min(this.#longestMs, this.#firstMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    return ceiling / 2 + (Math.random() * ceiling) / 2;
  }

  /** Waits, at least for `leastMs`; returns at once when `signal` says so. */
  async wait(signal: AbortSignal, leastMs = 0): Promise<void> {
    await sleep(Math.max(this.next(), leastMs), signal);
  }
}

/** Waits, or returns early when `signal` is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  await delay(ms, undefined, { ...(signal !== undefined && { signal }), ref: true }).catch(() => undefined);
}

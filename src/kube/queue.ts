/*
 * Work by key: each key at most once under way and once waiting; what fails comes again, later each time. The workers of
 * Kubernetes' own controllers (client-go util/workqueue) in small.
 */
import { Backoff } from "./backoff.ts";
import { retryAfterMs } from "./error.ts";

export interface QueueOptions {
  /** Brings the world in line with what is wanted for this key; may return milliseconds after which to look again. */
  readonly work: (key: string, signal: AbortSignal) => Promise<number | void>;
  readonly failed?: (key: string, error: unknown, retryMs: number) => void;
  readonly workers?: number;
}

export class KeyedQueue {
  readonly #options: QueueOptions;
  readonly #waiting = new Set<string>();
  readonly #running = new Set<string>();
  readonly #again = new Set<string>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #backoffs = new Map<string, Backoff>();
  /** Of idle workers. */
  readonly #bells = new Set<() => void>();

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  add(key: string): void {
    clearTimeout(this.#timers.get(key));
    this.#timers.delete(key);
    if (this.#running.has(key)) this.#again.add(key);
    else this.#waiting.add(key);
    this.#bells.values().next().value?.();
  }

  addAfter(key: string, ms: number): void {
    if (this.#waiting.has(key) || this.#timers.has(key)) return;
    this.#timers.set(
      key,
      setTimeout(() => this.add(key), ms),
    );
  }

  /** Nothing waits and nothing is under way. */
  get idle(): boolean {
    return this.#waiting.size === 0 && this.#running.size === 0 && this.#timers.size === 0;
  }

  async run(signal: AbortSignal): Promise<void> {
    const workers = Array.from({ length: this.#options.workers ?? 4 }, () => this.#worker(signal));
    await Promise.all(workers);
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  async #worker(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const key = this.#waiting.values().next();
      if (key.done === true) {
        await this.#change(signal);
        continue;
      }
      await this.#process(key.value, signal);
    }
  }

  async #process(key: string, signal: AbortSignal): Promise<void> {
    this.#waiting.delete(key);
    this.#running.add(key);
    try {
      const lookAgain = await this.#options.work(key, signal);
      this.#backoffs.delete(key);
      if (typeof lookAgain === "number") this.addAfter(key, lookAgain);
    } catch (error) {
      if (signal.aborted) return;
      const backoff = this.#backoffs.get(key) ?? new Backoff(100, 60_000);
      this.#backoffs.set(key, backoff);
      const retryMs = Math.max(backoff.next(), retryAfterMs(error));
      this.#options.failed?.(key, error, retryMs);
      this.addAfter(key, retryMs);
    } finally {
      this.#running.delete(key);
      if (this.#again.delete(key)) this.add(key);
    }
  }

  /** Waits for `add`. */
  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
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

import { canonicalAddress } from "./address.ts";
import type { Clock } from "./clock.ts";
import type { Limits } from "./limits.ts";
import type { Resolver } from "./resolver.ts";

interface Name {
  kept: boolean;
  /** Address → monotonic milliseconds until which it counts. */
  readonly addresses: Map<string, number>;
  dueMs: number;
  askedMs: number;
  asking: Promise<void> | undefined;
}

/** A name on request is not asked for more often than this, whatever a workload does. */
const askAgainMs = 5_000;
const namesMax = 1024;

/** The addresses that this host resolves names to. Kept names are resolved over and over, others when asked for. */
export class Names {
  readonly #resolver: Resolver;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #names = new Map<string, Name>();

  constructor(resolver: Resolver, clock: Clock, limits: Limits) {
    this.#resolver = resolver;
    this.#clock = clock;
    this.#limits = limits;
  }

  keep(names: readonly string[]): void {
    const kept = new Set(names);
    for (const name of kept) this.#name(name).kept = true;
    for (const [name, entry] of this.#names) if (!kept.has(name)) entry.kept = false;
  }

  /** The addresses that the name has, as far as is known. */
  addresses(name: string, nowMs: number): string[] {
    const entry = this.#names.get(name);
    if (entry === undefined) return [];
    return [...entry.addresses].filter(([, until]) => until > nowMs).map(([address]) => address);
  }

  /** Resolves kept names that are due and forgets others; says when to look again. */
  step(nowMs: number, signal: AbortSignal, changed: () => void): number {
    let next = Infinity;
    for (const [name, entry] of this.#names) {
      for (const [address, until] of entry.addresses) if (until <= nowMs) entry.addresses.delete(address);
      if (entry.asking !== undefined || signal.aborted) continue;
      if (!entry.kept) {
        if (entry.addresses.size === 0 && entry.askedMs + askAgainMs <= nowMs) this.#names.delete(name);
        continue;
      }
      if (entry.dueMs <= nowMs) void this.#ask(name, entry).then(changed);
      else next = Math.min(next, entry.dueMs);
    }
    return next;
  }

  /** Until when (monotonic milliseconds) the name has this address; resolves it first if that is not known. */
  async resolvedUntil(name: string, address: string): Promise<number | undefined> {
    const entry = this.#name(name);
    const known = (): number | undefined => {
      const until = entry.addresses.get(address);
      return until !== undefined && until > this.#nowMs() ? until : undefined;
    };
    if (known() === undefined && (entry.asking !== undefined || entry.askedMs + askAgainMs <= this.#nowMs())) {
      await (entry.asking ?? this.#ask(name, entry));
    }
    return known();
  }

  #name(name: string): Name {
    let entry = this.#names.get(name);
    if (entry === undefined) {
      for (const [other, { kept, asking }] of this.#names) {
        if (this.#names.size < namesMax) break;
        if (!kept && asking === undefined) this.#names.delete(other);
      }
      entry = { kept: false, addresses: new Map(), dueMs: 0, askedMs: -Infinity, asking: undefined };
      this.#names.set(name, entry);
    }
    return entry;
  }

  #ask(name: string, entry: Name): Promise<void> {
    entry.askedMs = this.#nowMs();
    entry.asking = this.#resolver
      .resolve(name)
      .then(
        (found) => {
          const now = this.#nowMs();
          const { resolvedMs, resolveEveryMs, addressesPerName } = this.#limits;
          let every = resolveEveryMs;
          for (const { address: text, ttlSeconds } of found.slice(0, addressesPerName)) {
            const address = canonicalAddress(text);
            if (address === undefined) continue;
            const ttlMs = ttlSeconds === undefined ? resolvedMs : ttlSeconds * 1000;
            entry.addresses.delete(address);
            entry.addresses.set(address, now + Math.max(ttlMs, resolveEveryMs * 2));
            if (ttlSeconds !== undefined) every = Math.max(every, Math.min(ttlMs, resolvedMs));
          }
          // Names with many addresses give others each time: those heard last are kept.
          for (const address of [...entry.addresses.keys()].slice(0, -addressesPerName * 4)) {
            entry.addresses.delete(address);
          }
          entry.dueMs = now + every;
        },
        // Not now; what was resolved before holds until it ends.
        () => {
          entry.dueMs = this.#nowMs() + this.#limits.resolveEveryMs / 2;
        },
      )
      .finally(() => {
        entry.asking = undefined;
      });
    return entry.asking;
  }

  #nowMs(): number {
    return Number(this.#clock.monotonicNs() / 1_000_000n);
  }
}

import { canonicalAddress, mayDial } from "./address.ts";
import { attestCertificate } from "./certificate.ts";
import type { Dial, Outcome } from "./certificate.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { Entries } from "./entries.ts";
import type { Entry } from "./entries.ts";
import { backOff, defaultLimits } from "./limits.ts";
import type { Limits } from "./limits.ts";
import { Names } from "./names.ts";
import { systemResolver } from "./resolver.ts";
import type { Resolver } from "./resolver.ts";
import { Roots } from "./roots.ts";
import { RuleSet } from "./rule.ts";
import type { AttestRule } from "./rule.ts";
import type { AttestationKey, Failure, VerdictSink } from "./verdict.ts";

/** What came of one attempt, for logs and metrics. */
export interface Attested {
  readonly key: AttestationKey;
  readonly granted: boolean;
  readonly failure: Failure | undefined;
}

export interface AttestorOptions {
  readonly sink: VerdictSink;
  readonly resolver?: Resolver;
  readonly roots?: Roots;
  readonly clock?: Clock;
  readonly limits?: Partial<Limits>;
  readonly dial?: (dial: Dial, clock: Clock, signal: AbortSignal) => Promise<Outcome>;
  readonly onAttested?: (attested: Attested) => void;
}

const nsPerMs = 1_000_000n;
/** Part of a verdict's life after which it is renewed, if it is in use. */
const renewAfter = 0.8;

/**
 * Finds out whether an address and port is the host it is said to be, and writes the verdicts to a sink: ahead of time
 * for the resolved addresses of allowed hosts, on request for all others, and again before a verdict in use expires.
 */
export class Attestor {
  readonly #sink: VerdictSink;
  readonly #roots: Roots;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #dial: NonNullable<AttestorOptions["dial"]>;
  readonly #onAttested: NonNullable<AttestorOptions["onAttested"]>;
  readonly #names: Names;
  readonly #entries: Entries;
  #rules = new RuleSet([]);
  /** Rules or addresses have changed since entries were made for them. */
  #aheadChanged = true;
  readonly #running = new Set<Promise<void>>();
  #wake = Promise.withResolvers<void>();

  constructor(options: AttestorOptions) {
    this.#sink = options.sink;
    this.#roots = options.roots ?? new Roots();
    this.#clock = options.clock ?? systemClock;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#dial = options.dial ?? attestCertificate;
    this.#onAttested = options.onAttested ?? (() => undefined);
    this.#names = new Names(options.resolver ?? systemResolver, this.#clock, this.#limits);
    this.#entries = new Entries(this.#limits.entries, ({ key }) => this.#sink.remove(key));
  }

  /** Attestations held, and attempts under way. */
  get size(): { readonly entries: number; readonly running: number } {
    return { entries: this.#entries.size, running: this.#running.size };
  }

  /** What secrets there are now. Verdicts that no rule asks for any more, or with other roots, are taken back at once. */
  setRules(rules: readonly AttestRule[]): void {
    const before = this.#rules;
    const after = new RuleSet(rules);
    this.#rules = after;
    this.#aheadChanged = true;
    this.#names.keep(after.ahead.filter(({ named }) => named).map(({ host }) => host));
    for (const entry of [...this.#entries]) {
      const { key, workload, used } = entry;
      const allowed = after.allows(key);
      if (allowed && before.roots(key).join("") === after.roots(key).join("")) continue;
      // An attempt under way with the old roots ends in an entry that nobody holds.
      this.#entries.forget(entry);
      const fresh = allowed && used ? this.#entries.obtain(key, workload) : undefined;
      if (fresh !== undefined) fresh.dueMs = this.#nowMs();
    }
    this.#wakeUp();
  }

  /**
   * Somebody connects there. Call it when there is no verdict, and also for substitutions, so that the verdicts of
   * long-lived connections are renewed. What no rule allows is refused without a connection.
   *
   * @param workload who, so that none can use up what all share; 0: not known
   */
  request(asked: AttestationKey, workload = 0): void {
    const address = canonicalAddress(asked.address);
    if (address === undefined) return;
    const name = asked.name === null ? null : asked.name.toLowerCase().replace(/\.$/, "");
    const key = { address, port: asked.port, name, mode: asked.mode };
    const entry = this.#entries.obtain(key, workload);
    if (entry === undefined) return;
    const now = this.#nowMs();
    entry.used = true;
    if (entry.verdict !== undefined && entry.verdictUntilMs > now) {
      // Known here and asked for all the same: it may be gone from the sink.
      this.#sink.put(key, entry.verdict);
    } else if (!this.#rules.allows(key)) {
      this.#put(entry, false, this.#limits.refusedMs);
      this.#tell(entry, failure("not-allowed", "no secret may go there"));
      this.#wakeUp();
    } else {
      // The second try of what has failed once is not brought forward; that of an expired verdict is.
      if (entry.dueMs === Infinity || entry.verdict !== undefined) entry.dueMs = Math.min(entry.dueMs, now);
      this.#wakeUp();
    }
  }

  /** Works until `signal` is aborted; then waits for what is under way to end. Verdicts stay in the sink. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#wakeUp();
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        this.#wake = Promise.withResolvers();
        const wake = this.#wake.promise;
        const next = this.#step(signal);
        const idle = new AbortController();
        const sleep = next === Infinity ? wake : this.#clock.sleep(next - this.#nowMs(), idle.signal);
        await Promise.race([wake, sleep]);
        idle.abort();
      }
    } finally {
      signal.removeEventListener("abort", stop);
      await Promise.all(this.#running);
    }
  }

  /** Starts what is due, forgets what has expired, and says when to look again. */
  #step(signal: AbortSignal): number {
    const now = this.#nowMs();
    let next = this.#names.step(now, signal, () => {
      this.#aheadChanged = true;
      this.#wakeUp();
    });
    if (this.#aheadChanged) this.#followNames(now);
    const due: Entry[] = [];
    for (const entry of this.#entries) {
      if (entry.running) continue;
      // Time to renew, and nobody has used it: let it expire.
      if (entry.dueMs <= now && entry.verdictUntilMs > now && !entry.ahead && !entry.used) entry.dueMs = Infinity;
      if (entry.dueMs <= now) due.push(entry);
      else if (entry.dueMs === Infinity && entry.verdictUntilMs <= now) this.#entries.forget(entry);
      else next = Math.min(next, entry.dueMs, entry.verdictUntilMs > now ? entry.verdictUntilMs : Infinity);
    }
    this.#startSome(due, signal);
    return next;
  }

  /** Resolved addresses first, since a workload can make up any number of others; among these, workloads take turns. */
  #startSome(due: Entry[], signal: AbortSignal): void {
    const busy = new Map<number, number>();
    for (const { running, workload } of this.#entries) {
      if (running) busy.set(workload, (busy.get(workload) ?? 0) + 1);
    }
    const rank = new Map(due.map((entry) => [entry, this.#isKnown(entry) ? -1 : (busy.get(entry.workload) ?? 0)]));
    due.sort((a, b) => (rank.get(a) ?? 0) - (rank.get(b) ?? 0) || a.dueMs - b.dueMs);
    for (const entry of due) {
      const reserved = rank.get(entry) === -1 ? 0 : Math.floor(this.#limits.concurrency / 2);
      if (this.#limits.concurrency - this.#running.size > reserved) this.#start(entry, signal);
    }
  }

  /** Makes entries for the addresses that allowed hosts have now, and lets go of those they no longer have. */
  #followNames(now: number): void {
    this.#aheadChanged = false;
    const wanted = new Set<Entry>();
    for (const { host, named, port, mode } of this.#rules.ahead) {
      for (const address of named ? this.#names.addresses(host, now) : [host]) {
        const entry = this.#entries.obtain({ address, port, name: named ? host : null, mode }, 0);
        if (entry === undefined) continue;
        wanted.add(entry);
        entry.ahead = true;
        if (entry.dueMs !== Infinity || entry.running) continue;
        entry.dueMs = now + Math.max(0, entry.verdictUntilMs - now) * renewAfter;
      }
    }
    for (const entry of this.#entries) if (!wanted.has(entry)) entry.ahead = false;
  }

  #isKnown({ ahead, key: { name, address } }: Entry): boolean {
    return ahead || (name !== null && this.#names.addresses(name, this.#nowMs()).includes(address));
  }

  #start(entry: Entry, signal: AbortSignal): void {
    entry.running = true;
    entry.used = false;
    const work = this.#attempt(entry.key, signal)
      .catch((error: unknown): Outcome => ({ failure: failure("unreachable", String(error), true) }))
      .then((outcome) => {
        entry.running = false;
        this.#running.delete(work);
        // Not if it has been forgotten meanwhile: no rule asks for it any more, or with other roots.
        if (!signal.aborted && this.#entries.get(entry.key) === entry) this.#settle(entry, outcome);
        this.#wakeUp();
      });
    this.#running.add(work);
  }

  async #attempt(key: AttestationKey, signal: AbortSignal): Promise<Outcome> {
    const { address, port, name, mode } = key;
    if (mode === "none") return { validToMs: Infinity };
    if (mode === "dns") {
      if (name === null) return { failure: failure("not-resolved", "an address has no name to resolve") };
      const until = await this.#names.resolvedUntil(name, address);
      if (until === undefined) return { failure: failure("not-resolved", `${name} does not have this address`) };
      return { validToMs: this.#clock.wallMs() + until - this.#nowMs() };
    }
    if (!mayDial(address)) return { failure: failure("address-not-allowed", "link-local, multicast or reserved") };
    const context = this.#roots.context(this.#rules.roots(key));
    return this.#dial({ address, port, name, context, timeoutMs: this.#limits.dialTimeoutMs }, this.#clock, signal);
  }

  #settle(entry: Entry, outcome: Outcome): void {
    const now = this.#nowMs();
    const { grantedMs, refusedMs } = this.#limits;
    if ("validToMs" in outcome) {
      const lifetime = Math.min(grantedMs, outcome.validToMs - this.#clock.wallMs());
      entry.failures = 0;
      entry.dueMs = now + Math.max(lifetime * renewAfter, this.#limits.retryMs);
      this.#put(entry, true, lifetime);
      this.#tell(entry, undefined);
      return;
    }
    const { transient } = outcome.failure;
    entry.failures += 1;
    // A server that cannot be reached now is still who it was; and what fails once is tried once more before it is refused.
    const standing = entry.verdict?.granted === true && entry.verdictUntilMs > now;
    const patient = transient && (standing || entry.failures === 1);
    if (!patient) this.#put(entry, false, refusedMs);
    const wait = backOff(this.#limits, entry.failures);
    entry.dueMs = patient || entry.ahead ? now + (patient ? wait : Math.max(wait, refusedMs)) : Infinity;
    entry.used ||= patient;
    this.#tell(entry, outcome.failure);
  }

  #put(entry: Entry, granted: boolean, lifetimeMs: number): void {
    entry.verdictUntilMs = this.#nowMs() + Math.max(lifetimeMs, 0);
    entry.verdict = { granted, expiresNs: BigInt(Math.floor(entry.verdictUntilMs)) * nsPerMs };
    this.#sink.put(entry.key, entry.verdict);
  }

  #tell({ key }: Entry, failure: Failure | undefined): void {
    this.#onAttested({ key, granted: failure === undefined, failure });
  }

  #nowMs(): number {
    return Number(this.#clock.monotonicNs() / nsPerMs);
  }

  #wakeUp(): void {
    this.#wake.resolve();
  }
}

function failure(reason: Failure["reason"], detail: string, transient = false): Failure {
  return { reason, detail, transient };
}

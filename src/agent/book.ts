/*
 * Which numbers have been given out, and for what: in the ledger of a data plane that outlives us, or in memory. A number
 * is never given out again, since patches and events under it may still be on their way.
 */
import * as v from "valibot";
import type { Workload } from "../audit/index.ts";
import type { Ledger } from "../dataplane/ledger.ts";
import type { PolicyInput } from "../policy/policy.ts";

export interface WorkloadEntry {
  /** Its source's name for it. */
  readonly id: string;
  /** Of its network namespace. */
  readonly cookie: string;
  readonly netnsInode: number;
  /** Of the host's end of its wire; 0 until there is one. */
  readonly ifindex: number;
  /** As audit records name it. */
  readonly about: Workload;
}

/** Everything about a secret but its value and its placeholder. */
export interface SecretEntry {
  readonly id: string;
  readonly name: string;
  readonly settings: PolicyInput;
  /** PEM. */
  readonly roots: readonly string[];
  /** Keyed hash of value, placeholder, settings and roots. */
  readonly digest: string;
}

const headSchema = v.object({ workload: v.number(), secret: v.number(), eventsLost: v.string() });
const workloadSchema = v.object({
  id: v.string(),
  cookie: v.string(),
  netnsInode: v.number(),
  ifindex: v.number(),
  about: v.custom<Workload>((value) => typeof value === "object"),
});
const secretSchema = v.object({
  id: v.string(),
  name: v.string(),
  settings: v.custom<PolicyInput>((value) => typeof value === "object"),
  roots: v.array(v.string()),
  digest: v.string(),
});

export class Book {
  readonly #ledger: Ledger | undefined;
  #head: v.InferOutput<typeof headSchema>;

  constructor(ledger: Ledger | undefined) {
    this.#ledger = ledger;
    const head = v.safeParse(headSchema, ledger?.get("head", 0));
    this.#head = head.success ? head.output : { workload: 0, secret: 0, eventsLost: "0" };
  }

  /** Whether there is a ledger. */
  get lasting(): boolean {
    return this.#ledger !== undefined;
  }

  nextWorkload(): number {
    return this.#next("workload");
  }

  nextSecret(): number {
    return this.#next("secret");
  }

  /** Of the events that the kernel had no room for, those that are in the audit trail as lost. */
  get eventsLost(): bigint {
    return BigInt(this.#head.eventsLost);
  }

  set eventsLost(count: bigint) {
    this.#write({ ...this.#head, eventsLost: count.toString() });
  }

  /** By number. What cannot be read is left out: another version's, or written by half. */
  workloads(): [number, WorkloadEntry][] {
    return this.#entries("workload", workloadSchema);
  }

  secrets(): [number, SecretEntry][] {
    return this.#entries("secret", secretSchema);
  }

  noteWorkload(number: number, entry: WorkloadEntry): void {
    this.#ledger?.set("workload", number, entry);
  }

  noteSecret(number: number, entry: SecretEntry): void {
    this.#ledger?.set("secret", number, entry);
  }

  forget(kind: "workload" | "secret", number: number): void {
    this.#ledger?.delete(kind, number);
  }

  #entries<T>(kind: "workload" | "secret", schema: v.GenericSchema<unknown, T>): [number, T][] {
    return (this.#ledger?.numbers(kind) ?? []).flatMap((number) => {
      const entry = v.safeParse(schema, this.#ledger?.get(kind, number));
      return entry.success ? [[number, entry.output] as [number, T]] : [];
    });
  }

  /** Written down before it is used: who dies in between has wasted it. */
  #next(kind: "workload" | "secret"): number {
    const number = this.#head[kind] + 1;
    this.#write({ ...this.#head, [kind]: number });
    return number;
  }

  #write(head: v.InferOutput<typeof headSchema>): void {
    this.#head = head;
    this.#ledger?.set("head", 0, head);
  }
}

/* Secrets in the kernel's tables. */
import type { Dataplane } from "../dataplane/index.ts";
import type { SecretValue } from "../placeholder/index.ts";
import { type BoundSecret, compileSecret } from "../policy/compile.ts";
import { anySecret, mergeHostRows } from "../policy/host-rows.ts";
import type { SecretPolicy } from "../policy/policy.ts";
import type { HostKey, HostRule, KernelRows, Row, SecretRow } from "../policy/rows.ts";

/** A secret that workloads may use. */
export interface SecretBinding {
  /** As audit records name it. */
  readonly name: string;
  readonly value: SecretValue;
  readonly placeholder: string;
  readonly policy: SecretPolicy;
  /** Extra roots for attestation, PEM. */
  readonly roots: readonly string[];
  /** Numbers of the workloads. */
  readonly workloads: readonly number[];
}

interface Held {
  readonly binding: SecretBinding;
  readonly rows: KernelRows;
}

/** Numbers are given out once, so that what is still in flight under an old one meets nothing new. */
export class SecretTables {
  readonly #dataplane: Dataplane;
  readonly #held = new Map<number, Held>();
  #names = new Map<number, string>();
  #last = 0;

  constructor(dataplane: Dataplane) {
    this.#dataplane = dataplane;
  }

  get bindings(): readonly SecretBinding[] {
    return [...this.#held.values()].map(({ binding }) => binding);
  }

  /** Also of a secret that is bound no more: its last events may come after. */
  name(number: number): string | undefined {
    return this.#names.get(number);
  }

  /** Enters a secret; from here on it is substituted. Returns its number. */
  add(binding: SecretBinding): number {
    this.#last += 1;
    const number = this.#last;
    const bound: BoundSecret = { number, ...binding };
    const rows = compileSecret(bound, (name) => this.#dataplane.hashName(name));
    this.#held.set(number, { binding, rows });
    this.#names.set(number, binding.name);
    this.#write(rows);
    return number;
  }

  /** Takes a secret out, tokens first. */
  remove(number: number): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    this.#held.delete(number);
    const { maps } = this.#dataplane;
    const { rows } = held;
    for (const { key } of rows.tokens) maps.tokens.delete({ workload: key.workload, token: Buffer.from(key.token) });
    for (const { key } of rows.secrets) maps.secrets.delete(key);
    for (const { key } of rows.networks) maps.networks.delete({ ...key, address: Buffer.from(key.address) });
    for (const { key } of rows.hosts) if (key.secret !== anySecret) maps.hosts.delete(key);
    for (const { key } of rows.secretChunks) maps.secret_chunks.delete(key);
    this.#shareHosts(rows.hosts.filter(({ key }) => key.secret === anySecret));
  }

  #write(rows: KernelRows): void {
    const { maps } = this.#dataplane;
    maps.secret_chunks.setMany(
      rows.secretChunks.map(({ key, value }) => [
        key,
        { expected: Buffer.from(value.expected), delta: Buffer.from(value.delta) },
      ]),
    );
    maps.hosts.setMany(rows.hosts.filter(({ key }) => key.secret !== anySecret).map(({ key, value }) => [key, value]));
    this.#shareHosts(rows.hosts.filter(({ key }) => key.secret === anySecret));
    maps.networks.setMany(
      rows.networks.map(({ key, value }) => [{ ...key, address: Buffer.from(key.address) }, value]),
    );
    maps.secrets.setMany(rows.secrets.map(({ key, value }) => [key, kernelSecret(value)]));
    maps.tokens.setMany(
      rows.tokens.map(({ key, value }) => [{ workload: key.workload, token: Buffer.from(key.token) }, value]),
    );
  }

  /** Names that several secrets allow have one row between them: what is left of it after a change of these. */
  #shareHosts(changed: readonly Row<HostKey, HostRule>[]): void {
    const wanted = new Map(changed.map(({ key }) => [`${key.kind} ${key.name}`, key]));
    const rows = [...this.#held.values()].map(({ rows }) =>
      rows.hosts.filter(({ key }) => key.secret === anySecret && wanted.has(`${key.kind} ${key.name}`)),
    );
    const { hosts } = this.#dataplane.maps;
    for (const { key, value } of mergeHostRows(rows)) {
      hosts.set(key, value);
      wanted.delete(`${key.kind} ${key.name}`);
    }
    for (const key of wanted.values()) hosts.delete(key);
  }
}

function kernelSecret(row: SecretRow) {
  const headers = row.headers.map(({ length, text }) => ({ length, text: Buffer.from(text).toString("latin1") }));
  return { ...row, headers };
}

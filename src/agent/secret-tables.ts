/* Secrets in the kernel's tables. */
import { createHmac } from "node:crypto";
import type { AttestRule } from "../attest/index.ts";
import { type Dataplane, encoding } from "../dataplane/index.ts";
import type { SecretValue } from "../placeholder/index.ts";
import { type BoundSecret, compileSecret, tokenRow } from "../policy/compile.ts";
import { anySecret, hostRows, mergeHostRows, networkRows } from "../policy/host-rows.ts";
import { parsePolicy, type PolicyInput, type SecretPolicy } from "../policy/policy.ts";
import type { HostKey, HostRule, KernelRows, NetworkKey, Row, SecretRow } from "../policy/rows.ts";
import type { Book } from "./book.ts";

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
  /** Where it is to be known to later agents: its source's name for it, and its policy as written. */
  readonly lasting?: { readonly id: string; readonly settings: PolicyInput };
}

/** What is kept of a secret; its other rows are found in the kernel's tables by its number. */
interface Held {
  readonly policy: SecretPolicy;
  readonly roots: readonly string[];
  readonly hosts: readonly Row<HostKey, HostRule>[];
  readonly networks: readonly Row<NetworkKey, HostRule>[];
  readonly id: string | undefined;
  readonly digest: string;
}

/** A number that another has taken over from: what is on its way under it still arrives. */
interface Retired {
  readonly held: Held;
  readonly sinceMs: number;
  readonly heir: number;
}

/** Longer than a record is on its way, from the moment it is sealed until it is first sent. */
const retiredMs = 5000;

/** Numbers are given out once, so that what is still in flight under an old one meets nothing new. */
export class SecretTables {
  readonly #dataplane: Dataplane;
  readonly #book: Book;
  readonly #held = new Map<number, Held>();
  readonly #ids = new Map<string, number>();
  readonly #retired = new Map<number, Retired>();
  readonly #names = new Map<number, string>();

  /** Knows at once what an earlier agent has left in the tables. */
  constructor(dataplane: Dataplane, book: Book) {
    this.#dataplane = dataplane;
    this.#book = book;
    for (const [number, { id, name, settings, roots, digest }] of book.secrets()) {
      if (digest === unfinished) continue;
      this.#names.set(number, name);
      this.#hold(number, { ...this.#rowsOf(number, parsePolicy(settings)), roots, id, digest });
    }
    if (!book.lasting) return;
    this.#dropHalfWritten();
    this.#settleBodies();
  }

  get rules(): AttestRule[] {
    return [...this.#held.values()].map(({ policy, roots }) => ({ ...policy, roots }));
  }

  /** By the names that sources have for them. */
  get ids(): ReadonlyMap<string, number> {
    return this.#ids;
  }

  /** Also of a secret that is bound no more: its last events may come after. */
  name(number: number): string | undefined {
    return this.#names.get(number);
  }

  /** Enters a secret; from here on it is substituted. Returns its number. */
  add(binding: SecretBinding): number {
    const number = this.#book.nextSecret();
    const bound: BoundSecret = { number, ...binding };
    const rows = compileSecret(bound, this.#hash);
    const digest = this.#digest(binding);
    const { policy, roots, lasting, name } = binding;
    this.#hold(number, { policy, roots, hosts: rows.hosts, networks: rows.networks, id: lasting?.id, digest });
    this.#names.set(number, name);
    if (this.#names.size > namesMax) this.#forgetNames();
    const note = (digest: string) => lasting && this.#book.noteSecret(number, { ...lasting, name, roots, digest });
    note(unfinished);
    this.#write(rows);
    if (policy.slots.body) this.#readBodiesOf(binding.workloads);
    note(digest);
    return number;
  }

  /**
   * As `add`, for what may be there already: with the same value and policy it keeps its number. With another value it has
   * another, and requests that are on their way go through under the old one.
   */
  put(binding: SecretBinding): number {
    const before = binding.lasting === undefined ? undefined : this.ids.get(binding.lasting.id);
    const held = before === undefined ? undefined : this.#held.get(before);
    if (before === undefined || held === undefined) return this.add(binding);
    if (held.digest === this.#digest(binding)) {
      this.#setWorkloads(before, binding);
      return before;
    }
    const number = this.add(binding);
    const isSame = JSON.stringify([held.policy, held.roots]) === JSON.stringify([binding.policy, binding.roots]);
    if (isSame) this.#retire(before, held, number);
    else this.remove(before);
    return number;
  }

  /** Takes a secret out, tokens first, and with it what it took over from. */
  remove(number: number): void {
    for (const [old, { heir, held }] of this.#retired) {
      if (heir !== number) continue;
      this.#retired.delete(old);
      this.#wipe(old, held);
    }
    const held = this.#held.get(number);
    if (held === undefined) return;
    this.#release(number, held);
    this.#wipe(number, held);
    if (held.policy.slots.body) this.#settleBodies();
    this.#shareHosts(held.hosts.filter(({ key }) => key.secret === anySecret));
  }

  /** Takes out what was taken over from so long ago that nothing of it can be on its way. To be called now and then. */
  sweep(now = performance.now()): void {
    for (const [number, { held, sinceMs }] of this.#retired) {
      if (now - sinceMs < retiredMs) continue;
      this.#retired.delete(number);
      this.#wipe(number, held);
    }
  }

  #readBodiesOf(workloads: readonly number[]): void {
    for (const workload of workloads) this.#dataplane.maps.body_readers.set(workload, 1);
  }

  /** Reads the bodies of those workloads alone that have a secret for one. */
  #settleBodies(): void {
    const { tokens, body_readers: readers } = this.#dataplane.maps;
    const wanted = new Set<number>();
    for (const [{ workload }, number] of tokens.entriesNow())
      if (this.#held.get(number)?.policy.slots.body) wanted.add(workload);
    wanted.delete(0);
    this.#readBodiesOf([...wanted]);
    for (const workload of readers.keys()) if (!wanted.has(workload)) readers.delete(workload);
  }

  /** Nothing new is found under this number; its other rows stay for a while. */
  #retire(number: number, held: Held, heir: number): void {
    this.#release(number, held);
    this.#dropTokens(number);
    for (const [old, retired] of this.#retired)
      if (retired.heir === number) this.#retired.set(old, { ...retired, heir });
    this.#retired.set(number, { held, sinceMs: performance.now(), heir });
  }

  #hold(number: number, held: Held): void {
    this.#held.set(number, held);
    if (held.id !== undefined) this.#ids.set(held.id, number);
  }

  #release(number: number, { id }: Held): void {
    this.#held.delete(number);
    if (id !== undefined && this.#ids.get(id) === number) this.#ids.delete(id);
    this.#book.forget("secret", number);
  }

  #dropTokens(number: number): void {
    const { tokens } = this.#dataplane.maps;
    for (const [key, secret] of tokens.entriesNow()) if (secret === number) tokens.delete(key);
  }

  /** A workload is gone: nothing of what it could use is found under its number any more. */
  removeWorkload(workload: number): void {
    const { tokens } = this.#dataplane.maps;
    for (const key of tokens.keys()) if (key.workload === workload) tokens.delete(key);
    this.#dataplane.maps.body_readers.delete(workload);
  }

  #setWorkloads(number: number, { placeholder, workloads, policy }: SecretBinding): void {
    const { tokens } = this.#dataplane.maps;
    const wanted = new Set([0, ...workloads]);
    for (const workload of wanted) {
      const { key, value } = tokenRow(workload, placeholder, number);
      tokens.set({ workload, token: Buffer.from(key.token) }, value);
    }
    for (const [key, secret] of tokens.entriesNow())
      if (secret === number && !wanted.has(key.workload)) tokens.delete(key);
    if (policy.slots.body) this.#settleBodies();
  }

  #rowsOf(number: number, policy: SecretPolicy): Pick<Held, "policy" | "hosts" | "networks"> {
    return { policy, hosts: hostRows(number, policy, this.#hash), networks: networkRows(number, policy) };
  }

  readonly #hash = (name: string): bigint => this.#dataplane.hashName(name);

  /** Under the data plane's key, which only root can read: nobody can try values on it. */
  #digest({ value, placeholder, policy, roots, name }: SecretBinding): string {
    const hmac = createHmac("sha256", this.#dataplane.macKey);
    for (const part of [value.reveal(), placeholder, JSON.stringify(policy), JSON.stringify(roots), name]) {
      const bytes = Buffer.from(part);
      hmac.update(`${bytes.length} `).update(bytes);
    }
    return hmac.digest("hex");
  }

  /** An agent died while it entered or removed a secret: what nobody has written down is not used. */
  #dropHalfWritten(): void {
    const { maps } = this.#dataplane;
    const unknown = new Set<number>();
    const note = (number: number) => number !== anySecret && !this.#held.has(number) && unknown.add(number);
    for (const [, number] of maps.tokens.entriesNow()) note(number);
    for (const number of maps.secrets.keys()) note(number);
    for (const { secret } of maps.secret_chunks.keys()) note(secret);
    for (const number of unknown) {
      this.#wipe(number, undefined);
      this.#book.forget("secret", number);
    }
    for (const key of maps.hosts.keys())
      if (key.secret !== anySecret && !this.#held.has(key.secret)) maps.hosts.delete(key);
    for (const key of maps.networks.keys()) if (!this.#held.has(inHostOrder(key.secret))) maps.networks.delete(key);
    this.#shareHosts(
      maps.hosts.entriesNow().flatMap(([key, value]) => (key.secret === anySecret ? [{ key, value }] : [])),
    );
  }

  #wipe(number: number, held: Held | undefined): void {
    const { maps } = this.#dataplane;
    this.#dropTokens(number);
    maps.secrets.delete(number);
    for (const { key } of held?.networks ?? []) maps.networks.delete({ ...key, address: Buffer.from(key.address) });
    for (const { key } of held?.hosts ?? []) if (key.secret !== anySecret) maps.hosts.delete(key);
    for (const code of Object.values(encoding))
      for (let index = 0; maps.secret_chunks.delete({ secret: number, encoding: code, index }); index += 1);
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
    const rows = [...this.#held.values()].map(({ hosts }) =>
      hosts.filter(({ key }) => key.secret === anySecret && wanted.has(`${key.kind} ${key.name}`)),
    );
    const { hosts } = this.#dataplane.maps;
    for (const { key, value } of mergeHostRows(rows)) {
      hosts.set(key, value);
      wanted.delete(`${key.kind} ${key.name}`);
    }
    for (const key of wanted.values()) hosts.delete(key);
  }

  /** The oldest of those that are bound no more. */
  #forgetNames(): void {
    for (const number of this.#names.keys()) {
      if (this.#held.has(number)) continue;
      this.#names.delete(number);
      if (this.#names.size <= namesMax) return;
    }
  }
}

/** Digest of a secret whose rows are not all there. */
const unfinished = "";

/** Names of secrets that are bound, or were; only those that were are forgotten. */
const namesMax = 8192;

function inHostOrder(number: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, number, true);
  return view.getUint32(0, false);
}

function kernelSecret(row: SecretRow) {
  const headers = row.headers.map(({ length, text }) => ({ length, text: Buffer.from(text).toString("latin1") }));
  return { ...row, headers };
}

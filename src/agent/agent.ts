/*
 * The engine: the data plane, the hooks in the workloads' TLS code, the attestor and the audit trail, put together.
 */
import { statSync } from "node:fs";
import { type Attested, Attestor, type AttestRule, type Clock, Roots, systemClock } from "../attest/index.ts";
import {
  type AuditRecord,
  lostRecord,
  type RecordContext,
  recordOf,
  unprotectedRecord,
  wallTime,
  type Workload,
} from "../audit/index.ts";
import {
  type Counters,
  type Dataplane,
  type Event,
  eventKind,
  netnsCookie,
  openDataplane,
} from "../dataplane/index.ts";
import { attestModes } from "../policy/policy.ts";
import { addressText } from "../policy/address.ts";
import { type Answer, Gate, type HeldFile } from "./gate.ts";
import { HookedFiles, proberOf } from "./hooked-files.ts";
import { KernelVerdicts } from "./kernel-verdicts.ts";
import { Protection } from "./protection.ts";
import { keepOrder } from "./receive-order.ts";
import { type SecretBinding, SecretTables } from "./secret-tables.ts";

export type { SecretBinding } from "./secret-tables.ts";

export interface AgentOptions {
  readonly dataplane?: Dataplane;
  /** Every outcome, in the order of the kernel's reports. */
  readonly audit: (record: AuditRecord) => void;
  /** `audit` has no use for what was substituted: no record is made of it. A busy workload makes one for each request. */
  readonly refusalsOnly?: boolean;
  /** What an operator may want to know: a line each. */
  readonly detail?: (message: string) => void;
  /** Something is amiss, and the agent goes on. */
  readonly warn?: (message: string) => void;
  readonly roots?: Roots;
  readonly clock?: Clock;
}

/** Who is protected. */
export interface WorkloadInput {
  /** Its network namespace, as a path: `/proc/PID/ns/net`. */
  readonly netns: string;
  /** As audit records name it; `process` is whoever made the request. */
  readonly describe: (process: { readonly pid: number; readonly command: string } | undefined) => Workload;
}

export interface ProtectedWorkload extends WorkloadInput {
  /** In the kernel's tables; never 0, never given out again. */
  readonly number: number;
  readonly cookie: bigint;
  readonly netnsInode: number;
}

/** Renewed this often, so that it outlives a pause of ours, and not our death by much. */
const leaseEveryMs = 1000;
const leaseNs = 5_000_000_000n;
const sweepEveryMs = 10_000;
/** Between two notes that a destination is in use. */
const renewalNs = 1_000_000_000n;
/** Of which the last note is remembered. */
const destinationsMax = 1000;

export class Agent {
  readonly #options: AgentOptions;
  readonly #dataplane: Dataplane;
  readonly #secrets: SecretTables;
  readonly #attestor: Attestor;
  readonly #files: HookedFiles;
  readonly #protection: Protection;
  readonly #workloads = new Map<number, ProtectedWorkload>();
  readonly #leased = new Map<number, number>();
  readonly #putBack = new Map<number, () => void>();
  readonly #inUse = new Map<string, bigint>();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #stop = new AbortController();
  #attesting: Promise<void> = Promise.resolve();
  #stopEvents: () => void = () => undefined;
  #gate: Gate | undefined;
  #lastWorkload = 0;
  #eventsLost = 0n;

  private constructor(options: AgentOptions, dataplane: Dataplane) {
    this.#options = options;
    this.#dataplane = dataplane;
    this.#secrets = new SecretTables(dataplane);
    this.#files = new HookedFiles(proberOf(dataplane));
    this.#protection = new Protection(this.#files, {
      unprotected: (pid, command, stack, why) => this.#unprotected(pid, command, stack, why),
      detail: (message) => this.#options.detail?.(message),
    });
    this.#attestor = new Attestor({
      sink: new KernelVerdicts(dataplane),
      roots: options.roots ?? new Roots(),
      clock: options.clock ?? systemClock,
      onAttested: (attested) => this.#options.detail?.(attestedText(attested)),
    });
  }

  /** Loads the data plane and begins to listen to it. */
  static async open(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options, options.dataplane ?? (await openDataplane()));
    agent.#start();
    return agent;
  }

  get counters(): Counters {
    return this.#dataplane.counters();
  }

  #start(): void {
    this.#stopEvents = this.#dataplane.events((event) => this.#hear(event));
    this.#attesting = this.#attestor.run(this.#stop.signal);
    this.#timers.push(
      setInterval(() => this.#renewLeases(), leaseEveryMs),
      setInterval(() => this.#sweep(), sweepEveryMs),
    );
    for (const timer of this.#timers) timer.unref();
  }

  /** From here on its processes' TLS records are looked at. */
  addWorkload(input: WorkloadInput): ProtectedWorkload {
    this.#lastWorkload += 1;
    const cookie = netnsCookie(input.netns);
    const workload = { ...input, number: this.#lastWorkload, cookie, netnsInode: statSync(input.netns).ino };
    this.#workloads.set(workload.number, workload);
    this.#dataplane.maps.workloads.set(cookie, { id: workload.number });
    this.#gate?.addWorkload(workload.netnsInode);
    return workload;
  }

  removeWorkload(workload: ProtectedWorkload): void {
    if (!this.#workloads.delete(workload.number)) return;
    this.#dataplane.maps.workloads.delete(workload.cookie);
    this.#gate?.removeWorkload(workload.netnsInode);
  }

  /**
   * Puts the wire programs on the host's end of a workload's veth. With a lease everything is dropped there a few
   * seconds after this process ends in whatever way; without one the programs go on with what they have.
   */
  attachInterface(workload: ProtectedWorkload, ifindex: number, options: { readonly lease: boolean }): void {
    if (options.lease) this.#leased.set(ifindex, workload.number);
    const until = options.lease ? process.hrtime.bigint() + leaseNs : 0n;
    this.#dataplane.maps.interfaces.set(ifindex, { workload: workload.number, leaseNs: until });
    this.#keepOrder(ifindex);
    this.#dataplane.attachWire(ifindex);
  }

  #keepOrder(ifindex: number): void {
    try {
      this.#putBack.set(ifindex, keepOrder(ifindex));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#options.warn?.(`uploads may be slow, as segments can overtake each other on interface ${ifindex}: ${why}`);
    }
  }

  /** After the interface is gone, or when its workload is to be as others are. */
  detachInterface(ifindex: number): void {
    this.#leased.delete(ifindex);
    this.#putBack.get(ifindex)?.();
    this.#putBack.delete(ifindex);
    try {
      this.#dataplane.detachWire(ifindex);
    } catch {
      // the interface has gone, and the programs with it
    }
    this.#dataplane.maps.interfaces.delete(ifindex);
  }

  /** Lets workloads use a secret; returns its number, for `unbind`. */
  bind(binding: SecretBinding): number {
    const number = this.#secrets.add(binding);
    this.#attestor.setRules(this.#rules());
    return number;
  }

  unbind(number: number): void {
    this.#secrets.remove(number);
    this.#attestor.setRules(this.#rules());
  }

  #rules(): AttestRule[] {
    return this.#secrets.bindings.map(({ policy, roots }) => ({ ...policy, roots }));
  }

  /**
   * Hooks what process `pid` executes and opens from now on, before it runs. Its mount namespace must not be the host's.
   * @throws KloakError if the kernel has no such gate; then `hookProcess` after each exec is what is left
   */
  async guard(pid: number): Promise<void> {
    if (this.#gate === undefined) {
      this.#gate = await Gate.open({
        asked: (file) => this.#asked(file),
        late: (file) => this.#options.warn?.(`a program of process ${file.pid} started before it was looked at`),
        failed: (error) => this.#options.warn?.(error instanceof Error ? error.message : String(error)),
      });
      for (const { netnsInode } of this.#workloads.values()) this.#gate.addWorkload(netnsInode);
    }
    this.#protection.noteMounts(pid);
    await this.#gate.guard(pid);
  }

  /** A process in a mount namespace that is not guarded yet, a sandbox within the workload, is guarded from its exec on. */
  async #asked(file: HeldFile): Promise<Answer> {
    if (file.purpose === "exec" && this.#protection.noteMounts(file.pid)) await this.#gate?.guard(file.pid);
    return this.#protection.opened(file);
  }

  /** Hooks the files that a running process has mapped. */
  hookProcess(pid: number): void {
    this.#protection.running(pid);
  }

  /** Ends all of it. What was said by then is in the audit trail. */
  async close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    await this.#gate?.close();
    this.#stop.abort();
    await this.#attesting;
    this.#dataplane.drainEvents();
    this.#countLost();
    this.#stopEvents();
    for (const ifindex of [...this.#leased.keys()]) this.detachInterface(ifindex);
    this.#dataplane.close(); // with all links
  }

  #hear(event: Event): void {
    if (event.kind === eventKind.attest) return this.#attest(event);
    if (event.kind === eventKind.exec) return this.hookProcess(event.process);
    if (event.kind === eventKind.substituted) this.#renew(event);
    if (event.kind === eventKind.substituted && this.#options.refusalsOnly === true) return;
    const record = recordOf(event, this.#context);
    if (record !== undefined) this.#options.audit(record);
  }

  /** A verdict in use is renewed before it expires; that it is in use need not be said for each of a thousand requests. */
  #renew(event: Event): void {
    const { address, port, host, hostLength, attest, workload, timeNs } = event;
    const destination = `${address.toString("latin1")} ${port} ${attest} ${workload} ${host.slice(0, hostLength)}`;
    const last = this.#inUse.get(destination);
    if (last !== undefined && timeNs - last < renewalNs) return;
    if (this.#inUse.size >= destinationsMax) this.#inUse.clear();
    this.#inUse.set(destination, timeNs);
    this.#attest(event);
  }

  #attest({ address, port, host, hostLength, attest, workload }: Event): void {
    const mode = attestModes[attest];
    if (mode === undefined) return;
    const name = hostLength === 0 ? null : host.slice(0, hostLength);
    this.#attestor.request({ address: addressText(address), port, name, mode }, workload);
  }

  readonly #context: RecordContext = {
    secretName: (number) => this.#secrets.name(number),
    workload: (number, process) => this.#workloads.get(number)?.describe(process),
    wallTime,
  };

  #unprotected(pid: number, command: string, stack: string | null, why: string): void {
    const workload = this.#workloadOf(pid);
    if (workload === undefined) return;
    const described = workload.describe({ pid, command });
    this.#options.audit(unprotectedRecord(new Date(), described, stack, why));
  }

  #workloadOf(pid: number): ProtectedWorkload | undefined {
    try {
      const inode = statSync(`/proc/${pid}/ns/net`).ino;
      return [...this.#workloads.values()].find(({ netnsInode }) => netnsInode === inode);
    } catch {
      return undefined; // it has ended
    }
  }

  #renewLeases(): void {
    const until = process.hrtime.bigint() + leaseNs;
    for (const [ifindex, workload] of this.#leased) {
      this.#dataplane.maps.interfaces.set(ifindex, { workload, leaseNs: until });
    }
  }

  #sweep(): void {
    try {
      this.#dataplane.sweeper.sweep();
      this.#countLost();
    } catch (error) {
      this.#options.warn?.(`sweeping: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #countLost(): void {
    const lost = this.#dataplane.counters().eventsLost;
    if (lost > this.#eventsLost) this.#options.audit(lostRecord(new Date(), Number(lost - this.#eventsLost)));
    this.#eventsLost = lost;
  }
}

function attestedText({ key, granted, failure }: Attested): string {
  const target = `${key.name ?? key.address} at ${key.address} port ${key.port}`;
  if (granted) return `attested: ${target} (${key.mode})`;
  return `not attested: ${target} (${failure?.reason ?? "unknown"}: ${failure?.detail ?? ""})`;
}

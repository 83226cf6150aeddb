/*
 * The engine: the data plane, the hooks in the workloads' TLS code, the attestor and the audit trail, put together.
 */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { type Attested, Attestor, type Clock, Roots, systemClock } from "../attest/index.ts";
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
  attestationCodec,
  type Counters,
  type Dataplane,
  type DataplaneOptions,
  type Event,
  eventKind,
  netnsCookie,
  openDataplane,
} from "../dataplane/index.ts";
import { u64 } from "../dataplane/codec.ts";
import { KloakError } from "../errors.ts";
import { attestModes } from "../policy/policy.ts";
import { addressText } from "../policy/address.ts";
import { Book, type WorkloadEntry } from "./book.ts";
import { type Answer, Gate, type GateOptions, type HeldFile, type Passed } from "./gate.ts";
import { HookedFiles, proberOf } from "./hooked-files.ts";
import { IdleMemory } from "./idle-memory.ts";
import { KernelVerdicts } from "./kernel-verdicts.ts";
import { Protection } from "./protection.ts";
import { keepOrder } from "./receive-order.ts";
import { type SecretBinding, SecretTables } from "./secret-tables.ts";

export type { SecretBinding } from "./secret-tables.ts";

export interface AgentOptions {
  /** One with pins has been taken. */
  readonly dataplane?: Dataplane;
  /** With pins: the gate that outlives us too. */
  readonly gate?: NonNullable<GateOptions["lasting"]>;
  /** Container runtimes, each held at its execve until `starting` has found what there is of the container. */
  readonly runtimes?: { readonly paths: readonly string[]; readonly starting: () => Promise<void> };
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
  /** Where it is to be known to later agents: its source's name for it, and what to say of it. */
  readonly lasting?: { readonly id: string; readonly about: Workload };
}

export interface ProtectedWorkload extends WorkloadInput {
  /** In the kernel's tables; never 0, never given out again. */
  readonly number: number;
  readonly cookie: bigint;
  readonly netnsInode: number;
  /** Of the host's end of its wire; 0: none yet. */
  readonly ifindex: number;
}

/** Renewed this often, so that it outlives a pause of ours, and not our death by much. */
const leaseEveryMs = 1000;
const leaseNs = 5_000_000_000n;
const sweepEveryMs = 10_000;
/** Between two notes that a destination is in use. */
const renewalNs = 1_000_000_000n;

/** Where no record is made of substitutions, the kernel tells of them as often as verdicts are renewed. */
function ownDataplane({ refusalsOnly }: AgentOptions): DataplaneOptions {
  return refusalsOnly === true ? { variables: { tell_ns: u64.encode(renewalNs) } } : {};
}
/** Of which the last note is remembered. */
const destinationsMax = 1000;
/** How long a program that was let through may take to map what it opened. */
const mapMs = 50;
/** Processes of which an exec is expected that nobody has looked at. */
const passedMax = 4096;

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
  readonly #book: Book;
  readonly #passed = new Set<number>();
  readonly #memory = new IdleMemory();
  #rulesStale = false;
  readonly #stop = new AbortController();
  #attesting: Promise<void> = Promise.resolve();
  #stopEvents: () => void = () => undefined;
  #gate: Gate | undefined;
  #gateOpening: Promise<Gate> | undefined;
  #closing = false;
  #started = false;
  #inherited = false;
  #saidOrder = false;

  private constructor(options: AgentOptions, dataplane: Dataplane) {
    this.#options = options;
    this.#dataplane = dataplane;
    this.#book = new Book(dataplane.ledger);
    this.#secrets = new SecretTables(dataplane, this.#book);
    this.#files = new HookedFiles(proberOf(dataplane, (path) => this.#gate?.watch(path)));
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
    const agent = new Agent(options, options.dataplane ?? (await openDataplane(ownDataplane(options))));
    try {
      if (options.gate !== undefined) await agent.#openGate();
      agent.#start();
      return agent;
    } catch (error) {
      await agent.close();
      throw error;
    }
  }

  get counters(): Counters {
    return this.#dataplane.counters();
  }

  /** What there is, with what an earlier agent has left. */
  get workloads(): readonly ProtectedWorkload[] {
    return [...this.#workloads.values()];
  }

  /** Files with hooks in them. */
  get hookedFiles(): number {
    return this.#files.hookedCount;
  }

  /** Secrets by the names that sources have for them. */
  get secretIds(): ReadonlyMap<string, number> {
    return this.#secrets.ids;
  }

  #start(): void {
    this.#started = true;
    if (this.#dataplane.objects.has("process")) this.#dataplane.attachProcesses();
    this.#restore();
    this.#attestor.setRules(this.#secrets.rules);
    this.#inherited = this.#book.lasting;
    this.#stopEvents = this.#dataplane.events((event) => this.#hear(event));
    this.#attesting = this.#attestor.run(this.#stop.signal);
    this.#timers.push(
      setInterval(() => this.#renewLeases(), leaseEveryMs),
      setInterval(() => this.#sweep(), sweepEveryMs),
    );
    for (const timer of this.#timers) timer.unref();
    this.#memory.note();
  }

  /** From here on its processes' TLS records are looked at. */
  addWorkload(input: WorkloadInput): ProtectedWorkload {
    const number = this.#book.nextWorkload();
    const cookie = netnsCookie(input.netns);
    const workload = { ...input, number, cookie, netnsInode: statSync(input.netns).ino, ifindex: 0 };
    this.#note(workload);
    this.#dataplane.maps.workloads.set(cookie, { id: number });
    this.#gate?.addWorkload(workload.netnsInode);
    return workload;
  }

  removeWorkload({ number }: Pick<ProtectedWorkload, "number">): void {
    const workload = this.#workloads.get(number);
    if (workload === undefined) return;
    this.#workloads.delete(number);
    this.#dataplane.maps.workloads.delete(workload.cookie);
    this.#gate?.removeWorkload(workload.netnsInode);
    this.#secrets.removeWorkload(number);
    this.#files.release(workload.netnsInode);
    if (workload.ifindex !== 0 && workload.lasting !== undefined) {
      this.detachInterface(workload.ifindex);
      this.#dataplane.sweeper.forget(number);
    }
    this.#book.forget("workload", number);
  }

  /**
   * Puts the wire programs on the host's end of a workload's veth. With a lease everything is dropped there a few
   * seconds after this process ends in whatever way; without one the programs go on with what they have.
   * @throws KloakError `wire-orphaned` if there are wire programs whose memory is not ours: what they have patched
   * would go out unpatched when TCP sends it again
   */
  attachInterface(workload: ProtectedWorkload, ifindex: number, options: { readonly lease: boolean }): void {
    const { interfaces } = this.#dataplane.maps;
    if (interfaces.get(ifindex) === undefined && this.#dataplane.wireAttached(ifindex)) {
      throw new KloakError(
        "wire-orphaned",
        `Interface ${ifindex} has wire programs of a data plane that is gone, and connections that only they know. ` +
          "They go on; restart the workload to protect it again",
      );
    }
    if (options.lease) this.#leased.set(ifindex, workload.number);
    const until = options.lease ? process.hrtime.bigint() + leaseNs : 0n;
    interfaces.set(ifindex, { workload: workload.number, leaseNs: until });
    this.#note({ ...workload, ifindex });
    this.#keepOrder(ifindex);
    this.#dataplane.attachWire(ifindex);
  }

  #keepOrder(ifindex: number): void {
    try {
      this.#putBack.set(ifindex, keepOrder(ifindex));
    } catch (error) {
      // What stands in the way is the same for every interface: a /sys that cannot be written.
      const say = this.#saidOrder ? this.#options.detail : this.#options.warn;
      this.#saidOrder = true;
      const why = error instanceof Error ? error.message : String(error);
      say?.(`uploads may be slow, as segments can overtake each other on interface ${ifindex}: ${why}`);
    }
  }

  #note(workload: ProtectedWorkload): void {
    const { number, lasting, cookie, netnsInode, ifindex } = workload;
    this.#workloads.set(number, workload);
    if (lasting === undefined) return;
    this.#book.noteWorkload(number, { ...lasting, cookie: cookie.toString(), netnsInode, ifindex });
  }

  /** Goes on with the workloads of an earlier agent: our programs on their wires, their processes hooked. */
  #restore(): void {
    const { workloads, interfaces } = this.#dataplane.maps;
    for (const [number, entry] of this.#book.workloads()) {
      if (!this.#isThere(entry)) {
        workloads.delete(BigInt(entry.cookie));
        interfaces.delete(entry.ifindex);
        this.#secrets.removeWorkload(number);
        this.#dataplane.sweeper.forget(number);
        this.#book.forget("workload", number);
        continue;
      }
      const { id, about, netnsInode, ifindex } = entry;
      const cookie = BigInt(entry.cookie);
      const describe = describeAs(about);
      this.#workloads.set(number, { netns: "", number, cookie, netnsInode, ifindex, describe, lasting: { id, about } });
      workloads.set(cookie, { id: number });
      this.#gate?.addWorkload(netnsInode);
      if (ifindex !== 0) this.#dataplane.attachWire(ifindex);
    }
    // An agent died while it added or removed these.
    const known = new Set(this.#workloads.keys());
    if (!this.#book.lasting) return;
    for (const [cookie, { id }] of workloads.entriesNow()) if (!known.has(id)) workloads.delete(cookie);
    for (const [ifindex, { workload }] of interfaces.entriesNow())
      if (!known.has(workload) && !this.#dataplane.wireAttached(ifindex)) interfaces.delete(ifindex);
    this.hookAll();
  }

  /** A wire ends with its namespace; without one there is only the namespace to ask, by a process in it. */
  #isThere({ ifindex, netnsInode }: WorkloadEntry): boolean {
    if (ifindex !== 0) return this.#dataplane.wireAttached(ifindex);
    return processesIn(new Set([netnsInode])).length > 0;
  }

  /** Hooks what all processes of the workloads have mapped. */
  hookAll(): void {
    this.hookWorkloads(this.workloads);
  }

  /** The same of these alone. */
  hookWorkloads(workloads: readonly ProtectedWorkload[]): void {
    for (const pid of processesIn(new Set(workloads.map(({ netnsInode }) => netnsInode)))) {
      if (this.#gate !== undefined) this.#protection.noteMounts(pid);
      this.hookProcess(pid);
    }
  }

  /**
   * Everything that is wanted has been said: probes of an earlier agent that no process of a workload uses go. A program
   * that needs them is held again, since the gate has been told to forget.
   */
  settled(): void {
    this.#dataplane.dropPlaces((place) => this.#files.has(place));
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

  /** Lets workloads use a secret; returns its number, for `unbind`. One that is there already keeps it. */
  bind(binding: SecretBinding): number {
    const before = binding.lasting === undefined ? undefined : this.secretIds.get(binding.lasting.id);
    const number = this.#secrets.put(binding);
    if (number !== before) this.#rulesChanged();
    this.#memory.note();
    return number;
  }

  unbind(number: number): void {
    this.#secrets.remove(number);
    this.#rulesChanged();
  }

  /** Tells the attestor when all that happens now has happened: thousands of secrets may be bound one after the other. */
  #rulesChanged(): void {
    if (!this.#rulesStale)
      queueMicrotask(() => {
        this.#rulesStale = false;
        this.#attestor.setRules(this.#secrets.rules);
      });
    this.#rulesStale = true;
    // Verdicts that an earlier agent has given are nobody's to take back one by one; who is in use is asked for again.
    if (this.#inherited) this.#dataplane.maps.attestations.clear();
    this.#inherited = false;
  }

  /**
   * Hooks what process `pid` executes and opens from now on, before it runs. Its mount namespace must not be the host's.
   * @throws KloakError if the kernel has no such gate; then `hookProcess` after each exec is what is left
   */
  async guard(pid: number): Promise<void> {
    const gate = await this.#openGate();
    this.#protection.noteMounts(pid);
    await gate.guard(pid);
    this.#memory.note();
  }

  #openGate(): Promise<Gate> {
    this.#gateOpening ??= this.#makeGate().catch((error: unknown) => {
      this.#gateOpening = undefined;
      throw error;
    });
    return this.#gateOpening;
  }

  async #makeGate(): Promise<Gate> {
    const { gate: lasting, warn } = this.#options;
    const gate = await Gate.open({
      asked: (file) => this.#asked(file),
      passed: (passed) => this.#letThrough(passed),
      missed: (count) => warn?.(`${count} more programs and libraries were let through while no agent was there`),
      modified: (place) => this.#files.changed(place),
      failed: (error) => this.#gateFailed(error),
      ...(lasting === undefined ? {} : { lasting }),
    });
    this.#gate = gate;
    for (const path of this.#options.runtimes?.paths ?? []) gate.addRuntime(path);
    for (const { netnsInode } of this.#workloads.values()) gate.addWorkload(netnsInode);
    if (lasting !== undefined) await gate.guardHost();
    return gate;
  }

  /** A gate that outlives agents is made anew should it end; programs that start meanwhile are hooked when they run. */
  #gateFailed(error: unknown): void {
    this.#options.warn?.(error instanceof Error ? error.message : String(error));
    const ended = error instanceof KloakError && error.code === "gate-ended";
    if (!ended || this.#options.gate === undefined || this.#closing) return;
    this.#gate = undefined;
    this.#gateOpening = undefined;
    this.#openGate().then(
      () => this.hookAll(),
      (failure: unknown) => this.#options.warn?.(failure instanceof Error ? failure.message : String(failure)),
    );
  }

  /** Nobody has looked at what this process executes or opens: it is looked at when it is there. */
  #letThrough({ pid, purpose, why }: Passed): void {
    const reason = why === "late" ? "no answer came in time" : "its workload started too many at once";
    this.#options.warn?.(`a program or library of process ${pid} was let through before it was looked at: ${reason}`);
    if (purpose === "exec") this.#expectExec(pid);
    setTimeout(() => this.hookProcess(pid), mapMs).unref();
  }

  #expectExec(pid: number): void {
    const oldest = this.#passed.values().next();
    if (this.#passed.size >= passedMax && oldest.done !== true) this.#passed.delete(oldest.value);
    this.#passed.add(pid);
  }

  /** What the gate cannot hold: no file system that is marked has it, or it was let through. */
  #executed(pid: number): void {
    if (this.#passed.delete(pid) || this.#gate === undefined || isNameless(pid)) this.hookProcess(pid);
  }

  /** A process in a mount namespace that is not guarded yet, a sandbox within the workload, is guarded from its exec on. */
  async #asked(file: HeldFile): Promise<Answer> {
    if (this.#isRuntime(file)) {
      await this.#options.runtimes?.starting();
      return "ask-again";
    }
    if (file.purpose === "exec" && this.#protection.noteMounts(file.pid)) await this.#gate?.guard(file.pid);
    return this.#protection.opened(file);
  }

  #isRuntime({ path, purpose }: HeldFile): boolean {
    const { paths = [] } = this.#options.runtimes ?? {};
    if (purpose !== "exec" || paths.length === 0) return false;
    const file = statSync(path);
    return paths.some((each) => {
      const runtime = statSync(each, { throwIfNoEntry: false });
      return runtime?.ino === file.ino && runtime.dev === file.dev;
    });
  }

  /** Hooks the files that a running process has mapped. */
  hookProcess(pid: number): void {
    this.#protection.running(pid);
  }

  /**
   * Ends all of it; a data plane with pins goes on without us, and so does its gate. What was said by then is in the
   * audit trail.
   */
  async close(): Promise<void> {
    this.#closing = true;
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    this.#memory.close();
    await this.#gate?.close();
    this.#stop.abort();
    await this.#attesting;
    this.#dataplane.drainEvents();
    if (this.#started) this.#countLost();
    this.#stopEvents();
    for (const ifindex of [...this.#leased.keys()]) this.detachInterface(ifindex);
    this.#dataplane.close(); // with all links
  }

  #hear(event: Event): void {
    if (event.kind === eventKind.attest) return this.#attest(event);
    if (event.kind === eventKind.exec) return this.#executed(event.process);
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
      if (this.#dataplane.repair())
        this.#options.warn?.("what is pinned for later agents had been removed: it is there again");
      this.#dataplane.sweeper.sweep();
      this.#secrets.sweep();
      this.#dataplane.maps.attestations.sweep(attestationCodec.fields.expiresNs[0], process.hrtime.bigint());
      this.#countLost();
    } catch (error) {
      this.#options.warn?.(`sweeping: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #countLost(): void {
    const lost = this.#dataplane.counters().eventsLost;
    if (lost > this.#book.eventsLost) {
      this.#options.audit(lostRecord(new Date(), Number(lost - this.#book.eventsLost)));
      this.#book.eventsLost = lost;
    }
  }
}

/** How audit records name a workload, given who of it made the request. */
export function describeAs(about: Workload): WorkloadInput["describe"] {
  if (about.kind !== "run") return () => about;
  return (process) => ({
    kind: "run",
    pid: process === undefined || process.pid === 0 ? about.pid : process.pid,
    command: process?.command || about.command,
  });
}

/** Processes in any of these network namespaces, by inode. */
function processesIn(namespaces: ReadonlySet<number>): number[] {
  if (namespaces.size === 0) return [];
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return namespaces.has(statSync(`/proc/${name}/ns/net`).ino) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

/** A program that has no name in any file system: memfd_create(2), or deleted since. */
function isNameless(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).endsWith(" (deleted)");
  } catch {
    return false; // it has ended
  }
}

function attestedText({ key, granted, failure }: Attested): string {
  const target = `${key.name ?? key.address} at ${key.address} port ${key.port}`;
  if (granted) return `attested: ${target} (${key.mode})`;
  return `not attested: ${target} (${failure?.reason ?? "unknown"}: ${failure?.detail ?? ""})`;
}

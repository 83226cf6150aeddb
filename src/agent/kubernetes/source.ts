/*
 * The Kubernetes source of workloads: what the controller says of this node, met with what the node has. A pod is
 * protected as soon as it has a process in a network namespace of its own, which is its sandbox's, before any container
 * of it; each container's file systems are guarded before its first instruction, because container runtimes are held at
 * their exec until we have looked (`starting`).
 */
import { setTimeout as delay } from "node:timers/promises";
import { sleep } from "../../kube/backoff.ts";
import type { Workload } from "../../audit/index.ts";
import type { WorkloadSink, WorkloadSource } from "../source.ts";
import { type ControllerLink } from "./controller-link.ts";
import { type FeedPod, type FeedSecret, FeedState } from "./feed-state.ts";
import { hostInterfaceOf, podProcesses } from "./pod-processes.ts";

export interface KubernetesSourceOptions {
  readonly link: ControllerLink;
  readonly node: string;
  readonly warn: (message: string) => void;
  /** Containers of this pod ran before it could be protected. */
  readonly late: (pod: Workload) => void;
  /** How long a pod keeps a placeholder, and its value, that its shadow has no more. */
  readonly keepMs?: number;
  readonly lookEveryMs?: number;
  /** How long a container waits until it is known whether its pod is cloaked. */
  readonly resolveMs?: number;
}

interface Held {
  secret: FeedSecret;
  /** Pods, each with when it loses the secret; undefined: it has it for as long as the controller says. */
  readonly pods: Map<string, number | undefined>;
  /** What the sink was told of it last: nothing is told twice. */
  told?: { readonly secret: FeedSecret; readonly pods: string };
}

interface Placed {
  readonly netns: string;
  /** The host's end of its wire. */
  readonly interface: string;
  /** Mount namespaces of it that are guarded. */
  readonly mounts: Set<string>;
}

const dayMs = 24 * 3600_000;

function aboutPod({ namespace, name, uid }: FeedPod, node: string): Workload {
  return { kind: "pod", namespace, name, uid, container: null, node };
}

function interfaceOf(pid: number): string | undefined {
  try {
    return hostInterfaceOf(pid);
  } catch {
    return undefined; // it has ended, or has no /sys
  }
}

/**
 * Work that is done one turn at a time, where a turn that begins after a call serves it: however many call while one is
 * under way, one more follows.
 */
class Turns {
  readonly #work: () => Promise<void>;
  #current: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  run(): Promise<void> {
    this.#next ??= this.#current.then(() => {
      this.#next = undefined;
      this.#current = this.#work();
      return this.#current;
    });
    return this.#next;
  }
}

export class KubernetesSource implements WorkloadSource {
  readonly #options: Required<KubernetesSourceOptions>;
  readonly #placed = new Map<string, Placed>();
  readonly #held = new Map<string, Held>();
  /** Pods with processes here that the feed does not have, and of those, the ones that are not cloaked. */
  #strangers: readonly string[] = [];
  readonly #uncloaked = new Set<string>();
  #state = new FeedState();
  #pods: readonly FeedPod[] = [];
  #sink: WorkloadSink | undefined;
  #settled = false;
  readonly #looks = new Turns(() => this.#look().catch((error: unknown) => this.#warn(error)));
  readonly #starts = new Turns(() => this.#start());
  #bell = new AbortController();
  /** Something has changed since secrets were last bound, or a value's time is up at this moment (Date.now). */
  #unbound = true;
  #nextEnd = Number.POSITIVE_INFINITY;

  constructor(options: KubernetesSourceOptions) {
    this.#options = { keepMs: dayMs, lookEveryMs: 1000, resolveMs: 3000, ...options };
  }

  /** The controller has told all once, and it is protected. */
  get ready(): boolean {
    return this.#settled;
  }

  async run(sink: WorkloadSink, signal: AbortSignal): Promise<void> {
    this.#sink = sink;
    const following = this.#options.link.follow(
      () => {
        this.#state = new FeedState();
      },
      (line) => {
        // What a new stream tells is compared with what is there when it has told all.
        if (this.#state.take(line) && this.#state.synced) this.#bell.abort();
      },
      signal,
    );
    while (!signal.aborted) {
      await sleep(this.#options.lookEveryMs, AbortSignal.any([this.#bell.signal, signal]));
      this.#bell = new AbortController();
      if (!signal.aborted) await this.looked();
    }
    await following;
  }

  /**
   * A container is about to start. Should it be of a pod that we have not heard of, the controller is asked, and what it
   * says of the pod is waited for: nothing of a cloaked pod may run before the pod is protected.
   */
  starting(): Promise<void> {
    return this.#starts.run();
  }

  async #start(): Promise<void> {
    await this.looked();
    const strangers = [...this.#strangers];
    if (strangers.length === 0) return;
    const deadline = performance.now() + this.#options.resolveMs;
    try {
      const cloaked = await this.#options.link.resolve(strangers, AbortSignal.timeout(this.#options.resolveMs));
      for (const uid of strangers) if (!cloaked.has(uid)) this.#uncloaked.add(uid);
      while (!this.#knows(cloaked) && performance.now() < deadline) await delay(5);
    } catch (error) {
      this.#warn(error);
    }
    await this.looked();
  }

  #knows(cloaked: ReadonlyMap<string, readonly string[]>): boolean {
    const pods = new Map(this.#state.pods().map((pod) => [pod.uid, new Set(pod.secrets.map(({ name }) => name))]));
    return [...cloaked].every(([uid, names]) => names.every((name) => pods.get(uid)?.has(name) === true));
  }

  /** Looks at the node's processes once more; resolves when what was found is protected. */
  looked(): Promise<void> {
    return this.#looks.run();
  }

  async #look(): Promise<void> {
    if (this.#sink === undefined) return;
    if (this.#state.synced) this.#setPods(this.#state.pods());
    else if (!this.#settled) return; // nothing is known yet
    await this.#place(this.#sink);
    if (this.#unbound || Date.now() >= this.#nextEnd) this.#bind(this.#sink);
    if (this.#settled || !this.#state.synced) return;
    this.#settled = true;
    this.#inherit(this.#sink);
    this.#sink.settled();
  }

  #setPods(pods: readonly FeedPod[]): void {
    if (pods === this.#pods) return;
    this.#pods = pods;
    this.#unbound = true;
  }

  /** Workloads: pods that have a namespace, and their containers. */
  async #place(sink: WorkloadSink): Promise<void> {
    const wanted = new Map(this.#pods.map((pod) => [pod.uid, pod]));
    for (const uid of this.#placed.keys()) {
      if (wanted.has(uid)) continue;
      this.#placed.delete(uid);
      this.#unbound = true;
      sink.workloadGone(uid);
    }
    const running = podProcesses();
    for (const uid of this.#uncloaked) if (!running.has(uid)) this.#uncloaked.delete(uid);
    this.#strangers = [...running.keys()].filter((uid) => !wanted.has(uid) && !this.#uncloaked.has(uid));
    for (const [uid, processes] of running) {
      const pod = wanted.get(uid);
      if (pod === undefined) continue;
      for (const { pid, netns, mounts } of processes) {
        const before = this.#placed.get(uid);
        if (before?.netns === netns && before.mounts.has(mounts)) continue;
        const name = before?.netns === netns ? before.interface : interfaceOf(pid);
        if (name === undefined) continue; // its network is being made: the next look finds it
        const about = aboutPod(pod, this.#options.node);
        const fresh = await sink.workload({
          id: uid,
          netns: `/proc/${pid}/ns/net`,
          interface: name,
          process: pid,
          about,
        });
        if (before?.netns !== netns) this.#tellAgain(uid);
        // The sandbox has one, and each container that runs.
        if (fresh && new Set(processes.map((process) => process.mounts)).size > 1) this.#options.late(about);
        const known = before?.netns === netns ? before : { netns, interface: name, mounts: new Set<string>() };
        known.mounts.add(mounts);
        this.#placed.set(uid, known);
        this.#unbound = true;
      }
    }
  }

  /** Secrets: of pods that are placed; one that a pod had and its shadow has no more is kept for it for a while. */
  #bind(sink: WorkloadSink): void {
    const now = Date.now();
    const current = new Set<string>();
    this.#unbound = false;
    this.#nextEnd = Number.POSITIVE_INFINITY;
    for (const pod of this.#pods) {
      if (!this.#placed.has(pod.uid)) continue;
      for (const secret of pod.secrets) {
        current.add(`${secret.id} ${pod.uid}`);
        const held = this.#held.get(secret.id);
        if (held === undefined) this.#held.set(secret.id, { secret, pods: new Map([[pod.uid, undefined]]) });
        else {
          held.secret = secret;
          held.pods.set(pod.uid, undefined);
        }
      }
    }
    for (const [id, held] of this.#held) {
      for (const [uid, until] of held.pods) {
        if (current.has(`${id} ${uid}`)) continue;
        const end = until ?? now + this.#options.keepMs;
        const pod = this.#pods.find((each) => each.uid === uid);
        // Taken away, and not only replaced, it is gone at once.
        const replaced = pod?.secrets.some(({ name }) => name === held.secret.name) === true;
        if (!this.#placed.has(uid) || !replaced || end <= now) held.pods.delete(uid);
        else {
          held.pods.set(uid, end);
          this.#nextEnd = Math.min(this.#nextEnd, end);
        }
      }
      if (held.pods.size === 0) {
        this.#held.delete(id);
        sink.secretGone(id);
        continue;
      }
      const pods = [...held.pods.keys()].join();
      if (held.told?.secret === held.secret && held.told.pods === pods) continue;
      const { name, value, placeholder, policy, roots } = held.secret;
      try {
        sink.secret({ id, name, value, placeholder, settings: policy, roots, workloads: [...held.pods.keys()] });
        held.told = { secret: held.secret, pods };
      } catch (error) {
        this.#unbound = true; // it is tried, and said, again
        this.#warn(error);
      }
    }
  }

  /** A pod is another workload than before: its secrets are bound anew. */
  #tellAgain(uid: string): void {
    for (const held of this.#held.values()) if (held.pods.has(uid)) delete held.told;
  }

  /** What pods had of an earlier agent under a placeholder of before: since when is not known, so it is kept from now. */
  #inherit(sink: WorkloadSink): void {
    const names = new Set(this.#pods.flatMap(({ secrets }) => secrets.map(({ name }) => name)));
    for (const id of sink.secretIds()) {
      if (this.#held.has(id) || !names.has(id.slice(0, id.lastIndexOf("#")))) continue;
      sink.keepSecret(id);
      setTimeout(() => {
        if (!this.#held.has(id)) sink.secretGone(id);
      }, this.#options.keepMs).unref();
    }
  }

  #warn(error: unknown): void {
    this.#options.warn(error instanceof Error ? error.message : String(error));
  }
}

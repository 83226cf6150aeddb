/* Turns what a source wants into what the engine does, by the source's own names. */
import { readFileSync } from "node:fs";
import { KloakError } from "../errors.ts";
import { parsePolicy } from "../policy/policy.ts";
import { netnsCookie } from "../dataplane/index.ts";
import { type Agent, describeAs, type ProtectedWorkload } from "./agent.ts";
import type { WantedSecret, WantedWorkload, WorkloadSink } from "./source.ts";

export class Supervisor implements WorkloadSink {
  readonly #agent: Agent;
  readonly #workloads = new Set<string>();
  readonly #secrets = new Set<string>();

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  /** @throws KloakError if there is no such namespace or interface */
  async workload(wanted: WantedWorkload): Promise<boolean> {
    const { id, netns, about, process } = wanted;
    this.#workloads.add(id);
    const cookie = cookieOf(wanted);
    const before = this.#find(id);
    if (before !== undefined && before.cookie !== cookie) this.#agent.removeWorkload(before);
    const known = before?.cookie === cookie ? before : undefined;
    const ifindex = ifindexOf(wanted);
    const workload = known ?? this.#agent.addWorkload({ netns, describe: describeAs(about), lasting: { id, about } });
    if (workload.ifindex !== ifindex) this.#agent.attachInterface(workload, ifindex, { lease: false });
    if (process !== undefined) await this.#agent.guard(process);
    this.#agent.hookWorkloads([workload]);
    return known === undefined;
  }

  workloadGone(id: string): void {
    this.#workloads.delete(id);
    const known = this.#find(id);
    if (known !== undefined) this.#agent.removeWorkload(known);
  }

  /** @throws PolicyError, PlaceholderError, KloakError if it is not as it must be */
  secret({ id, settings, workloads, ...rest }: WantedSecret): void {
    this.#secrets.add(id);
    const numbers = workloads.flatMap((each) => this.#find(each)?.number ?? []);
    this.#agent.bind({ ...rest, policy: parsePolicy(settings), workloads: numbers, lasting: { id, settings } });
  }

  secretGone(id: string): void {
    this.#secrets.delete(id);
    const number = this.#agent.secretIds.get(id);
    if (number !== undefined) this.#agent.unbind(number);
  }

  secretIds(): Iterable<string> {
    return [...this.#agent.secretIds.keys()];
  }

  keepSecret(id: string): void {
    this.#secrets.add(id);
  }

  settled(): void {
    for (const id of this.#agent.secretIds.keys()) if (!this.#secrets.has(id)) this.secretGone(id);
    for (const { lasting } of this.#agent.workloads)
      if (lasting !== undefined && !this.#workloads.has(lasting.id)) this.workloadGone(lasting.id);
    this.#agent.settled();
  }

  #find(id: string): ProtectedWorkload | undefined {
    return this.#agent.workloads.find(({ lasting }) => lasting?.id === id);
  }
}

function cookieOf({ id, netns }: WantedWorkload): bigint {
  try {
    return netnsCookie(netns);
  } catch (cause) {
    throw new KloakError("workload-gone", `Workload ${id}: ${netns} is no network namespace. Has it ended?`, { cause });
  }
}

function ifindexOf({ id, interface: name }: WantedWorkload): number {
  try {
    if (!/^[^/\s]{1,15}$/.test(name)) throw new RangeError("no name of an interface");
    return Number(readFileSync(`/sys/class/net/${name}/ifindex`, "utf8"));
  } catch (cause) {
    const next = "name the host's end of its veth, in the network namespace of the agent";
    throw new KloakError("no-interface", `Workload ${id}: there is no interface ${name}; ${next}`, { cause });
  }
}

/*
 * `kloak run`: a command in a network namespace of its own, with a wire to the host that the data plane watches.
 */
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import type { Addresses } from "./addresses.ts";
import { hostResolvers, relayDns } from "./dns.ts";
import { openFirewalls } from "./firewall.ts";
import { apply, forwardingFor } from "./kernel-settings.ts";
import { Launcher, type LaunchPlan } from "./launcher.ts";
import { type Inside, openHostPort, PortFollower, type PortPair, publish } from "./loopback.ts";
import { createLink, createTable, type Guarded, type HostNetwork, hostNetwork, raiseLink } from "./network.ts";
import { claim, hostInterface, keepFile, locked, processMark, type RunRecord, save } from "./state.ts";
import { killNamespace, removeRun, tidyDeadRuns } from "./tidy.ts";
import { Undo } from "./undo.ts";

export interface RunPlan {
  readonly launch: Omit<LaunchPlan, "tidy" | "covers">;
  /** Files that hold a secret: the command sees `content` in their place. */
  readonly covers: readonly { readonly over: string; readonly content: string }[];
  readonly publish: readonly (PortPair | "auto")[];
  readonly hostPorts: readonly number[];
}

/** The command's surroundings, ready and empty: what is to be protected before it starts. */
export interface Surroundings {
  readonly launcher: number;
  /** The network namespace: a file for setns(2) and its inode. */
  readonly netns: { readonly path: string; readonly inode: number };
  /** The root directory as the command sees it. */
  readonly root: string;
  /** The host's end of the wire. */
  readonly interface: { readonly name: string; readonly ifindex: number };
  readonly command: string;
}

/** Puts protection in place; returns what takes it away, after the wire is gone. */
export type Protect = (surroundings: Surroundings) => Promise<() => Promise<void>>;

export interface Reporter {
  note(message: string): void;
  warn(message: string): void;
}

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT"] as const;
/** Once there is a command, kloak stops when, and only when, the command has. */
const stopping = ["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const;
const fatal: ReadonlySet<string> = new Set(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]);

/**
 * Runs the command to its end; resolves with its exit status as a shell gives it. Whatever happens on the way, nothing
 * is left behind when it settles.
 * @throws CommandError if the command cannot be executed, KloakError for what is kloak's own.
 */
export async function run(plan: RunPlan, protect: Protect, report: Reporter): Promise<number> {
  const undo = new Undo();
  const signals = new Signals();
  try {
    return await start(plan, protect, report, undo, signals);
  } catch (error) {
    if (error instanceof Interrupted) return 128 + error.number;
    throw error;
  } finally {
    const errors = await undo.run();
    for (const error of errors)
      report.warn(`while tidying up: ${error instanceof Error ? error.message : String(error)}`);
    signals.close();
  }
}

async function start(plan: RunPlan, protect: Protect, report: Reporter, undo: Undo, signals: Signals): Promise<number> {
  const [{ removed }, network] = await Promise.all([tidyDeadRuns(), hostNetwork()]);
  for (const record of removed) report.note(`tidied up after an earlier run (${record.command})`);
  let unprotect: (() => Promise<void>) | undefined;
  // The last thing to go: what is still on its way over the wire must not pass without the filters.
  undo.add(async () => unprotect?.());
  const { record, addresses } = claim(plan.launch.command[0] ?? "", network.routes);
  undo.add(async () => {
    const errors = await removeRun(record);
    if (errors.length > 0) throw new AggregateError(errors, errors.map(String).join("; "));
  });
  signals.check();

  const launcher = await Launcher.start();
  undo.add(() => launcher.close());
  const { netns } = launcher;
  Object.assign(record, { launcher: processMark(launcher.pid), netns: netns.inode });
  save(record);
  const { ifindex } = await createLink(record.id, launcher.pid, network.mtu);
  const name = hostInterface(record.id);
  const surroundings: Surroundings = {
    launcher: launcher.pid,
    netns,
    root: launcher.root,
    interface: { name, ifindex },
    command: record.command,
  };
  signals.check();
  unprotect = await protect(surroundings);
  signals.check();
  await connectToHost(record, addresses, network, launcher.pid);

  const inside: Inside = { netns: netns.path, pid: launcher.pid, address: addresses.ipv4.inside };
  await openPorts(plan, inside, report, undo);
  signals.check();

  const tidy = [process.execPath, "--disable-warning=ExperimentalWarning", tidyMain, record.id];
  const covers = plan.covers.map(({ over, content }) => ({ file: keepFile(record.id, content), over }));
  // Before it starts: the launcher keeps what comes until there is a command to hand it to.
  signals.handTo(launcher);
  await launcher.run({ ...plan.launch, tidy, covers });
  const status = await launcher.ended;
  // Should the launcher have been killed, the command is alone in there with its children.
  await killNamespace(netns.inode);
  return status;
}

const tidyMain = fileURLToPath(new URL("tidy-main.ts", import.meta.url));

async function connectToHost(
  record: RunRecord,
  addresses: Addresses,
  network: HostNetwork,
  launcher: number,
): Promise<void> {
  await locked(async () => {
    apply(record, forwardingFor(hostInterface(record.id), network.ipv6));
    await createTable(record.id, addresses, guardedBy(record));
    await openFirewalls(record);
  });
  await raiseLink(record.id, launcher, addresses, network.ipv6);
}

/** What forwards only because of kloak: by the settings that were changed. */
function guardedBy(record: RunRecord): Guarded {
  const interfaces = record.settings.flatMap(({ path }) => {
    const name = /\/ipv4\/conf\/(.+)\/forwarding$/.exec(path)?.[1];
    return name === undefined || name.startsWith("kloak") ? [] : [name];
  });
  return { interfaces, ipv6: record.settings.some(({ path }) => /\/ipv6\/.*forwarding$/.test(path)) };
}

async function openPorts(plan: RunPlan, inside: Inside, report: Reporter, undo: Undo): Promise<void> {
  const resolvers = hostResolvers();
  for (const address of resolvers) {
    const listener = await relayDns(inside.netns, address);
    undo.add(() => listener.close());
  }
  for (const port of plan.hostPorts) {
    const listener = await openHostPort(port, inside);
    undo.add(() => listener.close());
  }
  for (const pair of plan.publish) {
    if (pair === "auto") continue;
    const listener = await publish(pair, inside);
    undo.add(() => listener.close());
  }
  if (!plan.publish.includes("auto")) return;
  const published = plan.publish.flatMap((pair) => (pair === "auto" ? [] : [pair.inside]));
  const own = new Set([...plan.hostPorts, ...published, ...(resolvers.length > 0 ? [53] : [])]);
  const follower = new PortFollower(inside, own, (message) => report.note(message));
  undo.add(() => follower.close());
  follower.start();
}

class Interrupted extends Error {
  readonly number: number;

  constructor(number: number) {
    super(`interrupted by signal ${number}`);
    this.number = number;
  }
}

/** Signals to kloak: before the command has started they end kloak, later they are the command's. */
class Signals {
  #launcher: Launcher | undefined;
  #pending: NodeJS.Signals | undefined;
  readonly #heard = (signal: NodeJS.Signals): void => {
    if (this.#launcher !== undefined) this.#launcher.signal(constants.signals[signal]);
    else if (fatal.has(signal)) this.#pending ??= signal;
  };
  readonly #stop = (): void => {
    if (this.#launcher === undefined) process.kill(process.pid, "SIGSTOP");
  };

  constructor() {
    for (const signal of forwarded) process.on(signal, this.#heard);
    for (const signal of stopping) process.on(signal, this.#stop);
  }

  /** @throws Interrupted if kloak was told to end. */
  check(): void {
    if (this.#pending !== undefined) throw new Interrupted(constants.signals[this.#pending]);
  }

  /** Call it right after `check`: what came before is kloak's own. */
  handTo(launcher: Launcher): void {
    this.#launcher = launcher;
  }

  close(): void {
    for (const signal of forwarded) process.off(signal, this.#heard);
    for (const signal of stopping) process.off(signal, this.#stop);
  }
}

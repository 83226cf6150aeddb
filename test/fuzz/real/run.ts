/**
 * Real TCP through a bad stretch of the way: clients of a `kloak run`, the lab's server on another machine, and between
 * them box.c, which loses, repeats, delays, cuts and closes.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseKeyLog } from "../../../src/demo/decrypt.ts";
import { runSync } from "../../../src/lab/command.ts";
import { createNamespace, type Namespace } from "../../../src/lab/namespace.ts";
import { host, makeSecret, otherHost, root, World } from "../../support/world.ts";
import type { Problem, Tally, Views } from "./check.ts";
import { check, emptyTally, secretsIn } from "./check.ts";
import type { ConnectionPlan, SecretName, Setting } from "./plan.ts";
import { connectionPlan, connectionsMax, firstPort, settings } from "./plan.ts";

export type { Problem } from "./check.ts";

/** What may happen on the way; see box.c. */
export const kinds = ["drop", "duplicate", "reorder", "delay", "cut", "window", "probe", "sack", "reset"] as const;

const perRun = 30;
const parallel = 15;
const readyMs = 30_000;

export interface RealOptions {
  readonly seed: number;
  /** Of connections. */
  readonly count: number;
  /** This one alone. */
  readonly only?: number;
  /** Of the impairments. */
  readonly kinds: readonly string[];
  /** A BPF object in the place of the wire's: with a mistake that is to be found. */
  readonly wire?: string;
  readonly progress?: (tally: Tally) => void;
}

export interface RealResult {
  readonly tally: Tally;
  readonly problems: readonly Problem[];
  /** With captures and journals; kept if there are problems. */
  readonly directory: string;
}

const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

function buildBox(): string {
  const output = join(root, "build/test/box");
  mkdirSync(join(root, "build/test"), { recursive: true });
  execFileSync("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", output, here("box.c")], { stdio: "inherit" });
  return output;
}

/** The setting of a connection is that of its run. */
function settingOf(index: number): Setting {
  const [first] = settings;
  const setting = settings[Math.floor(index / perRun) % settings.length] ?? first;
  if (!setting) throw new Error("there are no settings");
  return setting;
}

export async function runReal(options: RealOptions): Promise<RealResult> {
  const { seed, count, only } = options;
  if (count > connectionsMax) throw new Error(`not more than ${connectionsMax} connections`);
  const box = buildBox();
  const directory = mkdtempSync(join(tmpdir(), "kloak-real-"));
  const tally = emptyTally();
  const problems: Problem[] = [];
  const world = await World.create();
  const way = createNamespace();
  try {
    stretch(world.namespace, way);
    const values = { ALLOWED: makeSecret(51), LONG: makeSecret(1500), DENIED: makeSecret(40) };
    const first = only ?? 0;
    const last = only === undefined ? count : only + 1;
    for (let index = first; index < last && problems.length === 0; index += perRun) {
      const setting = settingOf(index);
      const plans = Array.from({ length: Math.min(perRun, last - index) }, (_, i) =>
        connectionPlan(seed, index + i, setting),
      );
      const folder = join(directory, String(index));
      mkdirSync(folder);
      const views = await oneRun({ world, way, box, folder, setting, plans, values, options });
      problems.push(...check(views, tally));
      const leaks = secretsIn(views.front, values);
      if (leaks.length > 0) problems.push({ index: undefined, text: `in the workload: ${leaks.join(", ")}` });
      if (problems.length === 0) rmSync(folder, { recursive: true, force: true });
      options.progress?.(tally);
    }
    if (problems.length === 0) rmSync(directory, { recursive: true, force: true });
  } finally {
    way.close();
    await world.close();
  }
  return { tally, problems, directory };
}

/**
 * The fewest impairments with which one connection still fails when it is alone; undefined if it does not. TCP's own
 * timing is not repeatable: what has failed once need not fail again.
 */
export async function reduce(options: RealOptions & { readonly only: number }): Promise<readonly string[] | undefined> {
  const fails = async (some: readonly string[]): Promise<boolean> => {
    const { problems, directory } = await runReal({ ...options, kinds: some });
    rmSync(directory, { recursive: true, force: true });
    return problems.length > 0;
  };
  if (!(await fails(options.kinds))) return undefined;
  let least = options.kinds;
  for (const kind of options.kinds) {
    const less = least.filter((other) => other !== kind);
    if (await fails(less)) least = less;
  }
  return least;
}

/** Puts `way` between the host and the machine at the other end of its wire. */
function stretch(server: Namespace, way: Namespace): void {
  const ip = (namespace: Namespace, line: string): void =>
    void runSync("ip", ["-n", namespace.name, ...line.split(" ")]);
  const settle = (argv: readonly string[]): void => {
    const [program = "", ...args] = argv;
    runSync(program, args);
  };
  const quiet = "tx off tso off gso off sg off gro off".split(" ");
  ip(server, "link set eth0 down");
  ip(server, `link set eth0 netns ${way.name} name west`);
  ip(way, `link add east type veth peer name eth0 netns ${server.name}`);
  for (const name of ["west", "east"]) {
    settle(way.within(["sysctl", "-qw", `net.ipv6.conf.${name}.disable_ipv6=1`]));
    ip(way, `link set ${name} up`);
  }
  ip(server, `addr add ${server.ipv4.inside}/30 dev eth0`);
  ip(server, `addr add ${server.ipv6.inside}/64 dev eth0 nodad`);
  ip(server, "link set eth0 up");
  ip(server, `route add default via ${server.ipv4.host} rto_min 20ms`);
  ip(server, `-6 route add default via ${server.ipv6.host} rto_min 20ms`);
  /* Who is where is said once and for all: what neighbours find out about each other is not what is tested. */
  const hardware = (argv: readonly string[], device: string): string =>
    (JSON.parse(runSync("ip", [...argv, "-j", "link", "show", device])) as { address: string }[])[0]?.address ?? "";
  const inside = ["-n", server.name];
  const ends = [
    {
      where: [],
      device: server.hostInterface,
      addresses: [server.ipv4.inside, server.ipv6.inside],
      at: hardware(inside, "eth0"),
    },
    {
      where: inside,
      device: "eth0",
      addresses: [server.ipv4.host, server.ipv6.host],
      at: hardware([], server.hostInterface),
    },
  ];
  for (const { where, device, addresses, at } of ends)
    for (const address of addresses)
      runSync("ip", [...where, "neigh", "replace", address, "lladdr", at, "dev", device, "nud", "permanent"]);
  settle(["ethtool", "-K", server.hostInterface, ...quiet]);
  settle(server.within(["ethtool", "-K", "eth0", ...quiet]));
}

interface OneRun {
  readonly world: World;
  readonly way: Namespace;
  readonly box: string;
  readonly folder: string;
  readonly setting: Setting;
  readonly plans: readonly ConnectionPlan[];
  readonly values: Readonly<Record<SecretName, string>>;
  readonly options: RealOptions;
}

async function oneRun({ world, way, box, folder, setting, plans, values, options }: OneRun): Promise<Views> {
  const file = (name: string): string => join(folder, name);
  const { ipv4, ipv6 } = world.namespace;
  const connections = plans.map((plan) => ({
    ...plan,
    port: firstPort + plan.index,
    address: plan.ipv6 ? ipv6.inside : ipv4.inside,
    to: world.server.port(plan.listener),
  }));
  writeFileSync(file("plan.json"), JSON.stringify({ parallel, secrets: Object.keys(values), connections }));
  const range = [String(firstPort), String(firstPort + connectionsMax)];
  const impairments = options.kinds.length === 0 ? "" : options.kinds.join(",");
  const between = await startBox(
    way.within([box, "west", "east", String(options.seed), ...range, impairments, file("wire.pcap"), file("journal")]),
  );
  const allowed = [host, `six.${host}`];
  const outcome = await world.kloak({
    secrets: {
      ALLOWED: { value: values.ALLOWED, hosts: allowed },
      LONG: { value: values.LONG, hosts: allowed },
      DENIED: { value: values.DENIED, hosts: otherHost },
    },
    command: [
      ...["sh", here("workload.sh"), String(setting.mtu), setting.features, String(setting.gso)],
      ...[join(root, "test/attack/programs/tap.py"), file("front.pcap")],
      ...[here("client.py"), world.authority.caFile, file("plan.json"), file("keys")],
    ],
    options: ["--user", "root", "--quiet"],
    ...(options.wire === undefined ? {} : { instead: { "build/bpf/wire.bpf.o": options.wire } }),
    deadlineMs: 300_000,
  });
  between.stdin?.end();
  await once(between, "close");
  const { requests, faults } = await world.server.take();
  if (outcome.status !== 0) throw new Error(`status ${outcome.status}: ${outcome.stderr}; see ${folder}`);
  const said = JSON.parse(outcome.stdout) as Pick<Views, "results" | "placeholders">;
  const journal = readFileSync(file("journal"), "utf8");
  return {
    ...said,
    plans,
    values,
    served: requests,
    complaints: [...faults, ...outcome.stderr.split("\n").filter((line) => line !== "")],
    audit: outcome.audit,
    front: readFileSync(file("front.pcap")),
    wire: readFileSync(file("wire.pcap")),
    frontLost: !readFileSync(file("front.pcap.log"), "utf8").endsWith("\n0\n"),
    keyLog: parseKeyLog(readFileSync(file("keys"), "utf8")),
    reset: new Set([...journal.matchAll(/^(\d+) >\d+ reset /gm)].map(([, port]) => Number(port))),
  };
}

async function startBox(argv: readonly string[]): Promise<ChildProcess> {
  const [program = "", ...args] = argv;
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const failed = once(child, "exit").then(() => Promise.reject(new Error("the box has ended")));
  await Promise.race([once(child.stdout, "data", { signal: AbortSignal.timeout(readyMs) }), failed]);
  failed.catch(() => undefined);
  return child;
}

/* `kloak agent`: the engine for many workloads, for as long as the host is up, in one process after the other. */
import { once } from "node:events";
import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import { type AuditRecord, lostRecord, unprotectedRecord, type Workload } from "../audit/index.ts";
import { Control } from "../agent/control.ts";
import { metricsText, metricsType } from "../agent/metrics.ts";
import { serveHealth } from "../health.ts";
import { type Lock, takeOver } from "../agent/lock.ts";
import { Supervisor } from "../agent/supervisor.ts";
import { type Dataplane, openDataplane } from "../dataplane/index.ts";
import { Pins } from "../dataplane/pins.ts";
import { KloakError } from "../errors.ts";
import { readFacts, requireHost } from "../run/host.ts";
import { hideMemory } from "../run/native.ts";
import { version } from "../version.ts";
import { type Manner, Report } from "./report.ts";
import { Trail } from "./trail.ts";

export interface AgentCommandOptions extends Manner {
  readonly state: string;
  readonly run: string;
  readonly audit?: string;
  readonly discard?: boolean;
  readonly controller?: string;
  readonly ca: string;
  readonly token: string;
  readonly node?: string;
  readonly runtime?: readonly string[];
  readonly healthPort?: number;
}

const foundRunning =
  "Its containers ran before the agent of this node was ready. Connections that they had opened by then send placeholders " +
  "as they are; new ones are served. Restart the pod if it does not connect again by itself.";

/** Returns the exit status: 0 when told to end, or relieved by another agent. */
export async function agentCommand(options: AgentCommandOptions): Promise<number> {
  const report = new Report(options);
  try {
    requireHost(readFacts(), "agent");
    hideMemory();
    const { dataplane, lock } = await acquire(options, report);
    try {
      await serve(options, report, dataplane);
    } finally {
      lock.release();
    }
    return 0;
  } catch (error) {
    report.error(error);
    return 1;
  }
}

/** The programs are loaded before the predecessor is asked to leave: there is no agent only for a moment. */
async function acquire(
  { state, run, discard = false }: AgentCommandOptions,
  report: Report,
): Promise<{ dataplane: Dataplane; lock: Lock }> {
  const say = (message: string) => report.note(message);
  const pins = new Pins(state, (message) => report.warn(message));
  let lock: Lock | undefined;
  if (discard) {
    lock = await takeOver(run, say);
    pins.discard();
  }
  for (;;) {
    const dataplane = await openDataplane({ pins });
    try {
      lock ??= await takeOver(run, say);
      if (dataplane.take()) report.note(`goes on with the data plane in ${state}`);
      return { dataplane, lock };
    } catch (error) {
      dataplane.close();
      if (error instanceof KloakError && error.code === "state-changed") continue;
      lock?.release();
      throw error;
    }
  }
}

async function serve(options: AgentCommandOptions, report: Report, dataplane: Dataplane): Promise<void> {
  const { state, run } = options;
  const trail = new Trail(options.audit, report);
  const cluster = await joinCluster(options, report, (pod) =>
    record(unprotectedRecord(new Date(), pod, null, foundRunning)),
  );
  const record = (each: AuditRecord): void => {
    trail.add(each);
    cluster?.outbox.add(each);
  };
  const agent = await Agent.open({
    dataplane,
    gate: { socket: join(run, "gate.sock"), links: join(state, "v1/links") },
    ...(cluster && { runtimes: { paths: options.runtime ?? [], starting: () => cluster.source.starting() } }),
    audit: record,
    detail: (message) => report.detail(message),
    warn: (message) => report.warn(message),
  });
  const end = new AbortController();
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => (closed ??= agent.close().then(() => trail.close()));
  const stop = (): void => end.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
  const control = new Control({
    path: join(run, "agent.sock"),
    status: () => statusOf(agent),
    handOver: async () => {
      report.note("another agent takes over");
      await close();
      setImmediate(stop); // the answer goes out first
    },
  });
  const health =
    options.healthPort === undefined
      ? undefined
      : await serveHealth({
          port: options.healthPort,
          isReady: () => cluster?.source.ready ?? true,
          notReady: "the controller has not said yet what to protect",
          metrics: () => Promise.resolve({ type: metricsType, text: metricsText(agent.counters, gaugesOf(agent)) }),
        });
  try {
    const supervisor = new Supervisor(agent);
    const running = Promise.all([
      control.run(supervisor, end.signal),
      cluster?.source.run(supervisor, end.signal),
      cluster?.outbox.run(end.signal),
    ]);
    report.note(`protects ${agent.workloads.length} workloads; listens at ${join(run, "agent.sock")}`);
    await Promise.race([running, once(end.signal, "abort")]);
    await running;
  } finally {
    health?.close();
    await close();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, stop);
  }
}

function gaugesOf(agent: Agent): Readonly<Record<string, number>> {
  return {
    workloads: agent.workloads.length,
    secrets: agent.secretIds.size,
    hookedFiles: agent.hookedFiles,
    residentBytes: process.memoryUsage.rss(),
  };
}

/** What a node's agent needs beside the engine; loaded only where it is wanted. */
async function joinCluster(
  { controller, ca, token, node }: AgentCommandOptions,
  report: Report,
  late: (pod: Workload) => void,
) {
  if (controller === undefined) return undefined;
  if (node === undefined) throw new KloakError("node-missing", "--controller needs --node, the name of this node");
  const { ControllerLink } = await import("../agent/kubernetes/controller-link.ts");
  const { Outbox } = await import("../agent/kubernetes/outbox.ts");
  const { KubernetesSource } = await import("../agent/kubernetes/source.ts");
  const warn = (message: string): void => report.warn(message);
  const link = new ControllerLink({ server: new URL(controller), caFile: ca, tokenFile: token, warn });
  return {
    source: new KubernetesSource({ link, node, warn, late }),
    outbox: new Outbox(link, (count) => lostRecord(new Date(), count)),
  };
}

function statusOf(agent: Agent): Record<string, unknown> {
  return {
    pid: process.pid,
    version,
    workloads: agent.workloads.map(({ number, lasting, ifindex }) => ({ id: lasting?.id, number, ifindex })),
    secrets: [...agent.secretIds].map(([name, number]) => ({ name, number })),
    hookedFiles: agent.hookedFiles,
    counters: Object.fromEntries(Object.entries(agent.counters).map(([name, value]) => [name, Number(value)])),
  };
}

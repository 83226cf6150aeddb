import { askAgent } from "../agent/control.ts";
import { hostInterface, isAlive, list } from "../run/state.ts";
import { usualRun } from "./agent-help.ts";
import { type ClusterOptions, clusterStatus, namesCluster, statusText } from "./cluster.ts";
import { write } from "./report.ts";

export interface StatusOptions extends ClusterOptions {
  readonly json?: boolean;
}

/** `kloak status`: the agent and the runs on this host, or the agents, pods and Secrets of a cluster. */
export async function statusCommand(options: StatusOptions): Promise<number> {
  if (namesCluster(options)) {
    const status = await clusterStatus(options);
    write(1, options.json === true ? `${JSON.stringify({ cluster: status }, null, 2)}\n` : statusText(status));
    return 0;
  }
  const agent = await askAgent(`${usualRun}/agent.sock`, { do: "status" }).catch(() => null);
  const runs = list().map((record) => ({
    id: record.id,
    state: isAlive(record.kloak) ? ("running" as const) : ("left over" as const),
    pid: record.kloak.pid,
    command: record.command,
    interface: hostInterface(record.id),
    startedAt: record.startedAt,
  }));
  if (options.json === true) {
    write(1, `${JSON.stringify({ agent, runs }, null, 2)}\n`);
    return 0;
  }
  if (agent !== null)
    write(1, `The agent runs (pid ${String(agent["pid"])}). \`kloak status --json\` has more of it.\n`);
  if (runs.length === 0) {
    write(1, "Nothing runs under kloak here.\n");
  } else {
    const lines = runs.map(
      (run) => `${run.id}  ${run.state.padEnd(9)}  pid ${run.pid}  since ${run.startedAt}  ${run.command}`,
    );
    write(1, `${lines.join("\n")}\n`);
  }
  return 0;
}

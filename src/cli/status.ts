import { hostInterface, isAlive, list } from "../run/state.ts";
import { write } from "./report.ts";

/** `kloak status`: the runs on this host. */
export function statusCommand(options: { readonly json?: boolean }): number {
  const runs = list().map((record) => ({
    id: record.id,
    state: isAlive(record.kloak) ? ("running" as const) : ("left over" as const),
    pid: record.kloak.pid,
    command: record.command,
    interface: hostInterface(record.id),
    startedAt: record.startedAt,
  }));
  if (options.json === true) {
    write(1, `${JSON.stringify({ runs }, null, 2)}\n`);
  } else if (runs.length === 0) {
    write(1, "Nothing runs under kloak here.\n");
  } else {
    const lines = runs.map(
      (run) => `${run.id}  ${run.state.padEnd(9)}  pid ${run.pid}  since ${run.startedAt}  ${run.command}`,
    );
    write(1, `${lines.join("\n")}\n`);
  }
  return 0;
}

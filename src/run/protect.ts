/* Protection of a run by the agent's engine. */
import { Agent } from "../agent/agent.ts";
import type { Counters } from "../dataplane/index.ts";
import type { AuditRecord } from "../audit/index.ts";
import type { Protect } from "./run.ts";
import type { LoadedSecret } from "./secrets.ts";

export interface ProtectOptions {
  readonly secrets: readonly LoadedSecret[];
  readonly audit: (record: AuditRecord) => void;
  readonly refusalsOnly: boolean;
  readonly detail: (message: string) => void;
  readonly warn: (message: string) => void;
}

export function protectWith({ secrets, audit, refusalsOnly, detail, warn }: ProtectOptions): Protect {
  return async (surroundings) => {
    const agent = await Agent.open({ audit, refusalsOnly, detail, warn });
    try {
      const { netns, command } = surroundings;
      const workload = agent.addWorkload({
        netns: netns.path,
        describe: (process) => ({
          kind: "run",
          pid: process === undefined || process.pid === 0 ? null : process.pid,
          command: process?.command || command,
        }),
      });
      agent.attachInterface(workload, surroundings.interface.ifindex, { lease: true });
      for (const secret of secrets) agent.bind({ ...secret, workloads: [workload.number] });
      await agent.guard(surroundings.launcher);
      return async () => {
        detail(`data plane: ${countersText(agent.counters)}`);
        await agent.close();
      };
    } catch (error) {
      await agent.close();
      throw error;
    }
  };
}

/** `records sealed 21, records matched 21, …`; those that are 0 are left out. */
function countersText(counters: Counters): string {
  const some = Object.entries(counters).filter(([, count]) => count > 0n);
  const texts = some.map(
    ([name, count]) => `${name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${count}`,
  );
  return texts.length === 0 ? "nothing counted" : texts.join(", ");
}

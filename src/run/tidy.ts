/* Takes away what a run has left: at its end, or after the death of its kloak. */
import { readdirSync, statSync } from "node:fs";
import { closeFirewalls } from "./firewall.ts";
import { restore } from "./kernel-settings.ts";
import { removeNetwork } from "./network.ts";
import { forget, isAlive, list, locked, type RunRecord } from "./state.ts";
import { setTimeout as delay } from "node:timers/promises";

/** Removes everything that the record names, and the record. What fails is returned; the record then stays. */
export async function removeRun(record: RunRecord): Promise<readonly unknown[]> {
  const errors: unknown[] = [];
  const attempt = async (step: () => unknown) => {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  };
  await attempt(() => removeNetwork(record.id));
  await attempt(() => closeFirewalls(record));
  await locked(async () => {
    const others = list().filter((other) => other.id !== record.id && isAlive(other.kloak));
    await attempt(() => restore(record, others));
    if (errors.length === 0) forget(record.id);
  });
  return errors;
}

/** Runs whose kloak is no more. Where its launcher lives yet, that one is busy with the same. */
export function deadRuns(): RunRecord[] {
  return list().filter(
    (record) => !isAlive(record.kloak) && !(record.launcher !== undefined && isAlive(record.launcher)),
  );
}

/** Tidies up after all of them; returns those that are gone and what went wrong. */
export async function tidyDeadRuns(): Promise<{ removed: RunRecord[]; errors: unknown[] }> {
  const removed: RunRecord[] = [];
  const errors: unknown[] = [];
  for (const record of deadRuns()) {
    if (record.netns !== undefined) await killNamespace(record.netns);
    const failed = await removeRun(record);
    if (failed.length === 0) removed.push(record);
    else errors.push(...failed);
  }
  return { removed, errors };
}

/** Processes in a network namespace, by its inode. */
export function processesIn(netns: number): number[] {
  return readdirSync("/proc").flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) return [];
    try {
      return statSync(`/proc/${pid}/ns/net`).ino === netns ? [pid] : [];
    } catch {
      return []; // it has just ended
    }
  });
}

const graceMs = 2000;

/** Ends all processes in a namespace: SIGTERM, and after a grace SIGKILL. */
export async function killNamespace(netns: number): Promise<void> {
  const deadline = performance.now() + graceMs;
  let asked = false;
  for (let pids = processesIn(netns); pids.length > 0; pids = processesIn(netns)) {
    const late = performance.now() > deadline;
    if (performance.now() > deadline + graceMs) return; // in uninterruptible sleep, with its network gone
    for (const pid of pids) {
      if (late) kill(pid, "SIGKILL");
      else if (!asked) {
        kill(pid, "SIGTERM");
        kill(pid, "SIGCONT");
      }
    }
    asked = true;
    await delay(20);
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has ended by itself
  }
}

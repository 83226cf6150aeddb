/* One agent at a time: a lock on the folder of its socket, and what to do about who holds it. */
import { closeSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { KloakError } from "../errors.ts";
import { lockDirectory } from "../run/native.ts";
import { isAlive, type ProcessMark, processMark } from "../run/state.ts";
import { askAgent } from "./control.ts";

/** An agent that leaves writes what it has heard to its audit trail first; it needs no more than this. */
const leaveMs = 3000;
const endMs = 5000;

export interface Lock {
  release(): void;
}

/**
 * Takes the lock at once, or asks its holder to leave, and ends it if it does not: one that hangs keeps nobody from
 * being protected.
 * @param folder is made if need be, root's alone
 */
export async function takeOver(folder: string, say: (message: string) => void): Promise<Lock> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const free = lock(folder);
  if (free !== undefined) return free;
  const holder = holderOf(folder);
  say(`taking over from agent ${holder?.pid ?? "(unknown)"}`);
  await askAgent(join(folder, "agent.sock"), { do: "hand-over" }, leaveMs).catch((error: unknown) => {
    say(`it does not answer: ${error instanceof Error ? error.message : String(error)}`);
  });
  const left = await waitFor(folder, leaveMs);
  if (left !== undefined) return left;
  if (holder !== undefined && isAlive(holder)) {
    say(`agent ${holder.pid} hangs and is ended`);
    process.kill(holder.pid, "SIGKILL");
    const ended = await waitFor(folder, endMs);
    if (ended !== undefined) return ended;
  }
  throw new KloakError("agent-locked", `${folder} is held by another process. See which: \`fuser ${folder}\``);
}

async function waitFor(folder: string, deadlineMs: number): Promise<Lock | undefined> {
  for (const deadline = performance.now() + deadlineMs; performance.now() < deadline; await delay(2)) {
    const taken = lock(folder);
    if (taken !== undefined) return taken;
  }
  return undefined;
}

function lock(folder: string): Lock | undefined {
  const fd = lockDirectory(folder);
  if (fd === undefined) return undefined;
  writeFileSync(join(folder, "holder.json"), JSON.stringify(processMark(process.pid) ?? null), { mode: 0o600 });
  return { release: () => closeSync(fd) };
}

function holderOf(folder: string): ProcessMark | undefined {
  try {
    const mark = JSON.parse(readFileSync(join(folder, "holder.json"), "utf8")) as ProcessMark | null;
    return typeof mark?.pid === "number" && mark.pid > 1 && typeof mark.start === "string" ? mark : undefined;
  } catch {
    return undefined;
  }
}

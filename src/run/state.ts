/*
 * What each run has put into the system, in a file of its own under /run/kloak, so that whatever ends a run, the next
 * one can tidy up after it.
 */
import { randomInt, randomUUID } from "node:crypto";
import {
  chmodSync,
  closeSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import { KloakError } from "../errors.ts";
import { type Addresses, addressesFor, noFreeAddresses, type Route, slotCount } from "./addresses.ts";
import { errorCode, lockDirectory } from "./native.ts";

export const stateDirectory = "/run/kloak";

const processSchema = v.object({
  pid: v.number(),
  /** Start time in clock ticks after boot (proc(5), field 22): a number given out again starts at another time. */
  start: v.string(),
});

const recordSchema = v.object({
  id: v.string(),
  slot: v.number(),
  kloak: processSchema,
  launcher: v.optional(processSchema),
  /** Inode of kloak's own network namespace: names and settings are those of that one. */
  host: v.number(),
  /** Inode of the command's network namespace. */
  netns: v.optional(v.number()),
  command: v.string(),
  startedAt: v.string(),
  /** Kernel settings that were changed for this run, and what they were. */
  settings: v.array(v.object({ path: v.string(), before: v.string(), now: v.string() })),
  /** Chains of other people's firewalls that hold rules of ours: family, table, name. */
  openings: v.array(v.array(v.string())),
});

export type RunRecord = v.InferOutput<typeof recordSchema>;
export type ProcessMark = v.InferOutput<typeof processSchema>;

/** Name of the host's end of the wire. */
export const hostInterface = (id: string): string => `kloak${id}h`;
/** Name of the nftables table. */
export const tableName = (id: string): string => `kloak-${id}`;

export function processMark(pid: number): ProcessMark | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    return { pid, start: fields[19] ?? "" };
  } catch {
    return undefined;
  }
}

export function isAlive(mark: ProcessMark): boolean {
  return processMark(mark.pid)?.start === mark.start;
}

/** Takes a free slot and with it a name and addresses. */
export function claim(command: string, routes: readonly Route[]): { record: RunRecord; addresses: Addresses } {
  const kloak = processMark(process.pid) ?? { pid: process.pid, start: "" };
  const first = randomInt(slotCount);
  for (let attempt = 0; attempt < slotCount; attempt += 1) {
    const slot = (first + attempt * 61) % slotCount;
    const addresses = addressesFor(slot, routes);
    if (addresses === undefined) continue;
    const id = slot.toString(16).padStart(4, "0");
    const startedAt = new Date().toISOString();
    const record: RunRecord = { id, slot, kloak, host: ownNetns(), command, startedAt, settings: [], openings: [] };
    if (create(record)) return { record, addresses };
  }
  throw noFreeAddresses();
}

function ownNetns(): number {
  return statSync("/proc/self/ns/net").ino;
}

const fileOf = (id: string): string => `${stateDirectory}/${id}.json`;

/** False if another has taken that slot, or, this very moment, the directory away. */
function create(record: RunRecord): boolean {
  try {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    writeFileSync(fileOf(record.id), JSON.stringify(record), { flag: "wx", mode: 0o600 });
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST" || errorCode(error) === "ENOENT") return false;
    throw new KloakError("state-unwritable", `${fileOf(record.id)} cannot be written. Run kloak as root.`, {
      cause: error,
    });
  }
}

/** Replaces the record as a whole, so that a reader never sees half of it. */
export function save(record: RunRecord): void {
  const file = fileOf(record.id);
  writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Keeps a file, readable for all who get to see it, as long as the run; returns its path. */
export function keepFile(id: string, content: string): string {
  const directory = `${stateDirectory}/${id}.d`;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const file = `${directory}/${randomUUID()}`;
  writeFileSync(file, content, { flag: "wx" });
  chmodSync(file, 0o444); // whatever the umask
  return file;
}

export function forget(id: string): void {
  rmSync(`${stateDirectory}/${id}.d`, { recursive: true, force: true });
  rmSync(fileOf(id), { force: true });
  rmSync(`${fileOf(id)}.new`, { force: true });
  try {
    rmdirSync(stateDirectory);
  } catch {
    // other runs have their files in it
  }
}

/** All records in our network namespace, of live and of dead runs. */
export function list(): RunRecord[] {
  const host = ownNetns();
  return listEverywhere().filter((record) => record.host === host);
}

/** Those of all network namespaces. A file that is no record is passed over. */
export function listEverywhere(): RunRecord[] {
  return readdirNames().flatMap((name) => {
    if (!name.endsWith(".json")) return [];
    try {
      return [v.parse(recordSchema, JSON.parse(readFileSync(`${stateDirectory}/${name}`, "utf8")))];
    } catch {
      return [];
    }
  });
}

function readdirNames(): string[] {
  try {
    return readdirSync(stateDirectory);
  } catch {
    return [];
  }
}

const lockDeadlineMs = 20_000;

/** Runs `work` while no other kloak is at the settings that runs share. */
export async function locked<T>(work: () => T | Promise<T>): Promise<T> {
  const deadline = performance.now() + lockDeadlineMs;
  for (;;) {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    const fd = lockDirectory(stateDirectory);
    if (fd !== undefined) {
      try {
        if (isCurrent(fd)) return await work();
      } finally {
        closeSync(fd);
      }
    }
    if (performance.now() > deadline) throw stuck();
    await delay(5);
  }
}

/** The last run to end takes the directory away: a lock on what was there before keeps nobody out. */
function isCurrent(fd: number): boolean {
  return fstatSync(fd).ino === statSync(stateDirectory, { throwIfNoEntry: false })?.ino;
}

function stuck(): KloakError {
  const what = `${stateDirectory} has been locked by another kloak for ${lockDeadlineMs / 1000} s`;
  return new KloakError("state-locked", `${what}. See which: \`fuser ${stateDirectory}\`.`);
}

/* Where the time goes: what the kernel counts of each program over one run of the client, and the agent's own share. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { runSync } from "../../src/lab/command.ts";
import type { Site } from "./site.ts";

export interface ProgramCost {
  readonly name: string;
  /** Runs, for each request or record. */
  readonly runs: number;
  /** Nanoseconds of one run. */
  readonly runNs: number;
  /** Nanoseconds, for each request or record. */
  readonly totalNs: number;
}

export interface Profile {
  readonly name: string;
  readonly unit: string;
  readonly programs: readonly ProgramCost[];
  /** CPU time of `kloak run` itself, for each request or record. */
  readonly agentNs: number;
}

interface Case {
  readonly name: string;
  readonly unit: "request" | "record";
  readonly options: readonly string[];
  readonly count: number;
  readonly proof?: string;
}

const statsSwitch = "/proc/sys/kernel/bpf_stats_enabled";
const recordBytes = 16_384;

/**
 * Other processes that use the hooked library are counted too: the machine should be quiet. The kernel's clock is read
 * twice for each run of a program, so what is measured here is slower than life.
 */
export async function profile(site: Site, requests: number, uploadBytes: number): Promise<Profile[]> {
  const plain = ["--warm", "0", "--requests", String(requests)];
  const upload = ["--upload", String(uploadBytes)];
  const withSecret = ["--header", "SECRET", ...plain];
  const cases: readonly Case[] = [
    ...["flow", "record", "none"].map(
      (proof): Case => ({
        name: `one secret, proof ${proof}`,
        unit: "request",
        options: withSecret,
        count: requests,
        proof,
      }),
    ),
    { name: "no placeholder", unit: "request", options: plain, count: requests },
    { name: "upload", unit: "record", options: upload, count: uploadBytes / recordBytes },
  ];
  return await counted(async () => {
    const profiles: Profile[] = [];
    for (const each of cases) profiles.push(await profileCase(site, each));
    return profiles;
  });
}

/** Lets the kernel count runs of programs, and their time, meanwhile. */
export async function counted<Result>(work: () => Promise<Result>): Promise<Result> {
  const before = readFileSync(statsSwitch, "utf8");
  writeFileSync(statsSwitch, "1");
  try {
    return await work();
  } finally {
    writeFileSync(statsSwitch, before);
  }
}

async function profileCase(site: Site, { name, unit, options, count, proof }: Case): Promise<Profile> {
  const running = await site.held(options, { proof: proof ?? "flow" });
  try {
    const programs = programsOf(running.pid)
      .filter(({ runs }) => runs > 0)
      .map(({ name, runs, ns }) => ({ name, runs: runs / count, runNs: ns / runs, totalNs: ns / count }))
      .sort((a, b) => b.totalNs - a.totalNs);
    return { name, unit, programs, agentNs: (running.agentSeconds * 1e9) / count };
  } finally {
    await running.end();
  }
}

const listSchema = v.array(v.object({ id: v.number(), type: v.string(), name: v.optional(v.string()) }));

export interface CountedProgram {
  readonly name: string;
  /** Such as `kprobe`, which uprobes are too. */
  readonly type: string;
  readonly runs: number;
  readonly ns: number;
}

/** All programs that a process holds, with the kernel's counts. */
export function programsOf(pid: number): CountedProgram[] {
  const listed = v.parse(listSchema, JSON.parse(runSync("bpftool", ["-j", "prog", "show"])));
  const known = new Map(listed.map((program) => [program.id, program]));
  const found = new Map<number, CountedProgram>();
  for (const fd of readdirSync(`/proc/${pid}/fdinfo`)) {
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
    const field = (key: string) => Number(new RegExp(`^${key}:\\s*(\\d+)$`, "m").exec(info)?.[1] ?? Number.NaN);
    const id = field("prog_id");
    const runs = field("run_cnt");
    if (Number.isNaN(id) || Number.isNaN(runs)) continue;
    const { name = `program ${id}`, type = "" } = known.get(id) ?? {};
    found.set(id, { name, type, runs, ns: field("run_time_ns") });
  }
  return [...found.values()];
}

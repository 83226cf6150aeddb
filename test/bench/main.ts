/*
 * `npm run bench`: Kloak, bare and behind a man-in-the-middle proxy, side by side in one run. Prints a table, writes
 * build/bench.json. `--quick` runs few rounds, to see that it works; `--profile` says instead where the time goes, and
 * `--stacks` what a request costs with each TLS stack; with `--only latency`, `upload` or `memory` that part alone runs, and
 * is printed as it is.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { measureLatency, measureMemory, measureUpload, type Plan, type Results } from "./measure.ts";
import { buildPrograms, output, root } from "./programs.ts";
import { profile } from "./profile.ts";
import { budgets, render, renderProfiles, renderStacks } from "./report.ts";
import { Site } from "./site.ts";
import { measureStacks } from "./stacks.ts";

const quick = process.argv.includes("--quick");
const plan: Plan = {
  rounds: quick ? 2 : 15,
  requests: quick ? 500 : 4000,
  uploads: quick ? 1 : 9,
  uploadBytes: quick ? 50_000_000 : 1_000_000_000,
  secrets: 2000,
};

function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`);
}

if (process.getuid?.() !== 0) {
  say("it makes network namespaces and loads BPF programs: run it as root");
  process.exit(1);
}
mkdirSync(output, { recursive: true });
const site = new Site(buildPrograms());
try {
  const profiling = process.argv.includes("--profile");
  const part = process.argv.includes("--only") ? process.argv.at(process.argv.indexOf("--only") + 1) : undefined;
  const byStack = process.argv.includes("--stacks");
  await site.start(!profiling && !byStack && (part ?? "latency") === "latency");
  if (part !== undefined) process.stdout.write(`${JSON.stringify(await only(part), null, 2)}\n`);
  else if (profiling) process.stdout.write(renderProfiles(await profile(site, quick ? 2000 : 20_000, 400_000_000)));
  else if (byStack) process.stdout.write(renderStacks(await measureStacks(site, quick ? 200 : 2000, say)));
  else await compare();
} finally {
  await site.close();
}

async function only(part: string): Promise<unknown> {
  const measures = { latency: measureLatency, upload: measureUpload, memory: measureMemory };
  if (part !== "latency" && part !== "upload" && part !== "memory")
    throw new RangeError(`--only ${part}: no such part`);
  return await measures[part](site, plan, say);
}

async function compare(): Promise<void> {
  const results: Results = {
    latency: await measureLatency(site, plan, say),
    upload: await measureUpload(site, plan, say),
    memory: await measureMemory(site, plan, say),
  };
  const machine = { kernel: release(), cpu: cpus()[0]?.model ?? "", cpus: cpus().length, node: process.version };
  const report = { time: new Date().toISOString(), machine, plan, ...results, budgets: budgets(results) };
  writeFileSync(join(root, "build/bench.json"), `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`\n${render(results)}`);
  say("written to build/bench.json");
}

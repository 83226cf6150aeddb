/* What a request costs with each TLS stack that the tests have a client for. */
import type { StackName } from "../../src/hooks/index.ts";
import { plansOf } from "../support/served-stacks.ts";
import { goProgram } from "../support/go.ts";
import { jdkStack } from "../support/java.ts";
import { clientCommand, runtimeStack, type Stack, stacks, wheelStack } from "../support/stacks.ts";
import { counted, programsOf } from "./profile.ts";
import type { Site } from "./site.ts";

/** Per request and its answer. */
export interface StackCost {
  readonly client: string;
  readonly tls: StackName | "none";
  /** Runs of programs at probes. */
  readonly hits: number;
  /** Microseconds in those programs. */
  readonly programUs: number;
  /** Microseconds in the programs of the interface. */
  readonly wireUs: number;
  /** CPU time of the client's process in microseconds, without Kloak and under it. */
  readonly bareUs: number;
  readonly kloakUs: number;
  /** The instructions that carry the probes, such as `3 push, 1 jmp`; those that the kernel has to single-step say so. */
  readonly instructions: string;
}

function clients(): readonly Stack[] {
  const go = goProgram({ program: "go", stripped: true });
  return [
    ...stacks.filter(({ keepsAlive }) => keepsAlive === true),
    { name: "go", command: [go], keepsAlive: true, executable: go },
    ...(["pyreqwest", "httpr", "curl_cffi", "rnet", "awscrt"] as const).map(wheelStack),
    ...(["bun", "deno"] as const).map(runtimeStack),
    jdkStack("http1"),
  ];
}

/** What a short and a long run differ by: start, handshake and end are not in it. */
export async function measureStacks(site: Site, requests: number, say: (line: string) => void): Promise<StackCost[]> {
  const costs: StackCost[] = [];
  for (const stack of clients()) {
    say(stack.name);
    costs.push(await counted(() => measureStack(site, stack, requests)));
  }
  return costs;
}

interface Run {
  readonly cpuUs: number;
  readonly hits: number;
  readonly programNs: number;
  readonly wireNs: number;
  readonly tls: StackName | "none";
}

/** By how the names of their programs begin. */
const stackOf: Readonly<Record<string, StackName>> = {
  openssl: "openssl",
  go: "go",
  gnutls: "gnutls",
  aead: "boringssl",
  ring: "ring",
  java: "java",
};

async function measureStack(site: Site, stack: Stack, requests: number): Promise<StackCost> {
  const short = Math.ceil(requests / 10);
  const count = requests - short;
  const bareUs = (await bare(site, stack, requests)) - (await bare(site, stack, short));
  const many = await cloaked(site, stack, requests);
  const few = await cloaked(site, stack, short);
  return {
    client: stack.name,
    tls: many.tls,
    hits: (many.hits - few.hits) / count,
    programUs: (many.programNs - few.programNs) / 1000 / count,
    wireUs: (many.wireNs - few.wireNs) / 1000 / count,
    bareUs: bareUs / count,
    kloakUs: (many.cpuUs - few.cpuUs) / count,
    instructions: instructionsOf(stack, many.tls),
  };
}

async function bare(site: Site, stack: Stack, requests: number): Promise<number> {
  return (await site.bareCommand<{ cpuUs: number }>(timed(site, stack, requests))).cpuUs;
}

async function cloaked(site: Site, stack: Stack, requests: number): Promise<Run> {
  const held = await site.heldCommand<{ cpuUs: number }>(timed(site, stack, requests));
  try {
    const programs = programsOf(held.pid);
    const probes = programs.filter(({ type, runs }) => type === "kprobe" && runs > 0);
    const wire = programs.filter(({ name }) => name.startsWith("wire_"));
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    const busiest = probes.toSorted((a, b) => b.runs - a.runs)[0];
    return {
      cpuUs: held.result.cpuUs,
      hits: sum(probes.map(({ runs }) => runs)),
      programNs: sum(probes.map(({ ns }) => ns)),
      wireNs: sum(wire.map(({ ns }) => ns)),
      tls: stackOf[busiest?.name.split("_")[0] ?? ""] ?? "none",
    };
  } finally {
    await held.end();
  }
}

/** The client on CPU 0, as the server is on the other; says what CPU time it took. */
function timed(site: Site, stack: Stack, requests: number): string[] {
  const { url, caFile } = site.target;
  const script = `
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"cpuUs": (used.ru_utime + used.ru_stime) * 1e6}))`;
  const client = clientCommand(stack, { ca: caFile, requests, names: ["SECRET"], urls: [url] });
  return ["python3", "-c", script, "taskset", "-c", "0", ...client];
}

function instructionsOf(stack: Stack, tls: string): string {
  const plan = plansOf(stack.executable ?? stack.command[0] ?? "").find((each) => each.stack === tls);
  const counts = new Map<string, number>();
  for (const { point } of plan?.hooks ?? []) {
    const name = `${point.instruction.split(" ")[0]}${point.cost === "single-step" ? " (single-stepped)" : ""}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, times]) => `${times} ${name}`).join(", ");
}

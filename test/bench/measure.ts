/* What is measured: rounds in which every case runs once, one after the other, so that each pair sees the same machine. */
import { setTimeout as delay } from "node:timers/promises";
import { type Background, mapBytes, residentBytes, type Site, type Timing, type Upload } from "./site.ts";
import { median, paired, quantile } from "./statistics.ts";

export interface Plan {
  readonly rounds: number;
  readonly requests: number;
  readonly uploads: number;
  readonly uploadBytes: number;
  readonly secrets: number;
}

export interface LatencyResult {
  readonly name: string;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly cpuUs: number;
  /** Against `against`, pair by pair, then the median. */
  readonly against: string | null;
  readonly addedUs: number;
  readonly ratio: number;
  readonly rounds: readonly { readonly p50Us: number; readonly p99Us: number; readonly cpuUs: number }[];
}

export interface Results {
  readonly latency: readonly LatencyResult[];
  readonly upload: { readonly bareBps: number; readonly kloakBps: number; readonly ratio: number };
  readonly memory: readonly { readonly secrets: number; readonly residentBytes: number; readonly mapBytes: number }[];
}

/** What the start needed is given back a while after it (src/agent/idle-memory.ts). */
const restMs = 15_000;

interface LatencyCase {
  readonly name: string;
  readonly against: string | null;
  readonly run: (site: Site, options: readonly string[], plan: Plan) => Promise<Timing>;
}

const withSecret = ["--header", "SECRET"];

/** In the order in which they run: what is compared stands close together. */
const cases: readonly LatencyCase[] = [
  { name: "bare, key in a header", against: null, run: (site, options) => site.bare([...withSecret, ...options]) },
  {
    name: "kloak, one secret",
    against: "bare, key in a header",
    run: (site, options) => site.kloak([...withSecret, ...options]),
  },
  {
    name: "kloak, many secrets",
    against: "kloak, one secret",
    run: (site, options, plan) => site.kloak([...withSecret, ...options], plan.secrets),
  },
  {
    name: "man-in-the-middle proxy",
    against: "bare, key in a header",
    run: (site, options) => site.proxied([...withSecret, ...options]),
  },
  { name: "bare, no key", against: null, run: (site, options) => site.bare(options) },
  { name: "kloak, no placeholder", against: "bare, no key", run: (site, options) => site.kloak(options) },
  {
    name: "bystander of a kloak run",
    against: "bare, no key",
    run: async (site, options) => {
      const background = await site.background(1);
      try {
        return await site.bare(options);
      } finally {
        await background.end();
      }
    },
  },
];

export async function measureLatency(site: Site, plan: Plan, say: (line: string) => void): Promise<LatencyResult[]> {
  const rounds = new Map<string, { p50Us: number; p99Us: number; cpuUs: number }[]>();
  const options = ["--warm", String(Math.ceil(plan.requests / 8)), "--requests", String(plan.requests)];
  for (let round = 1; round <= plan.rounds; round += 1) {
    say(`latency, round ${round} of ${plan.rounds}`);
    // Every second round goes backwards, so that no case always runs after the same one.
    for (const { name, run } of round % 2 === 1 ? cases : cases.toReversed()) {
      const { ns, cpuUs } = await run(site, options, plan);
      const all = rounds.get(name) ?? [];
      all.push({ p50Us: quantile(ns, 0.5) / 1000, p99Us: quantile(ns, 0.99) / 1000, cpuUs: cpuUs / ns.length });
      rounds.set(name, all);
    }
  }
  return cases.map(({ name, against }) => {
    const own = rounds.get(name) ?? [];
    const other = rounds.get(against ?? name) ?? [];
    const p50 = (values: typeof own) => values.map(({ p50Us }) => p50Us);
    return {
      name,
      p50Us: median(p50(own)),
      p99Us: median(own.map(({ p99Us }) => p99Us)),
      cpuUs: median(own.map(({ cpuUs }) => cpuUs)),
      against,
      addedUs: paired(p50(other), p50(own), (a, b) => b - a),
      ratio: paired(p50(other), p50(own), (a, b) => b / a),
      rounds: own,
    };
  });
}

export async function measureUpload(site: Site, plan: Plan, say: (line: string) => void): Promise<Results["upload"]> {
  const options = ["--upload", String(plan.uploadBytes)];
  const speed = ({ bytes, uploadNs }: Upload) => bytes / (uploadNs / 1e9);
  const bare: number[] = [];
  const kloak: number[] = [];
  for (let round = 1; round <= plan.uploads; round += 1) {
    say(`upload, round ${round} of ${plan.uploads}`);
    if (round % 2 === 1) bare.push(speed(await site.bare<Upload>(options)));
    kloak.push(speed(await site.kloak<Upload>(options)));
    if (round % 2 === 0) bare.push(speed(await site.bare<Upload>(options)));
  }
  return { bareBps: median(bare), kloakBps: median(kloak), ratio: paired(bare, kloak, (a, b) => b / a) };
}

export async function measureMemory(site: Site, plan: Plan, say: (line: string) => void): Promise<Results["memory"]> {
  const results: { secrets: number; residentBytes: number; mapBytes: number }[] = [];
  for (const secrets of [1, plan.secrets]) {
    say(`memory with ${secrets} secrets`);
    const background: Background = await site.background(secrets);
    try {
      await delay(restMs);
      results.push({ secrets, residentBytes: residentBytes(background.pid), mapBytes: mapBytes(background.pid) });
    } finally {
      await background.end();
    }
  }
  return results;
}

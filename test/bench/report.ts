/* The numbers as a person reads them: a table with the budgets beside it, and a chart. */
import type { LatencyResult, Results } from "./measure.ts";
import type { Profile } from "./profile.ts";
import type { StackCost } from "./stacks.ts";

interface Budget {
  readonly name: string;
  readonly limit: string;
  readonly value: string;
  readonly kept: boolean;
}

const us = (value: number) => `${value.toFixed(1)} us`;
const percent = (ratio: number) => `${ratio >= 1 ? "+" : "-"}${(Math.abs(ratio - 1) * 100).toFixed(1)} %`;
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

/** The budgets of the design against what this run measured. */
export function budgets({ latency, upload, memory }: Results): Budget[] {
  const find = (name: string): LatencyResult => {
    const found = latency.find((result) => result.name === name);
    if (found === undefined) throw new Error(`no case ${name}`);
    return found;
  };
  const one = find("kloak, one secret");
  const many = find("kloak, many secrets");
  const none = find("kloak, no placeholder");
  const bystander = find("bystander of a kloak run");
  const most = memory.at(-1) ?? { secrets: 0, residentBytes: Number.NaN, mapBytes: Number.NaN };
  const budget = (name: string, limit: string, value: string, kept: boolean): Budget => ({ name, limit, value, kept });
  return [
    budget(
      "one secret, added p50",
      "2 % and 10 us",
      `${percent(one.ratio)}, ${us(one.addedUs)}`,
      one.ratio <= 1.02 && one.addedUs <= 10,
    ),
    budget("no placeholder, added p50", "1 %", percent(none.ratio), none.ratio <= 1.01),
    budget("bystander, added p50", "1 %", percent(bystander.ratio), bystander.ratio <= 1.01),
    budget("many secrets against one, p50", "no more", percent(many.ratio), many.ratio <= 1.01),
    budget("bulk upload against bare", "at least 0.98", upload.ratio.toFixed(3), upload.ratio >= 0.98),
    budget(
      `kloak run, resident, ${most.secrets} secrets`,
      "80 MB",
      megabytes(most.residentBytes),
      most.residentBytes <= 80e6,
    ),
    budget("kernel maps", "32 MB", megabytes(most.mapBytes), most.mapBytes <= 32e6),
  ];
}

export function render(results: Results): string {
  const { latency, upload, memory } = results;
  const rows = latency.map(({ name, p50Us, p99Us, cpuUs, against, addedUs, ratio }) => {
    const difference = against === null ? ["", ""] : [`${addedUs >= 0 ? "+" : ""}${us(addedUs)}`, percent(ratio)];
    return [name, us(p50Us), us(p99Us), us(cpuUs), ...difference, against ?? ""];
  });
  const limits = budgets(results).map(({ name, limit, value, kept }) => [
    name,
    limit,
    value,
    kept ? "kept" : "NOT KEPT",
  ]);
  return [
    "A keep-alive HTTPS request and its answer (medians over rounds)",
    "",
    table(["", "p50", "p99", "cpu", "added p50", "", "against"], rows),
    "",
    chart(latency),
    "",
    `Upload: bare ${megabytes(upload.bareBps)}/s, kloak ${megabytes(upload.kloakBps)}/s, ratio ${upload.ratio.toFixed(3)}`,
    ...memory.map(
      (entry) =>
        `kloak run with ${entry.secrets} secrets: ${megabytes(entry.residentBytes)} resident, maps ${megabytes(entry.mapBytes)}`,
    ),
    "",
    table(["budget", "at most", "measured", ""], limits),
    "",
    "cpu: of the client's process per request, with the kernel's work on its behalf; of the proxy too, where one runs.",
    "",
  ].join("\n");
}

/** What each program of the kernel costs, and the agent beside it. */
export function renderProfiles(profiles: readonly Profile[]): string {
  return profiles
    .map(({ name, unit, programs, agentNs }) => {
      const sum = programs.reduce((total, { totalNs }) => total + totalNs, 0);
      const rows = programs
        .filter(({ totalNs }) => totalNs >= 1)
        .map(({ name, runs, runNs, totalNs }) => [name, runs.toFixed(2), runNs.toFixed(0), totalNs.toFixed(0)]);
      rows.push(["all programs", "", "", sum.toFixed(0)], ["kloak run itself", "", "", agentNs.toFixed(0)]);
      return `${table([`${name}, per ${unit}`, "runs", "ns each", "ns"], rows)}\n`;
    })
    .join("\n");
}

/** What a request and its answer cost with each stack. */
export function renderStacks(costs: readonly StackCost[]): string {
  const rows = costs.map(({ client, tls, hits, programUs, wireUs, bareUs, kloakUs, instructions }) => [
    client,
    tls,
    hits.toFixed(1),
    programUs.toFixed(1),
    wireUs.toFixed(1),
    bareUs.toFixed(1),
    kloakUs.toFixed(1),
    `${kloakUs < bareUs ? "" : "+"}${(kloakUs - bareUs).toFixed(1)}`,
    instructions,
  ]);
  const head = [
    "client",
    "TLS code",
    "hits",
    "programs",
    "wire",
    "cpu bare",
    "cpu kloak",
    "added",
    "probed instructions",
  ];
  return [
    "A request and its answer on a connection that is kept, microseconds",
    "",
    table(head, rows),
    "",
    "hits: of probes. programs: in those; wire: in the programs of the interface. cpu: of the client's process, with the",
    "kernel's work on its behalf, entering the programs among it.",
    "",
  ].join("\n");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) =>
        column === 0 || cell === cells.at(-1) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd();
  return [line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

/** p50 as bars; the full width is the slowest of those that stay below ten times the fastest. */
function chart(latency: readonly LatencyResult[]): string {
  const width = 50;
  const fastest = Math.min(...latency.map(({ p50Us }) => p50Us));
  const scale = Math.max(...latency.map(({ p50Us }) => p50Us).filter((value) => value < 10 * fastest));
  const label = Math.max(...latency.map(({ name }) => name.length));
  return latency
    .map(({ name, p50Us }) => {
      const length = Math.round((p50Us / scale) * width);
      const bar = length > width ? `${"#".repeat(width)}>> ${(p50Us / fastest).toFixed(0)} x` : "#".repeat(length);
      return `${name.padEnd(label)}  ${bar} ${us(p50Us)}`;
    })
    .join("\n");
}

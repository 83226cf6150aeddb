import { KloakError } from "../errors.ts";
import type { AuditRecord, Workload } from "./record.ts";

/** What `kloak audit` is asked for. In names `*` stands for any text. */
export interface FilterInput {
  readonly secret?: string | undefined;
  /** A pod's `namespace/name`, name or uid; a command's name or pid. */
  readonly workload?: string | undefined;
  readonly outcome?: string | undefined;
  /** `90s`, `10m`, `2h`, `7d` ago, or a time as in a record. */
  readonly since?: string | undefined;
}

export type Filter = (record: AuditRecord) => boolean;

const outcomes = ["substituted", "refused", "unprotected", "lost"];
const units: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** @throws KloakError if the input means nothing */
export function parseFilter(input: FilterInput, now: Date = new Date()): Filter {
  const filters = [
    input.secret === undefined ? undefined : secretFilter(input.secret),
    input.workload === undefined ? undefined : workloadFilter(input.workload),
    input.outcome === undefined ? undefined : outcomeFilter(input.outcome),
    input.since === undefined ? undefined : sinceFilter(input.since, now),
  ].filter((filter) => filter !== undefined);
  return (record) => filters.every((filter) => filter(record));
}

function secretFilter(pattern: string): Filter {
  const matches = matcher(pattern);
  return ({ secret }) => secret !== null && matches(secret);
}

function workloadFilter(pattern: string): Filter {
  const matches = matcher(pattern);
  return ({ workload }) => workload !== null && workloadNames(workload).some(matches);
}

function workloadNames(workload: Workload): string[] {
  if (workload.kind === "pod") return [`${workload.namespace}/${workload.name}`, workload.name, workload.uid];
  return [workload.command ?? "", String(workload.pid ?? "")];
}

function outcomeFilter(text: string): Filter {
  const wanted = text.split(",").map((each) => each.trim());
  const unknown = wanted.find((each) => !outcomes.includes(each));
  if (unknown !== undefined) {
    throw new KloakError(
      "filter-invalid",
      `--outcome ${JSON.stringify(unknown)} is unknown; use ${outcomes.join(", ")}`,
    );
  }
  return ({ outcome }) => wanted.includes(outcome);
}

function sinceFilter(text: string, now: Date): Filter {
  const [, number, unit = ""] = /^([0-9]+)([smhd])$/.exec(text) ?? [];
  const start = number === undefined ? Date.parse(text) : now.getTime() - Number(number) * (units[unit] ?? 0);
  if (Number.isNaN(start)) {
    const remedy = "use 90s, 10m, 2h, 7d, or a time such as 2026-11-23T16:20:00Z";
    throw new KloakError("filter-invalid", `--since ${JSON.stringify(text)} is no time; ${remedy}`);
  }
  return ({ time }) => Date.parse(time) >= start;
}

/** Text with `*`, matched without backtracking over more than one star at a time. */
function matcher(pattern: string): (text: string) => boolean {
  const [head = "", ...rest] = pattern.split("*");
  const tail = rest.pop();
  if (tail === undefined) return (text) => text === head;
  return (text) => {
    if (!text.startsWith(head)) return false;
    let at = head.length;
    for (const part of rest) {
      const found = text.indexOf(part, at);
      if (found === -1) return false;
      at = found + part.length;
    }
    return text.length - at >= tail.length && text.endsWith(tail);
  };
}

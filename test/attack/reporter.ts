/* At the end of the attack suite: what was tried, and what the audit trails say about it. For `node --test-reporter`. */
import { existsSync, readFileSync, rmSync } from "node:fs";
import type { TestEvent } from "node:test/reporters";
import type { AuditRecord } from "../../src/audit/index.ts";
import { count } from "../support/requests.ts";

/** Every audit record of every run, one JSON object a line: `World` writes it. */
const file = process.env["KLOAK_TALLY"];

// node:test takes a reporter by its default export.
// oxlint-disable-next-line import/no-default-export
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const tried: string[] = [];
  let failed = 0;
  for await (const event of events) {
    if (event.type !== "test:pass" && event.type !== "test:fail") continue;
    if (event.data.details.type === "suite" || event.data.nesting > 0) continue;
    if (event.type === "test:fail") failed += 1;
    const letter = /^(?:limit of )?([A-Z])\d/.exec(event.data.name)?.[1]; // others are checks of the suite itself
    if (letter !== undefined) tried.push(letter);
  }
  yield `\nattacks tried: ${tried.length} (${list(count(tried))}), ${failed} tests failed\n`;
  if (file === undefined || !existsSync(file)) return;
  const records = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as AuditRecord);
  rmSync(file);
  const outcomes = count(records.map(({ outcome, reason }) => reason ?? outcome));
  yield `audit records: ${records.length} (${list(outcomes)})\n`;
}

function list(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, times]) => `${name} ${times}`)
    .join(", ");
}

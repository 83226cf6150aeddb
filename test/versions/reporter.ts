/*
 * At the end of the suite of stacks: which program has been served over which TLS code, as a table that is printed and, if
 * nothing failed, written to docs/stacks.md. For `node --test-reporter`.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestEvent } from "node:test/reporters";
import type { ServedStack } from "../support/served-stacks.ts";

/** A JSON object a line: `noteServed` writes it. */
const file = process.env["KLOAK_STACKS"];
const root = fileURLToPath(new URL("../..", import.meta.url));

// node:test takes a reporter by its default export.
// oxlint-disable-next-line import/no-default-export
export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const passed: { readonly name: string; readonly file: string }[] = [];
  let failed = 0;
  for await (const { type, data } of events) {
    if ((type !== "test:pass" && type !== "test:fail") || data.nesting > 0) continue;
    if (type === "test:fail") failed += 1;
    else passed.push({ name: data.name, file: relative(root, data.file ?? "") });
  }
  if (file === undefined || !existsSync(file)) return;
  const lines = readFileSync(file, "utf8").split("\n");
  rmSync(file);
  const table = tableOf(
    lines.filter((line) => line !== "").map((line) => JSON.parse(line) as ServedStack),
    passed,
  );
  yield `\n${table}`;
  if (failed > 0) yield `${failed} tests failed: docs/stacks.md stays as it is\n`;
  else writeFileSync(new URL("../../docs/stacks.md", import.meta.url), page(table));
}

/** A row for each program, with all that has been shown of it. */
export function tableOf(
  served: readonly ServedStack[],
  passed: readonly { readonly name: string; readonly file: string }[],
): string {
  const rows = new Map<string, ServedStack[]>();
  for (const each of served) rows.set(each.program, [...(rows.get(each.program) ?? []), each]);
  const cells = [...rows].map(([program, all]) => {
    const tests = passed.filter(({ name }) => name.startsWith(`${program}: `));
    const suites = new Set(all.flatMap((each) => each.suites));
    const proofs = tests.map((test) => `${test.name.slice(program.length + 2)} ([test](../${test.file}))`);
    return [
      program,
      all.find(({ version }) => version !== null)?.version ?? "",
      [...new Set(all.map(({ tls }) => tls))].join(", "),
      ["1.3", "1.2"].flatMap((version) => ciphersOf(version, suites)).join("; "),
      [...new Set(all.map(({ protocol }) => protocol))].toSorted().join(", "),
      proofs.join("; "),
    ];
  });
  const head = ["program", "version", "TLS code", "TLS and cipher", "protocol", "shown by"];
  return [head, head.map(() => "---"), ...cells].map((row) => `| ${row.join(" | ")} |\n`).join("");
}

function ciphersOf(version: string, suites: ReadonlySet<string>): string[] {
  const ciphers = [...suites].filter((suite) => suite.startsWith(`${version} `)).map((suite) => suite.slice(4));
  return ciphers.length === 0 ? [] : [`${version}: ${ciphers.join(", ")}`];
}

function page(table: string): string {
  return `# TLS stacks that have been served

Written by \`npm run test:stacks\`, from what its tests have seen: in each row a placeholder left a real program, over a real
network, and the server received the secret. \`kloak hooks FILE\` tells the same of a file: which code was found, and what of it is
hooked. How that is done is in [hooks.md](hooks.md).

${table}`;
}

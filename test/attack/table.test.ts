/* The table of docs/threats.md names tests that are there, and leaves out no row. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../support/world.ts";

const read = (file: string) => readFileSync(join(root, file), "utf8");
const rows = read("docs/threats.md")
  .split("\n")
  .flatMap((line) => {
    const [, id, , tests] = /^\| ([A-G]\d*) ([^|]*\|[^|]*)\| (.*) \|$/.exec(line) ?? [];
    return id === undefined || tests === undefined ? [] : [{ id, tests, line }];
  })
  .filter(({ tests }) => tests.startsWith("`") || tests === "—");
/** Rows that no test on one host can try; each says why. */
const untried = /needs Kubernetes|not prevented: see limits/;

test("every test that the table of threats names is there", () => {
  let named = 0;
  for (const { id, tests } of rows) {
    for (const [, file = "", names = ""] of tests.matchAll(/`([^`]+)`: ((?:"[^"]+"(?:, )?)+)/g)) {
      const source = read(file);
      for (const [, name = ""] of names.matchAll(/"([^"]+)"/g)) {
        named += 1;
        assert.ok(source.includes(name), `${id}: ${file} has no test "${name}"`);
      }
    }
  }
  assert.ok(named > 60, `${named} tests are named`);
});

test("every row of the table of threats has a test, or says why not", () => {
  const ids = rows.map(({ id }) => id);
  const expected: readonly (readonly [string, number])[] = [
    ["A", 9],
    ["B", 14],
    ["C", 7],
    ["D", 16],
    ["E", 3],
    ["F", 5],
    ["G", 8],
  ];
  const all = expected.flatMap(([letter, count]) => Array.from({ length: count }, (_, i) => `${letter}${i + 1}`));
  assert.deepEqual(ids, all);
  for (const { id, tests, line } of rows) assert.ok(tests !== "—" || untried.test(line), id);
});

test("every attack of the suite stands in the table", () => {
  const ids = new Set(rows.map(({ id }) => id));
  const files = ["test/attack", "test/cluster"].flatMap((folder) =>
    readdirSync(join(root, folder)).map((name) => join(folder, name)),
  );
  for (const file of files.filter((name) => name.endsWith(".test.ts"))) {
    const names = read(file).matchAll(/(?:test\(\s*|threat: )["`]([A-G]\d+(?:, [A-G]\d+)*)/g);
    for (const [, prefix = ""] of names)
      for (const id of prefix.split(", ")) assert.ok(ids.has(id), `${file}: ${id} has no row`);
  }
});

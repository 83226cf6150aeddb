import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePort, parsePortPair } from "./ports.ts";

const pairs: readonly [string, ReturnType<typeof parsePortPair>][] = [
  ["8080", { host: 8080, inside: 8080 }],
  ["8080:80", { host: 8080, inside: 80 }],
  ["auto", "auto"],
];
for (const [text, expected] of pairs) test(`--publish ${text}`, () => assert.deepEqual(parsePortPair(text), expected));

for (const text of ["", "0", "65536", "http", "1:2:3", ":80", "80:", "-1", "1e3", "8080 "]) {
  test(`--publish ${JSON.stringify(text)} is refused`, () =>
    assert.throws(() => parsePortPair(text), { code: "port-invalid" }));
  test(`--host-port ${JSON.stringify(text)} is refused`, () =>
    assert.throws(() => parsePort(text), { code: "port-invalid" }));
}

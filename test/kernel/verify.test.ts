/* "It still verifies" is a test: every object passes the verifier of the kernel at hand, with room to spare. Needs root. */
import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { test } from "node:test";
import { projectRoot } from "../../src/dataplane/native.ts";
import { allowedShare, figuresOf, objectFiles, share } from "../kernels/figures.ts";
import { deepestStack } from "../kernels/stack.ts";

/** Objects that must not load, and why. */
const rejected: Readonly<Record<string, string>> = {
  "test/loader-rejected.bpf.o": "reads past a map's value, to see what the loader says then",
};

test("there are objects to verify, one for each source", () => {
  const sources = globSync("{bpf,test}/**/*.bpf.c", { cwd: projectRoot });
  const base = (path: string) => path.replace(/^.*\//, "").replace(/\.bpf\.[co]$/, "");
  assert.deepEqual(new Set(objectFiles.map(base)), new Set(sources.map(base)), "run `npm run build`");
});

for (const object of objectFiles) {
  if (rejected[object]) continue;
  test(`${object} verifies, and stays 20 % away from the verifier's limits`, (context) => {
    for (const figure of figuresOf(object)) {
      const { program, instructions, stack } = figure;
      const row = `${program.padEnd(24)} ${String(instructions).padStart(7)} instructions verified, stack ${stack}`;
      context.diagnostic(row);
      assert.ok(share(figure) <= allowedShare, row);
      assert.ok(
        object.startsWith("test/") || !figure.losesStack,
        `${program} can lose its stack to another thread: see bpf/cipher/stack.h`,
      );
    }
  });
}

/** Of functions with their stacks, as struct bpf_insn: call (to the next but `to`), address of a callback, exit. */
const call = (to: number, source = 1): number[] => [0x85, source << 4, 0, 0, to, 0, 0, 0];
const callback = (to: number): number[] => [0x18, 4 << 4, 0, 0, to, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const exit = [0x95, 0, 0, 0, 0, 0, 0, 0];

const chains: readonly [name: string, code: number[][], depths: number[], expected: number][] = [
  ["a program alone takes no less than 32 bytes", [exit], [0], 32],
  ["a call adds, each rounded up", [call(1), exit, exit], [8, 40], 32 + 64],
  ["two calls one after the other do not", [call(2), call(2), exit, exit, exit], [8, 40, 72], 32 + 96],
  ["a callback counts as a call", [callback(1), exit, exit], [8, 40], 32 + 64],
  ["what a loop needs when it is made one is not checked", [callback(2), call(181, 0), exit, exit], [56, 8], 32 + 32],
];

for (const [name, code, depths, expected] of chains) {
  test(`stack of a chain: ${name}`, () => {
    assert.equal(deepestStack(Buffer.from(code.flat()), depths), expected);
  });
}

/* "It still verifies" is a test: every object passes the verifier of the kernel at hand. Needs root. */
import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { projectRoot } from "../../src/dataplane/native.ts";
import { BpfObject } from "../../src/dataplane/object.ts";

/** The verifier gives up at a million; this leaves room for older ones, which prune less. */
const INSTRUCTIONS_MAX = 900_000;

/** Objects that must not load, and why. */
const rejected: Readonly<Record<string, string>> = {
  "test/loader-rejected.bpf.o": "reads past a map's value, to see what the loader says then",
};

const objects = globSync("{bpf,test}/**/*.bpf.o", { cwd: join(projectRoot, "build") }).toSorted();

test("there are objects to verify, one for each source", () => {
  const sources = globSync("{bpf,test}/**/*.bpf.c", { cwd: projectRoot });
  const base = (path: string) => path.replace(/^.*\//, "").replace(/\.bpf\.[co]$/, "");
  assert.deepEqual(new Set(objects.map(base)), new Set(sources.map(base)), "run `npm run build`");
});

for (const name of objects) {
  if (rejected[name]) continue;
  test(`${name} verifies`, (context) => {
    const object = new BpfObject(join(projectRoot, "build", name), { statistics: true });
    try {
      for (const { name: program } of object.programs) {
        const info = object.program(program);
        const depth = /stack depth ([\d+]+)/.exec(info.log)?.[1] ?? "?";
        const processed = Number(/processed (\d+) insns/.exec(info.log)?.[1] ?? info.instructions);
        context.diagnostic(
          `${program.padEnd(24)} ${String(processed).padStart(7)} instructions verified, stack ${depth}, ${info.jitedBytes} bytes`,
        );
        assert.ok(processed <= INSTRUCTIONS_MAX, `${program}: ${processed} instructions for the verifier`);
      }
    } finally {
      object.close();
    }
  });
}

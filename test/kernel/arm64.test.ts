/* Nothing here runs on arm64: that every object compiles for it is all that is shown. That for Go is empty there. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { projectRoot } from "../../src/dataplane/native.ts";

test("every object compiles for arm64", () => {
  execFileSync("sh", [join(projectRoot, "scripts/build"), "arm64"], { stdio: ["ignore", "ignore", "inherit"] });
  const names = (folder: string, ending: string) =>
    globSync(`**/*.bpf.${ending}`, { cwd: join(projectRoot, folder) })
      .map((path) => path.slice(0, -1))
      .toSorted();
  assert.deepEqual(names("build/arm64", "o"), names("bpf", "c"));
});

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkLayouts } from "./dataplane.ts";
import { projectRoot } from "./native.ts";

test("types.gen.ts is what the headers of bpf/ say", () => {
  const generated = execFileSync(process.execPath, [join(projectRoot, "scripts/generate-types.ts"), "--print"], {
    encoding: "utf8",
  });
  const kept = readFileSync(join(import.meta.dirname, "types.gen.ts"), "utf8");
  assert.ok(
    generated === kept,
    "src/dataplane/types.gen.ts has drifted from bpf/types and bpf/maps: run `npm run generate`",
  );
});

for (const name of ["wire", "process", "cipher/seal", "cipher/openssl", "cipher/go"])
  test(`object ${name} was compiled from the headers that the codecs were generated from`, async () => {
    const path = join(projectRoot, `build/bpf/${name}.bpf.o`);
    assert.ok(existsSync(path), `${path} is missing: run \`npm run build\``);
    await checkLayouts(path);
  });

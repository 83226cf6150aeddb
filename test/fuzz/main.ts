/**
 * npm run test:fuzz -- [--seed S] [--count SEGMENTS] [--replay FILE]
 * Prints the seed, and what has been tried; a failure as a case that --replay takes.
 */
import { randomInt } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Tried } from "./run.ts";
import type { CaseSpec } from "./spec.ts";
import { fuzzWire, replay } from "./wire.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(randomInt(2 ** 31)) },
    count: { type: "string", default: "200000" },
    replay: { type: "string" },
  },
});

function say(tried: Tried): string {
  return Object.entries(tried)
    .map(([what, count]) => `${count} ${what}`)
    .join(", ");
}

if (values.replay !== undefined) {
  await replay(JSON.parse(readFileSync(values.replay, "utf8")) as CaseSpec);
  console.log("the case passes");
} else {
  const seed = Number(values.seed);
  const count = Number(values.count);
  console.log(`wire: seed ${seed}, ${count} segments`);
  let said = 0;
  const { tried, failure } = await fuzzWire(seed, count, (now) => {
    if (now.segments - said < count / 10) return;
    said = now.segments;
    console.log(`wire: ${say(now)}`);
  });
  console.log(`wire: tried ${say(tried)}`);
  if (failure) {
    const file = join(tmpdir(), `kloak-fuzz-${seed}.json`);
    writeFileSync(file, JSON.stringify(failure.spec));
    console.log(`wire: FAILED: ${failure.message}`);
    console.log(JSON.stringify(failure.spec));
    console.log(`wire: once more: npm run test:fuzz -- --replay ${file}`);
    process.exitCode = 1;
  } else {
    console.log("wire: no difference");
  }
}

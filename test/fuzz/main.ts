/**
 * npm run test:fuzz -- [--seed S] [--count SEGMENTS] [--replay FILE]
 * npm run test:fuzz -- --real [--seed S] [--count CONNECTIONS] [--kinds drop,cut,…] [--connection N]
 * Prints the seed, and what has been tried; a failure as a case that --replay takes, or as the command that repeats it.
 */
import { randomInt } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { kinds, type Problem, reduce, runReal } from "./real/run.ts";
import type { CaseSpec } from "./spec.ts";
import { fuzzWire, replay } from "./wire.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(randomInt(2 ** 31)) },
    count: { type: "string" },
    replay: { type: "string" },
    real: { type: "boolean", default: false },
    kinds: { type: "string", default: kinds.join(",") },
    connection: { type: "string" },
  },
});
const seed = Number(values.seed);

function say(tried: object): string {
  return Object.entries(tried)
    .map(([what, count]) => `${count} ${what}`)
    .join(", ");
}

async function wire(count: number): Promise<void> {
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

function sayProblems(problems: readonly Problem[]): void {
  for (const { index, text } of problems.slice(0, 40))
    console.log(`real: FAILED: ${index === undefined ? "" : `connection ${index}: `}${text}`);
}

async function real(count: number): Promise<void> {
  const asked = values.kinds === "" ? [] : values.kinds.split(",");
  const only = values.connection === undefined ? {} : { only: Number(values.connection) };
  console.log(`real: seed ${seed}, ${count} connections`);
  const options = { seed, count, kinds: asked, ...only };
  const { tally, problems, directory } = await runReal({
    ...options,
    progress: (now) => console.log(`real: ${say(now)}`),
  });
  if (problems.length === 0) {
    console.log("real: nothing left in two versions, and everything arrived as the policy says");
    return;
  }
  process.exitCode = 1;
  console.log(`real: tried ${say(tally)}`);
  sayProblems(problems);
  console.log(`real: captures and journal: ${directory}`);
  const index = problems.find((problem) => problem.index !== undefined)?.index;
  if (index === undefined) return;
  const least = await reduce({ ...options, only: index });
  if (least === undefined) console.log(`real: connection ${index} does not fail alone`);
  else {
    console.log(`real: connection ${index} fails alone with ${least.join(", ") || "nothing on the way"}`);
    console.log(
      `real: once more: npm run test:fuzz -- --real --seed ${seed} --connection ${index} --kinds "${least.join(",")}"`,
    );
  }
}

if (values.replay !== undefined) {
  await replay(JSON.parse(readFileSync(values.replay, "utf8")) as CaseSpec);
  console.log("the case passes");
} else if (values.real) await real(Number(values.count ?? "240"));
else await wire(Number(values.count ?? "200000"));

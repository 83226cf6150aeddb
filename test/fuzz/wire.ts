/** Random cases until enough segments have been tried; the first that fails is made small and printed. */
import fc from "fast-check";
import { Runner, type Tried } from "./run.ts";
import { type CaseSpec, cases } from "./spec.ts";

export interface FuzzResult {
  readonly tried: Tried;
  readonly failure?: { readonly message: string; readonly spec: CaseSpec };
}

/** Cases of one call of fast-check, which keeps all that it has made. */
const batch = 200;
/** Runs that may be spent on making a failure smaller. */
const shrinkMs = 60_000;

/**
 * @param seed the same gives the same cases
 * @param count of segments
 */
export async function fuzzWire(
  seed: number,
  count: number,
  progress: (tried: Tried) => void = () => undefined,
): Promise<FuzzResult> {
  const runner = new Runner();
  try {
    await runner.start();
    let failed = false;
    for (let round = 0; runner.tried.segments < count; round++) {
      const details = await fc.check(
        fc.asyncProperty(cases, async (spec) => {
          if (runner.tried.segments >= count && !failed) return;
          try {
            await runner.run(spec);
          } catch (error) {
            failed = true;
            throw error;
          }
        }),
        { seed: (seed + round * 7919) | 0, numRuns: batch, interruptAfterTimeLimit: 10 * shrinkMs },
      );
      const [spec] = details.counterexample ?? [];
      if (spec) {
        const { errorInstance } = details;
        const message = errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
        return { tried: runner.tried, failure: { message, spec } };
      }
      progress(runner.tried);
    }
    return { tried: runner.tried };
  } finally {
    runner.close();
  }
}

/** @throws what the case throws */
export async function replay(spec: CaseSpec): Promise<void> {
  const runner = new Runner();
  try {
    await runner.start();
    await runner.run(spec);
  } finally {
    runner.close();
  }
}

/**
 * Imported before each test file by `npm run test:fuzz`: every property is tried KLOAK_FUZZ_RUNS times (5000), unless
 * the test itself asks for more.
 */
import fc from "fast-check";

const least = Number(process.env.KLOAK_FUZZ_RUNS ?? 5000);
const { assert } = fc;
fc.assert = ((property, parameters) =>
  assert(property, { ...parameters, numRuns: Math.max(least, parameters?.numRuns ?? 0) })) as typeof assert;

/** Imported before each test file by `npm run test:properties`: properties that name no number of runs are tried more often. */
import fc from "fast-check";

fc.configureGlobal({ numRuns: Number(process.env.KLOAK_FUZZ_RUNS ?? 5000) });

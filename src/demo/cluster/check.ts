/*
 * `helm test` with the demo: the whole way, from a pod of its own. Each line is a sentence and whether it holds; ends with
 * status 1 if one does not.
 */
import { setTimeout as delay } from "node:timers/promises";
import { ask, recordsOf, stageOf } from "./exchange.ts";

/** Images, certificates and the first connection may take their time on a fresh node. */
const deadlineMs = 90_000;

const stage = stageOf(process.env);
const { key, allowed, other, hasAudit } = stage;
const end = performance.now() + deadlineMs;

await holds("the environment has a placeholder", () => key.includes("kloak:"));
await holds(`${allowed} received the key`, async () => (await ask(allowed, key)).received === "the key");
await holds(`${other} received the placeholder`, async () => (await ask(other, key)).received === "a placeholder");
if (hasAudit) {
  const has = async (outcome: string, reason: string | null, host: string) =>
    (await recordsOf(stage)).some(
      (record) => record.outcome === outcome && record.reason === reason && record.destination.host === host,
    );
  await holds("the audit trail has the substitution", () => has("substituted", null, allowed));
  await holds("and the refusal, with its reason", () => has("refused", "host-not-allowed", other));
}
process.exit(0);

async function holds(sentence: string, check: () => boolean | Promise<boolean>): Promise<void> {
  let why = "";
  do {
    try {
      if (await check()) {
        console.log(`ok      ${sentence}`);
        return;
      }
    } catch (error) {
      why = `: ${error instanceof Error ? error.message : String(error)}`;
    }
    await delay(500);
  } while (performance.now() < end);
  console.log(`FAILED  ${sentence}${why}`);
  process.exit(1);
}

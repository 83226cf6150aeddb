/*
 * The demo's client in a cluster: an application as any other, that has a key in its environment and calls an API. Its
 * log tells what it holds, what the server says that it received, and what comes of the wrong host.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { AuditRecord } from "../../audit/index.ts";
import { ask, recordsOf, stageOf } from "./exchange.ts";

const stage = stageOf(process.env);
const { key, allowed, other, hasAudit } = stage;
const intervalMs = Number(process.env["REQUEST_INTERVAL"] ?? 5) * 1000;

process.once("SIGTERM", () => process.exit(0));
console.log(`This pod's environment:  API_KEY=${key}`);
if (!key.includes("kloak:")) {
  console.log(
    "That is no placeholder: this pod was not cloaked when it was made. Is the namespace labelled, and Kloak up?",
  );
  process.exit(1);
}
console.log(`Secret demo-key has another value, for ${allowed} alone. This pod has no way to read it.`);

for (;;) {
  for (const host of [allowed, other]) console.log(`GET https://${host}/v1/models  ${await outcome(host)}`);
  if (hasAudit) await tell();
  await delay(intervalMs);
}

async function outcome(host: string): Promise<string> {
  try {
    const { status, received } = await ask(host, key);
    return `${status}: the server received ${received}`;
  } catch (error) {
    return `no answer: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** The latest record of each kind. */
async function tell(): Promise<void> {
  try {
    const latest = new Map<string, AuditRecord>();
    for (const record of await recordsOf(stage)) latest.set(record.outcome, record);
    for (const { outcome: what, reason, secret, destination } of latest.values())
      console.log(`audit: ${what} ${secret} to ${destination.host}${reason === null ? "" : `: ${reason}`}`);
  } catch (error) {
    console.log(`audit: ${error instanceof Error ? error.message : String(error)}`);
  }
}

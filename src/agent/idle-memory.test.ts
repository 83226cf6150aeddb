import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { IdleMemory } from "./idle-memory.ts";

const mega = 1 << 20;

function resident(kind: "RssAnon" | "RssFile"): number {
  const text = readFileSync("/proc/self/status", "utf8");
  return Number(new RegExp(`^${kind}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]) * 1024;
}

/** In a frame of its own, which keeps nothing of it. */
function makeGarbage(): void {
  const rows = Array.from({ length: 1_000_000 }, (_, number) => ({ number, text: [number] }));
  assert.equal(rows.length, 1_000_000);
}

test("what was thrown away goes back to the kernel, and code of the start too, once nothing more is noted", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const memory = new IdleMemory();
  makeGarbage();
  const anonymous = resident("RssAnon");
  const file = resident("RssFile");
  memory.note();
  t.mock.timers.tick(1500);
  memory.note(); // a change that follows soon puts it off
  t.mock.timers.tick(1500);
  assert.ok(resident("RssAnon") > anonymous - 16 * mega);
  t.mock.timers.tick(500);
  assert.ok(resident("RssAnon") < anonymous - 32 * mega);
  assert.ok(resident("RssFile") < file - 8 * mega);
});

test("who has closed it is left alone", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const memory = new IdleMemory();
  const file = resident("RssFile");
  memory.note();
  memory.close();
  t.mock.timers.tick(10_000);
  assert.ok(resident("RssFile") > file - 8 * mega);
});

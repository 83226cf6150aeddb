import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { disguises, scanMemory } from "./memory.ts";

const value = `scanned-${"for-in-memory-".repeat(3)}${process.pid}`;

/** Each line of standard input becomes part of the process's memory. */
const holder = "IFS= read -r held; echo ready; read -r _";

for (const [name, held] of [
  ["raw", value],
  ["hex", Buffer.from(value).toString("hex")],
  ["HEX", Buffer.from(value).toString("hex").toUpperCase()],
  ["base64 (0 before)", Buffer.from(value).toString("base64")],
  ["base64 (1 before)", Buffer.from(`:${value}`).toString("base64")],
  ["base64 (2 before)", Buffer.from(`u:${value}`).toString("base64")],
] as const) {
  test(`a scan finds a value that a process holds as ${name}, and only so. Needs root`, async () => {
    const child = spawn("sh", ["-c", holder], { stdio: "pipe" });
    const ended = once(child, "exit");
    try {
      child.stdin.write(`${held}\n`);
      await once(child.stdout, "data");
      const { found, bytes } = scanMemory(child.pid ?? 0, disguises(value));
      assert.ok(bytes > 0);
      const where = Object.keys(found).filter((key) => (found[key] ?? 0) > 0);
      assert.deepEqual(where, [name]);
    } finally {
      child.stdin.end();
      await ended;
    }
  });
}

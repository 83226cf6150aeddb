/* The promise: whatever TCP and the peer do, the kernel's program does what the model does. `npm run test:fuzz`: longer. */
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { fuzzWire } from "../fuzz/wire.ts";

test("8000 segments of random connections: no difference, nothing patched and unpatched, all of it decrypts", async () => {
  const seed = randomInt(2 ** 31);
  const { tried, failure } = await fuzzWire(seed, 8000);
  assert.equal(failure, undefined, failure && `seed ${seed}: ${failure.message}\n${JSON.stringify(failure.spec)}`);
  assert.ok(tried.segments >= 8000 && tried.substituted > 0 && tried.refused > 0 && tried.dropped > 0);
});

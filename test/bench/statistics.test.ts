import assert from "node:assert/strict";
import { test } from "node:test";
import { median, paired, quantile } from "./statistics.ts";

test("a quantile is the value at its rank, whatever the order", () => {
  const values = [5, 1, 4, 2, 3];
  assert.equal(median(values), 3);
  assert.equal(quantile(values, 0.99), 5);
  assert.equal(quantile(values, 0), 1);
  assert.throws(() => quantile([], 0.5), RangeError);
});

test("paired rounds cancel what slows both halves", () => {
  assert.equal(
    paired([10, 100, 20], [11, 101, 21], (bare, other) => other - bare),
    1,
  );
});

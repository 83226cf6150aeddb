/* Receive packet steering of an interface. Needs root. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { createNamespace } from "../lab/namespace.ts";
import { cpuList, cpuMask, keepOrder } from "./receive-order.ts";

test("a CPU mask has the bits of its CPUs, in groups of 32", () => {
  assert.equal(cpuMask([0, 1]), "3");
  assert.equal(cpuMask([31, 32]), "1,80000000");
  assert.deepEqual(cpuList("0-3,8\n"), [0, 1, 2, 3, 8]);
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 255 }), { minLength: 1 }), (cpus) => {
      const bits = BigInt(`0x${cpuMask(cpus).replaceAll(/,/g, "")}`);
      for (let cpu = 0; cpu < 256; cpu += 1) assert.equal((bits >> BigInt(cpu)) & 1n, cpus.includes(cpu) ? 1n : 0n);
    }),
  );
});

test("an interface is steered until it is put back, and what somebody else has set stays", () => {
  const namespace = createNamespace();
  try {
    const directory = `/sys/class/net/${namespace.hostInterface}`;
    const path = `${directory}/queues/rx-0/rps_cpus`;
    const ifindex = Number(readFileSync(`${directory}/ifindex`, "utf8"));
    const steered = () => BigInt(`0x${readFileSync(path, "utf8").trim().replaceAll(",", "")}`);
    const putBack = keepOrder(ifindex);
    assert.notEqual(steered(), 0n);
    putBack();
    assert.equal(steered(), 0n);
    writeFileSync(path, "1");
    keepOrder(ifindex)();
    assert.equal(steered(), 1n);
  } finally {
    namespace.close();
  }
});

test("an interface that is not there is named", () => {
  assert.throws(() => keepOrder(2_000_000_000), /no interface 2000000000/);
});

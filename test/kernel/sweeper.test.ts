/* What goes by time, and how shares are counted. The clock is an argument of the sweep. Needs root. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Dataplane, openDataplane } from "../../src/dataplane/dataplane.ts";
import { Sweeper, sweepLimits } from "../../src/dataplane/sweeper.ts";
import {
  contextCodec,
  type Flow,
  flowClosing,
  flowCodec,
  flowFlag,
  flowPhase,
  helloCodec,
  mapTypes,
  offsets,
  patchCodec,
  table,
} from "../../src/dataplane/types.gen.ts";

const SECOND = 1_000_000_000n;
const none = { flows: 0, keys: 0, h2States: 0, contexts: 0, fingerprints: 0, patches: 0, chunks: 0 };
const now = 100_000n * SECOND;
const flowKey = (port: number) => ({
  workload: 1,
  sourcePort: port,
  destinationPort: 443,
  source: Buffer.alloc(16),
  destination: Buffer.alloc(16),
});

function addFlow(dataplane: Dataplane, port: number, fields: Partial<Flow>): void {
  const blank = flowCodec.decode(Buffer.alloc(flowCodec.bytes));
  const serial = BigInt(port);
  dataplane.maps.flows.set(flowKey(port), { ...blank, serial, ...fields });
  dataplane.maps.outstanding.set(serial, { records: [], workload: 1 });
}

const minute = 60n * SECOND;
const flowCases: readonly [name: string, fields: Partial<Flow>, stays: boolean][] = [
  ["open, used a second ago", { usedNs: now - SECOND }, true],
  ["open, idle for an hour", { usedNs: now - 60n * minute }, true],
  ["open, idle for five hours", { usedNs: now - 300n * minute }, false],
  ["closed a second ago", { usedNs: now - SECOND, closing: flowClosing.peer }, true],
  ["closed two minutes ago", { usedNs: now - 2n * minute, closing: flowClosing.peer }, false],
  [
    "closed two minutes ago with a patch not acknowledged",
    { usedNs: now - 2n * minute, closing: flowClosing.peer, outstanding: 1 },
    true,
  ],
  [
    "closed half an hour ago with a patch not acknowledged",
    { usedNs: now - 30n * minute, closing: flowClosing.peer, outstanding: 1 },
    false,
  ],
];

test("the sweep takes a flow when nothing can come of it any more, with what belongs to it", async (context) => {
  await using dataplane = await openDataplane({ objects: ["wire"] });
  for (const [index, [, fields]] of flowCases.entries()) addFlow(dataplane, index + 1, fields);
  const swept = dataplane.sweeper.sweep(now);
  assert.equal(swept.flows, flowCases.filter(([, , stays]) => !stays).length);
  for (const [index, [name, , stays]] of flowCases.entries())
    await context.test(name, () => {
      assert.equal(dataplane.maps.flows.has(flowKey(index + 1)), stays);
      assert.equal(dataplane.maps.outstanding.has(BigInt(index + 1)), stays);
    });
});

const keyName = (id: number, workload = 1) => ({ workload, id: Buffer.alloc(16, id) });

function addKey(dataplane: Dataplane, id: number, usedNs: bigint, workload = 1): void {
  const value = Buffer.alloc(mapTypes.keys.value.bytes);
  value.writeBigUInt64LE(usedNs, offsets.keyState.usedNs);
  value.writeBigUInt64LE(BigInt(id), offsets.keyState.serial);
  dataplane.maps.keys.set(keyName(id, workload), value);
}

function addContext(dataplane: Dataplane, address: bigint, usedNs: bigint, process = 1, workload = 1): void {
  const blank = contextCodec.decode(Buffer.alloc(contextCodec.bytes));
  dataplane.maps.contexts.set({ address, process, workload }, { ...blank, usedNs });
}

function addRecord(dataplane: Dataplane, index: number, sealedNs: bigint, workload = 1): void {
  const { fingerprints, patches, region_chunks: chunks } = dataplane.maps;
  const blank = patchCodec.decode(Buffer.alloc(patchCodec.bytes));
  patches.set({ serial: 1n, index, chunk: 0 }, { ...blank, workload, sealedNs });
  for (const chunk of [0, 1])
    chunks.set({ serial: 1n, index, chunk }, { workload, ciphertext: Buffer.alloc(256), delta: Buffer.alloc(256) });
  const key = keyName(1, workload);
  fingerprints.set({ bytes: Buffer.alloc(16, index) }, { key, serial: 1n, index, sealedNs });
}

test("a flow that stays for what its server keeps goes when its workload has no interface any more", async () => {
  await using dataplane = await openDataplane({ objects: ["wire"] });
  addFlow(dataplane, 1, { usedNs: now - 300n * minute, flags: flowFlag.keepsSecret });
  dataplane.maps.interfaces.set(9, { workload: 1, leaseNs: 0n });
  assert.equal(dataplane.sweeper.sweep(now).flows, 0);
  dataplane.maps.interfaces.delete(9);
  assert.equal(dataplane.sweeper.sweep(now).flows, 1);
});

test("a ClientHello that is never completed goes with its flow", async () => {
  await using dataplane = await openDataplane({ objects: ["wire"] });
  addFlow(dataplane, 1, { usedNs: now - 2n * minute, closing: flowClosing.workload });
  dataplane.maps.hellos.set(1n, helloCodec.decode(Buffer.alloc(helloCodec.bytes)));
  dataplane.sweeper.sweep(now);
  assert.deepEqual(dataplane.maps.hellos.keys(), []);
});

const boundTo = (id: number) => ({ phase: flowPhase.bound, keyId: keyName(id).id, keySerial: BigInt(id) });
const keyCases: readonly [name: string, flow: Partial<Flow> | undefined, usedNs: bigint, stays: boolean][] = [
  ["of no flow, used a second ago", undefined, now - SECOND, true],
  ["of no flow, idle for five hours", undefined, now - 300n * minute, false],
  ["of an open flow, idle for an hour", { usedNs: now - 60n * minute }, now - 60n * minute, true],
  ["its workload has ended the flow", { usedNs: now - 6n * SECOND, closing: flowClosing.workload }, now, false],
  ["its workload is ending it", { usedNs: now - 4n * SECOND, closing: flowClosing.workload }, now, true],
  ["the peer has ended its part", { usedNs: now - 50n * SECOND, closing: flowClosing.peer }, now, true],
  ["the peer has ended it long ago", { usedNs: now - 70n * SECOND, closing: flowClosing.peer }, now, false],
];

test("a key goes when its flow has ended, or when it is idle, and its HTTP/2 state with it", async (context) => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  const state = Buffer.alloc(mapTypes.h2_states.value.bytes);
  for (const [index, [, flow, usedNs]] of keyCases.entries()) {
    const id = index + 1;
    addKey(dataplane, id, usedNs);
    dataplane.maps.h2_states.set(BigInt(id), state);
    if (flow !== undefined) addFlow(dataplane, id, { ...boundTo(id), ...flow });
  }
  const gone = keyCases.filter(([, , , stays]) => !stays).length;
  const swept = dataplane.sweeper.sweep(now);
  assert.deepEqual([swept.keys, swept.h2States], [gone, gone]);
  for (const [index, [name, , , stays]] of keyCases.entries())
    await context.test(name, () => {
      assert.equal(dataplane.maps.keys.has(keyName(index + 1)), stays);
      assert.equal(dataplane.maps.h2_states.has(BigInt(index + 1)), stays);
    });
});

test("the fingerprints of a key go with it when its flow has ended", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  const { fingerprints } = dataplane.maps;
  for (const id of [1, 2]) {
    addKey(dataplane, id, now);
    const sighting = { key: keyName(id), serial: BigInt(id), index: 1, sealedNs: now - SECOND };
    fingerprints.set({ bytes: Buffer.alloc(16, id) }, sighting);
  }
  addFlow(dataplane, 1, { ...boundTo(1), usedNs: now - 6n * SECOND, closing: flowClosing.workload });
  assert.deepEqual(dataplane.sweeper.sweep(now), { ...none, keys: 1, fingerprints: 1 });
  assert.equal(fingerprints.has({ bytes: Buffer.alloc(16, 2) }), true);
});

test("a context goes when it is idle, or when its process has ended", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  const sweeper = new Sweeper(dataplane.maps, (process) => process === 1);
  addContext(dataplane, 1n, now - SECOND);
  addContext(dataplane, 2n, now - sweepLimits.idleKey - SECOND);
  addContext(dataplane, 3n, now - SECOND, 2);
  addContext(dataplane, 4n, 2n ** 64n - 1n);
  assert.deepEqual(sweeper.sweep(now), { ...none, contexts: 2 });
  assert.deepEqual(new Set(dataplane.maps.contexts.keys().map(({ address }) => address)), new Set([1n, 4n]));
});

test("whether a process has ended is asked of this host", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  addContext(dataplane, 1n, now - SECOND, process.pid);
  addContext(dataplane, 2n, now - SECOND, 0x7fff_ffff);
  assert.deepEqual(dataplane.sweeper.sweep(now), { ...none, contexts: 1 });
});

test("old fingerprints and patches go, and chunks that belong to no patch", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  for (const [index, age] of [SECOND, sweepLimits.patch + SECOND].entries()) addRecord(dataplane, index, now - age);
  assert.deepEqual(dataplane.sweeper.sweep(now), { ...none, fingerprints: 1, patches: 1 });
  // A chunk may have come a moment before its patch: it goes only with the next sweep.
  assert.deepEqual(dataplane.sweeper.sweep(now), { ...none, chunks: 2 });
  const { region_chunks: chunks } = dataplane.maps;
  assert.deepEqual(
    chunks.keys().map((key) => key.index),
    [0, 0],
  );
});

/** Entries of every table: one for workload 1, two for workload 2. */
function fill(dataplane: Dataplane): void {
  const { hellos, h2_states: states, flows, outstanding } = dataplane.maps;
  for (const [index, entries] of [1, 2].entries()) {
    const workload = index + 1;
    for (let i = 1; i <= entries; i++) {
      const id = 10 * index + i;
      addKey(dataplane, id, now, workload);
      states.set(BigInt(id), Buffer.alloc(mapTypes.h2_states.value.bytes));
      addContext(dataplane, BigInt(id), now, process.pid, workload);
      addRecord(dataplane, id, now, workload);
      hellos.set(BigInt(id), { ...helloCodec.decode(Buffer.alloc(helloCodec.bytes)), workload });
      flows.set({ ...flowKey(id), workload }, flowCodec.decode(Buffer.alloc(flowCodec.bytes)));
      outstanding.set(BigInt(id), { records: [], workload });
    }
  }
}

const counts = Array.from({ length: table.count }, () => 0);
const share = (entries: number) => ({
  used: counts.map((_, at) => (at === table.regionChunks ? 2 * entries : entries)),
});

test("every sweep counts anew what each workload has of each table", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  const { shares } = dataplane.maps;
  shares.set(5, { used: counts.map(() => -3) }); // what it had has gone, and more has been counted than that
  fill(dataplane);
  assert.deepEqual(dataplane.sweeper.sweep(0n), none);
  assert.deepEqual(new Map(shares.entriesNow()), new Map([0, 1, 2].map((id) => [id, share([3, 1, 2][id] ?? 0)])));
});

test("what a workload leaves goes at once, and no other's", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/seal", "cipher/openssl"] });
  fill(dataplane);
  dataplane.sweeper.forget(2);
  assert.deepEqual(dataplane.sweeper.sweep(0n), { ...none, h2States: 2 });
  assert.deepEqual(new Map(dataplane.maps.shares.entriesNow()), new Map([0, 1].map((id) => [id, share(1)])));
});

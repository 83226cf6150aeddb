/* The data plane as the agent opens it. Needs root. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type Dataplane, openDataplane } from "../../src/dataplane/dataplane.ts";
import { netnsCookie, projectRoot } from "../../src/dataplane/native.ts";
import { siphash } from "../../src/dataplane/siphash.ts";
import { sweepLimits } from "../../src/dataplane/sweeper.ts";
import {
  counter,
  type Event,
  eventKind,
  type Flow,
  flowCodec,
  mapTypes,
  offsets,
  type Patch,
  patchCodec,
} from "../../src/dataplane/types.gen.ts";
import { KloakError } from "../../src/errors.ts";
import { createNamespace } from "../../src/lab/namespace.ts";

const folder = mkdtempSync(join(tmpdir(), "kloak-dataplane-"));
after(() => rmSync(folder, { recursive: true }));

const SECOND = 1_000_000_000n;

const ofCode = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof KloakError && error.code === code && pattern.test(error.message);

test("all objects load, and a map of one name is one map", async () => {
  await using dataplane = await openDataplane();
  assert.deepEqual([...dataplane.objects.keys()], ["wire", "cipher/openssl", "cipher/go", "process"]);
  const ids = (name: string) =>
    [...dataplane.objects.values()]
      .filter((object) => object.mapNames.includes(name))
      .map((object) => object.mapHandle(name));
  for (const name of ["workloads", "keys", "events", "counters", "patches"] as const)
    assert.ok(ids(name).length > 1, name);
  dataplane.maps.workloads.set(77n, { id: 7 });
  for (const object of dataplane.objects.values())
    if (object.mapNames.includes("workloads"))
      assert.equal(object.map("workloads", mapTypes.workloads.key, mapTypes.workloads.value).get(77n)?.id, 7);
});

test("every map takes what its codec makes, and gives it back", async () => {
  await using dataplane = await openDataplane();
  for (const [name, { key, value, type }] of Object.entries(mapTypes)) {
    if (type === 2 || type === 6) continue; // arrays have all their entries from the start
    const object = [...dataplane.objects.values()].find((one) => one.mapNames.includes(name));
    assert.ok(object, `no object has map ${name}`);
    const map = object.map<unknown, unknown>(name, key, value);
    const written = value.decode(Buffer.alloc(value.bytes, 1));
    const keyBytes = Buffer.alloc(key.bytes, 1);
    if (type === 11) keyBytes.writeUInt32LE((key.bytes - 4) * 8); // a trie's keys start with their length in bits
    const at = key.decode(keyBytes);
    map.set(at, written);
    assert.deepEqual(map.get(at), written, name);
    assert.equal(map.delete(at), true, name);
  }
});

test("what is missing is named, with the next step", async () => {
  await assert.rejects(
    openDataplane({ objectDir: folder }),
    ofCode("no-object", /wire\.bpf\.o is missing: run `npm run build`/),
  );
  await using dataplane = await openDataplane({ objects: ["process"] });
  assert.throws(() => dataplane.maps.flows, ofCode("no-map", /map flows/));
  assert.throws(() => dataplane.attachWire(1), ofCode("no-program", /wire_egress.*loaded are process/));
  await assert.rejects(openDataplane({ macKey: Buffer.alloc(8) }), RangeError);
});

test("an object with another layout than the codecs is refused before it is loaded", async () => {
  const source = join(folder, "drift.c");
  writeFileSync(source, "struct workload { unsigned id; unsigned more; unsigned long long most; } workload;");
  mkdirSync(join(folder, "drifted"));
  execFileSync("clang-19", ["-g", "-O2", "-target", "bpf", "-c", source, "-o", join(folder, "drifted/process.bpf.o")]);
  await assert.rejects(
    openDataplane({ objectDir: join(folder, "drifted"), objects: ["process"] }),
    ofCode("layout-drift", /struct workload/),
  );
});

test("names are hashed under the data plane's key", async () => {
  const macKey = Buffer.from("000102030405060708090a0b0c0d0e0f", "hex");
  await using dataplane = await openDataplane({ objects: ["process"], macKey });
  assert.equal(dataplane.hashName("api.example.com"), siphash(macKey, Buffer.from("api.example.com")));
  await using other = await openDataplane({ objects: ["process"] });
  assert.notEqual(other.hashName("api.example.com"), dataplane.hashName("api.example.com"));
});

test("an exec in a workload is an event; one elsewhere is not", async () => {
  const namespace = createNamespace();
  try {
    await using dataplane = await openDataplane({ objects: ["process"] });
    dataplane.maps.workloads.set(netnsCookie(namespace.path), { id: 9 });
    const link = dataplane.attachProcesses();
    const events: Event[] = [];
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const deadline = setTimeout(() => reject(new Error("no event came")), 10_000);
    const stop = dataplane.events((event) => {
      events.push(event);
      if (event.command === "uname") resolve();
    });
    execFileSync("true");
    const child = spawnSync(namespace.within(["uname"])[0] ?? "", namespace.within(["uname"]).slice(1));
    await promise;
    clearTimeout(deadline);
    const seen = events.find((event) => event.command === "uname");
    assert.equal(seen?.kind, eventKind.exec);
    assert.equal(seen.workload, 9);
    assert.equal(seen.process, child.pid, "ip netns exec becomes the command");
    assert.ok(events.every((event) => event.command !== "true"));
    link.close();
    stop();
  } finally {
    namespace.close();
  }
});

test("wire programs stay on the interface when the data plane closes, and another takes them over", async () => {
  const namespace = createNamespace();
  try {
    const first = await openDataplane({ objects: ["wire"] });
    assert.equal(first.wireAttached(1, namespace.path), false);
    first.attachWire(1, namespace.path);
    first.close();
    await using second = await openDataplane({ objects: ["wire"] });
    assert.equal(second.wireAttached(1, namespace.path), true);
    second.attachWire(1, namespace.path);
    assert.equal(second.detachWire(1, namespace.path), true);
    assert.equal(second.detachWire(1, namespace.path), false);
    assert.equal(second.wireAttached(1, namespace.path), false);
  } finally {
    namespace.close();
  }
});

test("counters are the sum over all CPUs", async () => {
  await using dataplane = await openDataplane({ objects: ["process"] });
  const { keysFull, ...others } = dataplane.counters();
  assert.equal(keysFull, 0n);
  assert.equal(Object.keys(others).length, Object.keys(counter).length - 2);
  assert.ok(Object.values(others).every((value) => value === 0n));
});

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
  dataplane.maps.outstanding.set(serial, { records: [] });
}

const minute = 60n * SECOND;
const flowCases: readonly [name: string, fields: Partial<Flow>, stays: boolean][] = [
  ["open, used a second ago", { usedNs: now - SECOND }, true],
  ["open, idle for an hour", { usedNs: now - 60n * minute }, true],
  ["open, idle for five hours", { usedNs: now - 300n * minute }, false],
  ["closed a second ago", { usedNs: now - SECOND, closing: 1 }, true],
  ["closed two minutes ago", { usedNs: now - 2n * minute, closing: 1 }, false],
  [
    "closed two minutes ago with a patch not acknowledged",
    { usedNs: now - 2n * minute, closing: 1, outstanding: 1 },
    true,
  ],
  [
    "closed half an hour ago with a patch not acknowledged",
    { usedNs: now - 30n * minute, closing: 1, outstanding: 1 },
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

test("the sweep takes old keys, fingerprints and patches, and chunks that belong to no patch", async () => {
  await using dataplane = await openDataplane({ objects: ["wire", "cipher/openssl"] });
  const { keys, fingerprints, patches, region_chunks: chunks } = dataplane.maps;
  const blank: Patch = patchCodec.decode(Buffer.alloc(patchCodec.bytes));
  const chunk = { ciphertext: Buffer.alloc(256), delta: Buffer.alloc(256) };
  const name = (id: number) => ({ workload: 1, id: Buffer.alloc(16, id) });
  const state = (usedNs: bigint) => {
    const value = Buffer.alloc(mapTypes.keys.value.bytes);
    value.writeBigUInt64LE(usedNs, offsets.keyState.usedNs);
    return value;
  };
  keys.set(name(1), state(now - SECOND));
  keys.set(name(2), state(now - sweepLimits.idleKey - SECOND));
  for (const [index, sealedNs] of [now - SECOND, now - sweepLimits.patch - SECOND].entries()) {
    patches.set({ serial: 1n, index, chunk: 0 }, { ...blank, sealedNs });
    for (const number of [0, 1]) chunks.set({ serial: 1n, index, chunk: number }, chunk);
    fingerprints.set({ bytes: Buffer.alloc(16, index) }, { key: name(1), serial: 1n, index, sealedNs });
  }
  const first = dataplane.sweeper.sweep(now);
  assert.deepEqual(first, { flows: 0, keys: 1, h2States: 0, fingerprints: 1, patches: 1, chunks: 0 });
  assert.equal(keys.has(name(1)), true);
  // A chunk may have come a moment before its patch: it goes only with the next sweep.
  assert.deepEqual(dataplane.sweeper.sweep(now), {
    flows: 0,
    keys: 0,
    h2States: 0,
    fingerprints: 0,
    patches: 0,
    chunks: 2,
  });
  assert.deepEqual(
    chunks.keys().map((key) => key.index),
    [0, 0],
  );
});

test("a data plane that is closed holds nothing that keeps the process", () => {
  const script = join(folder, "close.ts");
  writeFileSync(
    script,
    `import { openDataplane } from ${JSON.stringify(join(projectRoot, "src/dataplane/dataplane.ts"))};
     const dataplane = await openDataplane();
     dataplane.events(() => undefined);
     dataplane.attachProcesses();
     dataplane.close();`,
  );
  const { status, stderr } = spawnSync(process.execPath, [script], { encoding: "utf8", timeout: 180_000 });
  assert.equal(status, 0, stderr);
});

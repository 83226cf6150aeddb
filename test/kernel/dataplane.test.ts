/* The data plane as the agent opens it. Needs root. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openDataplane } from "../../src/dataplane/dataplane.ts";
import { netnsCookie, projectRoot } from "../../src/dataplane/native.ts";
import { siphash } from "../../src/dataplane/siphash.ts";
import { counter, type Event, eventKind, mapTypes } from "../../src/dataplane/types.gen.ts";
import { KloakError } from "../../src/errors.ts";
import { createNamespace } from "../../src/lab/namespace.ts";

const folder = mkdtempSync(join(tmpdir(), "kloak-dataplane-"));
after(() => rmSync(folder, { recursive: true }));

const ofCode = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof KloakError && error.code === code && pattern.test(error.message);

test("all objects load, and a map of one name is one map", async () => {
  await using dataplane = await openDataplane();
  assert.deepEqual(
    [...dataplane.objects.keys()],
    [
      "wire",
      "cipher/seal",
      "cipher/openssl",
      "cipher/go",
      "cipher/gnutls",
      "cipher/java",
      "cipher/aead",
      "cipher/ring",
      "process",
    ],
  );
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

/* The addon and what src/dataplane builds on it, against the kernel at hand. Needs root. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { bytes, list, struct, u32, u64 } from "../../src/dataplane/codec.ts";
import { isNativeError, loadNative, netnsCookie, projectRoot } from "../../src/dataplane/native.ts";
import { BpfObject } from "../../src/dataplane/object.ts";
import { KloakError } from "../../src/errors.ts";
import { createNamespace } from "../../src/lab/namespace.ts";

const path = join(projectRoot, "build/test/loader.bpf.o");
const folder = mkdtempSync(join(tmpdir(), "kloak-loader-"));
after(() => rmSync(folder, { recursive: true }));

const pair = struct<{ key: number; value: number }>(8, { key: [0, u32], value: [4, u32] });
const kept = struct<{ stamp: bigint; pairs: readonly { key: number; value: number }[] }>(24, {
  stamp: [0, u64],
  pairs: [8, list(pair, 2)],
});
const prefix = struct<{ bits: number; address: Buffer }>(8, { bits: [0, u32], address: [4, bytes(4)] });
const order = struct<{ first: number; count: number; written: number; answer: number }>(16, {
  first: [0, u32],
  count: [4, u32],
  written: [8, u32],
  answer: [12, u32],
});

const value = (stamp: bigint) => ({ stamp, pairs: [{ key: 1, value: 2 }] });
const open = () => new BpfObject(path, { variables: { answer: u32.encode(42), absent: u32.encode(0) } });

function emit(object: BpfObject, first: number, count: number): { written: number; answer: number } {
  const context = order.encode({ first, count, written: 0, answer: 0 });
  const result = object.testRun("loader_emit", { context });
  assert.ok(result.context);
  return order.decode(result.context);
}

function sumOf(object: BpfObject, index: number): bigint {
  const tally = object.map("tallies", u32, u64).getRaw(u32.encode(index)) ?? Buffer.alloc(0);
  let sum = 0n;
  for (let at = 0; at < tally.length; at += 8) sum += tally.readBigUInt64LE(at);
  return sum;
}

/** A program that says when it is ready, then calls two functions for each byte that it reads; and where they are. */
function makeTouch(): { program: string; offsets: number[] } {
  const source = join(folder, "touch.c");
  const program = join(folder, "touch");
  writeFileSync(
    source,
    `#include <unistd.h>
     __attribute__((noinline)) void touch(void) { __asm__ volatile(""); }
     __attribute__((noinline)) void touch_too(void) { __asm__ volatile(""); }
     int main(void) { char byte; write(1, "r", 1); while (read(0, &byte, 1) == 1) { touch(); touch_too(); write(1, &byte, 1); } return 0; }`,
  );
  execFileSync("gcc", ["-O1", "-fcf-protection=none", "-o", program, source]);
  const symbols = execFileSync("nm", [program], { encoding: "utf8" });
  // The linker lays the text segment at equal addresses and offsets.
  const offsets = ["touch", "touch_too"].map((name) =>
    Number.parseInt(new RegExp(`^([0-9a-f]+) T ${name}$`, "m").exec(symbols)?.[1] ?? "", 16),
  );
  return { program, offsets };
}

test("read-only variables are set before load, and a syscall program's context comes back", () => {
  const object = open();
  assert.deepEqual({ ...emit(object, 0, 3) }, { first: 0, count: 3, written: 3, answer: 42 });
  object.close();
});

test("a variable of another size is refused by name", () => {
  assert.throws(
    () => new BpfObject(path, { variables: { answer: Buffer.alloc(2) } }),
    /variable answer has 4 bytes, not 2/,
  );
});

test("a classifier's test run gives its value, the packet and the context", () => {
  const object = open();
  const context = Buffer.alloc(192);
  const result = object.testRun("loader_mark", { data: Buffer.alloc(100), context });
  assert.equal(result.value, 100);
  assert.deepEqual(result.data, Buffer.concat([Buffer.from([42]), Buffer.alloc(99)]));
  assert.equal(result.context?.readUInt32LE(8), 7, "skb->mark");
  object.close();
});

test("hash maps: set, get, delete, list, clear, and errors that name the map", () => {
  const object = open();
  const map = object.map("kept", u64, kept);
  assert.equal(map.get(1n), undefined);
  assert.equal(map.delete(1n), false);
  map.set(1n, value(10n));
  assert.deepEqual(map.get(1n), {
    stamp: 10n,
    pairs: [pair.decode(pair.encode({ key: 1, value: 2 })), { key: 0, value: 0 }],
  });
  map.setMany(Array.from({ length: 1000 }, (_, index) => [BigInt(index), value(BigInt(index))] as const));
  assert.equal(map.keys().length, 1000);
  const all = new Map(map.entriesNow());
  assert.equal(all.size, 1000);
  for (const [key, one] of all) assert.equal(one.stamp, key);
  assert.throws(
    () => map.setMany(Array.from({ length: 100 }, (_, index) => [BigInt(5000 + index), value(0n)] as const)),
    (error) => isNativeError(error) && error.code === "E2BIG" && /map kept: update 25 of 100/.test(error.message),
  );
  assert.throws(() => loadNative().mapLookup(map.handle, Buffer.alloc(7)), /map kept: key has 7 bytes, not 8/);
  assert.throws(() => object.map("kept", u32, kept), /map kept: keys of 8 and values of 24 bytes/);
  map.clear();
  assert.deepEqual(map.keys(), []);
  object.close();
});

test("a sweep takes what is older, and only that", () => {
  const object = open();
  const map = object.map("kept", u64, kept);
  for (let index = 0n; index < 100n; index++) map.set(index, value(index));
  assert.equal(map.older(0, 40n).length, 40);
  assert.deepEqual(
    map.sweep(0, 40n).toSorted((one, other) => Number(one - other)),
    Array.from({ length: 40 }, (_, index) => BigInt(index)),
  );
  assert.equal(map.keys().length, 60);
  assert.deepEqual(map.sweep(0, 40n), []);
  assert.throws(() => map.sweep(20, 0n), /map kept: no u64 at offset 20/);
  object.close();
});

test("a trie of prefixes matches the longest, and is listed where the kernel has no batches", () => {
  const object = open();
  const map = object.map("prefixes", prefix, u32);
  map.set({ bits: 8, address: Buffer.from([10, 0, 0, 0]) }, 1);
  map.set({ bits: 16, address: Buffer.from([10, 1, 0, 0]) }, 2);
  assert.equal(map.get({ bits: 32, address: Buffer.from([10, 1, 2, 3]) }), 2);
  assert.equal(map.get({ bits: 32, address: Buffer.from([10, 2, 2, 3]) }), 1);
  assert.equal(map.entriesNow().length, 2);
  object.close();
});

test("a map is shared with another object by reuse, survives the object it came from, and can be pinned", () => {
  const first = open();
  const handle = first.mapHandle("kept");
  const second = new BpfObject(path, { maps: new Map([["kept", handle]]) });
  first.map("kept", u64, kept).set(5n, value(50n));
  assert.equal(second.map("kept", u64, kept).get(5n)?.stamp, 50n);
  first.close();
  assert.equal(second.map("kept", u64, kept).get(5n)?.stamp, 50n);
  // A BPF file system of its own: a machine need not have one mounted.
  const mount = mkdtempSync(join(tmpdir(), "kloak-bpf-"));
  execFileSync("mount", ["-t", "bpf", "bpf", mount]);
  try {
    const pin = join(mount, "kept");
    second.map("kept", u64, kept).pin(pin);
    second.close();
    const third = new BpfObject(path, { maps: new Map([["kept", loadNative().mapOpen(pin, "kept")]]) });
    assert.equal(third.map("kept", u64, kept).get(5n)?.stamp, 50n);
    third.close();
  } finally {
    execFileSync("umount", [mount]);
    rmdirSync(mount);
  }
});

test("the ring gives every sample, in order, in batches, also more than one turn of the loop takes", async () => {
  const object = open();
  const samples = object.mapHandle("samples");
  const seen: number[] = [];
  let batches = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const deadline = setTimeout(() => reject(new Error(`only ${seen.length} samples came`)), 10_000);
  const ring = loadNative().ringOpen(samples, (batch) => {
    batches++;
    seen.push(...batch.map((sample) => sample.readUInt32LE(0)));
    // What is written from within the handler comes too.
    if (seen.length === 200) assert.equal(emit(object, 200, 100).written, 100);
    if (seen.length === 300) resolve();
  });
  assert.equal(emit(object, 0, 200).written, 200);
  await promise;
  clearTimeout(deadline);
  loadNative().ringClose(ring);
  loadNative().ringClose(ring);
  assert.deepEqual(
    seen,
    Array.from({ length: 300 }, (_, index) => index),
  );
  assert.ok(batches >= 2);
  object.close();
});

test("a ring that nobody closed does not keep the process, and an error in its handler is an uncaught exception", () => {
  const script = join(folder, "ring.ts");
  const lines = (body: string) => `
    import { loadNative } from ${JSON.stringify(join(projectRoot, "src/dataplane/native.ts"))};
    import { BpfObject } from ${JSON.stringify(join(projectRoot, "src/dataplane/object.ts"))};
    const object = new BpfObject(${JSON.stringify(path)});
    ${body}
    const context = Buffer.alloc(16);
    context.writeUInt32LE(1, 4);
    object.testRun("loader_emit", { context });`;
  writeFileSync(
    script,
    lines(
      `const ring = loadNative().ringOpen(object.mapHandle("samples"), () => { console.log("sample"); ring && process.exit(3); });`,
    ),
  );
  assert.throws(
    () => execFileSync(process.execPath, [script], { stdio: "pipe" }),
    (error: Error & { status?: number; stdout?: Buffer }) => error.status === 3 && String(error.stdout) === "sample\n",
  );
  writeFileSync(
    script,
    lines(`loadNative().ringReference(loadNative().ringOpen(object.mapHandle("samples"), () => undefined), false);`),
  );
  execFileSync(process.execPath, [script], { stdio: "pipe" });
  writeFileSync(
    script,
    lines(`loadNative().ringOpen(object.mapHandle("samples"), () => { throw new Error("mine"); });`),
  );
  assert.throws(
    () => execFileSync(process.execPath, [script], { stdio: "pipe" }),
    (error: Error & { status?: number; stderr?: Buffer }) => error.status !== 0 && /mine/.test(String(error.stderr)),
  );
});

test("a uprobe hears every process that runs the function, or one only, until its link is closed", async () => {
  const { program, offsets } = makeTouch();
  const object = open();
  const children = [spawn(program), spawn(program)];
  const answers = children.map((child) => child.stdout[Symbol.asyncIterator]());
  const say = async (index: number, text: string) => {
    children[index]?.stdin.write(text);
    for (let got = 0; got < text.length; ) got += String((await answers[index]?.next())?.value).length;
  };
  try {
    await say(0, "");
    for (const answer of answers) assert.equal(String((await answer.next()).value), "r");
    const link = object.attachUprobe("loader_touched", program, offsets);
    await say(0, "ab");
    await say(1, "c");
    assert.equal(sumOf(object, 1), 6n);
    link.close();
    await say(0, "d");
    assert.equal(sumOf(object, 1), 6n);
    const one = object.attachUprobe("loader_touched", program, offsets.slice(0, 1), children[1]?.pid);
    await say(0, "e");
    await say(1, "f");
    assert.equal(sumOf(object, 1), 7n);
    one.close();
  } finally {
    for (const child of children) child.kill();
    object.close();
  }
});

test("a uprobe that cannot be attached says to which file and where", () => {
  const object = open();
  assert.throws(
    () => object.attachUprobe("loader_touched", join(folder, "absent"), [16]),
    (error) =>
      isNativeError(error) && error.code === "ENOENT" && /loader_touched .*absent at offset 0x10/.test(error.message),
  );
  assert.throws(() => object.attachUprobe("nothing", path, [16]), /program nothing/);
  object.close();
});

test("classifiers stay on the interface when the object is closed, and go when detached", () => {
  const namespace = createNamespace();
  try {
    const native = loadNative();
    const place = { handle: 9, priority: 3 };
    const object = open();
    object.attachTc("loader_mark", 1, "ingress", place, namespace.path);
    object.attachTc("loader_mark", 1, "egress", place, namespace.path);
    const { id } = object.program("loader_mark");
    object.attachTc("loader_mark", 1, "ingress", place, namespace.path);
    object.close();
    assert.equal(native.tcQuery(1, "ingress", 9, 3, namespace.path), id);
    assert.equal(native.tcQuery(1, "egress", 9, 3, namespace.path), id);
    assert.equal(native.tcQuery(1, "egress", 8, 3, namespace.path), 0);
    assert.equal(native.tcDetach(1, "ingress", 9, 3, namespace.path), true);
    assert.equal(native.tcDetach(1, "ingress", 9, 3, namespace.path), false);
    assert.equal(native.tcQuery(1, "ingress", 9, 3, namespace.path), 0);
    assert.equal(native.tcDetach(9999, "ingress", 9, 3, namespace.path), false);
  } finally {
    namespace.close();
  }
});

test("the cookie of a network namespace is its own, and reading another's moves nothing", () => {
  const namespace = createNamespace();
  try {
    const here = netnsCookie();
    assert.notEqual(netnsCookie(namespace.path), here);
    assert.equal(netnsCookie(namespace.path), netnsCookie(namespace.path));
    assert.equal(netnsCookie("/proc/self/ns/net"), here);
    assert.throws(() => netnsCookie("/proc/self/ns/absent"), /network namespace .*absent/);
  } finally {
    namespace.close();
  }
});

test("an object that does not load says why", () => {
  assert.throws(
    () => new BpfObject(join(projectRoot, "build/test/loader-rejected.bpf.o")),
    (error) =>
      error instanceof KloakError &&
      error.code === "bad-object" &&
      /invalid access to map value/.test(error.message) &&
      isNativeError(error.cause) &&
      /loader_rejected/.test(error.cause.log ?? ""),
  );
  assert.throws(
    () => new BpfObject(join(folder, "absent.bpf.o")),
    (error) => error instanceof KloakError && error.code === "no-object" && /npm run build/.test(error.message),
  );
  writeFileSync(join(folder, "text.bpf.o"), "no object");
  assert.throws(() => new BpfObject(join(folder, "text.bpf.o")), /cannot be opened/);
});

test("handles are what they say, and a closed one is refused", () => {
  const native = loadNative();
  const object = open();
  const map = object.mapHandle("kept");
  assert.throws(() => native.objectInfo(map as never), /not a handle of a object/);
  assert.throws(() => native.mapKeys({} as never), /not a handle of a map/);
  native.mapClose(map);
  native.mapClose(map);
  assert.throws(() => native.mapKeys(map), /map kept is closed/);
  object.close();
  object.close();
  assert.throws(() => object.testRun("loader_mark"), /is closed/);
});

test("nothing is left open: descriptors are as many after a hundred objects as before", () => {
  const count = () => readdirSync("/proc/self/fd").length;
  const { program, offsets } = makeTouch();
  const cycle = () => {
    const object = open();
    const map = object.map("kept", u64, kept);
    const link = object.attachUprobe("loader_touched", program, offsets);
    link.close();
    map.close();
    object.close();
    assert.throws(() => new BpfObject(join(projectRoot, "build/test/loader-rejected.bpf.o")), /cannot be loaded/);
  };
  cycle();
  const before = count();
  for (let index = 0; index < 100; index++) cycle();
  assert.equal(count(), before);
});

/*
 * The promise: where a table has no room a record goes out as it is or waits, never half patched, never in two versions;
 * a counter or the audit trail says so; whoever was there before is served as ever; and room that is made is used. All
 * tables have their real size. Needs root.
 */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { counter, flowKeyCodec } from "../../src/dataplane/types.gen.ts";
import type { Cipher, Sealed } from "../wire/cipher.ts";
import { type Connection, host, Lab, secret, workload } from "../wire/lab.ts";
import { uint64 } from "../wire/kernel.ts";
import { interfaceRow } from "../wire/rows.ts";
import { frame, mappedAddress } from "../wire/packets.ts";

const lab = new Lab();
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

const edits = [{ secret, offset: 40, length: 30 }];
const capacity = { flows: 100_000, outstanding: 16_384, hellos: 8_192, fragments: 1_024 };
/** Whose interface the packets come from: that of `workload` unless a test says otherwise. */
function sendAs(number: number): void {
  lab.kernel.table("interfaces").set(Buffer.from([1, 0, 0, 0]), interfaceRow(number));
}

function counted(which: number): bigint {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(which);
  const values = lab.kernel.table("counters").get(key) ?? Buffer.alloc(0);
  let sum = 0n;
  for (let at = 0; at < values.length; at += 8) sum += values.readBigUInt64LE(at);
  return sum;
}

/** Sends a request: whether it left patched, as written, or not at all. */
function outcome({ connection, cipher }: { connection: Connection; cipher: Cipher }): string {
  const request: Sealed = cipher.seal({ edits, host });
  const left = connection.send(request.sent);
  if (left === undefined) return "held";
  if (left.equals(request.patched)) return "patched";
  return left.equals(request.sent) ? "inert" : "wrong";
}

async function reasons(): Promise<string[]> {
  return (await lab.events()).filter(({ kind }) => kind === "refused").map(({ reason }) => reason);
}

/** Enters rows of zeros under numbers that no flow has, until there is no room. */
function fill(name: "outstanding" | "hellos"): void {
  const table = lab.kernel.table(name);
  const row = Buffer.alloc(table.valueBytes);
  const used = table.entries().length;
  for (let i = 0; i < capacity[name] - used; i++) table.set(uint64(BigInt(i)), row);
  assert.throws(() => table.set(uint64(2n ** 63n), row), { code: "E2BIG" });
}

/** Opens connections as this workload until there is no room for one more; says how many there was room for. */
function openAll(number: number): number {
  const before = counted(counter.flowsFull);
  sendAs(number);
  for (let opened = 0; ; opened++) {
    const source = `198.18.${number}.${Math.floor(opened / 5_000)}`;
    const ports = { sourcePort: 10_000 + (opened % 5_000), destinationPort: 443 };
    const syn = frame({ source, destination: "192.0.2.1", ...ports, sequence: 7, flags: ["syn"] });
    assert.ok(lab.kernel.run("wire_egress", syn).pass);
    if (counted(counter.flowsFull) !== before) return opened;
  }
}

test("connections without end: a workload gets a third of the table, and those after it a third of the rest each", async () => {
  const old = lab.tls13();
  let free = capacity.flows;
  for (const number of [21, 22, 23, 24, 25]) {
    const opened = openAll(number);
    assert.ok(Math.abs(opened - free / 3) <= 2, `workload ${number}: ${opened} of ${free} that were free`);
    free -= opened;
  }
  /* 25 has its share, whose later connections are inert and told so; others have room. */
  assert.deepEqual(await reasons(), []);
  assert.equal(outcome(lab.tls13()), "inert");
  assert.deepEqual(await reasons(), ["tables-full"]);
  sendAs(workload);
  assert.equal(outcome(old), "patched");
  assert.equal(outcome(lab.tls13()), "patched");
});

test("100,000 connections, and nothing counted: those that have a row are served, a later one is inert", async () => {
  const old = lab.tls13();
  const table = lab.kernel.table("flows");
  const row = Buffer.alloc(table.valueBytes);
  const free = capacity.flows - table.entries().length;
  const source = mappedAddress("198.18.0.0");
  const key = (i: number) => ({
    ...{ workload: 99, source, destination: source },
    ...{ sourcePort: i % 50_000, destinationPort: Math.floor(i / 50_000) },
  });
  for (let i = 0; i < free; i++) table.set(flowKeyCodec.encode(key(i)), row);
  const before = counted(counter.flowsFull);
  assert.equal(outcome(old), "patched");
  const late = lab.tls13();
  assert.ok(counted(counter.flowsFull) > before);
  assert.equal(outcome(late), "inert");
  assert.deepEqual((await reasons()).slice(0, 1), ["tables-full"]);
  /* A row that time has freed (src/dataplane/sweeper.ts) serves the next. */
  assert.ok(table.delete(flowKeyCodec.encode(key(0))));
  assert.equal(outcome(lab.tls13()), "patched");
});

test("no room for a ClientHello: the connection is inert, and the audit trail says why", async () => {
  const old = lab.tls13();
  fill("hellos");
  const late = lab.tls13();
  assert.equal(outcome(late), "inert");
  assert.equal(outcome(old), "patched");
  assert.deepEqual(await reasons(), ["tables-full"]);
  lab.kernel.table("hellos").delete(uint64(0n));
  assert.equal(outcome(lab.tls13()), "patched");
});

test("no room for what is to be patched again: the record is inert, the next one may be patched", async () => {
  const old = lab.tls13();
  assert.equal(outcome(old), "patched");
  fill("outstanding");
  const late = lab.tls13();
  assert.equal(outcome(late), "inert");
  assert.equal(outcome(old), "patched");
  assert.deepEqual(await reasons(), ["tables-full"]);
  lab.kernel.table("outstanding").delete(uint64(0n));
  assert.equal(outcome(late), "patched");
});

test("the end of a connection frees its row of what is to be patched again", () => {
  const { connection, cipher } = lab.tls13();
  connection.send(cipher.seal({ edits, host }).sent);
  assert.equal(lab.kernel.table("outstanding").entries().length, 1);
  connection.segment(connection.sent, new Uint8Array(), ["rst", "ack"]);
  for (const name of ["outstanding", "patches", "region_chunks"]) {
    assert.deepEqual(lab.kernel.table(name).entries(), [], name);
  }
});

test("more fragmented datagrams than are remembered: what is forgotten does not pass", () => {
  const ends = { source: "198.51.100.9", destination: "192.0.2.1", sourcePort: 999, destinationPort: 443 };
  const payload = Buffer.alloc(100, 1);
  const fragment = (identification: number, offset: number, end?: number): boolean => {
    const piece = end === undefined ? { identification, offset } : { identification, offset, end };
    return lab.kernel.run("wire_egress", frame({ ...ends, sequence: 1, payload }, { fragment: piece })).pass;
  };
  for (let i = 0; i < 8 * capacity.fragments; i++) assert.ok(fragment(i, 0, 40));
  assert.equal(fragment(0, 40), false);
  assert.ok(fragment(8 * capacity.fragments - 1, 40));
});

test("nobody reads what is reported: records are patched all the same, and the reports that are lost are counted", async () => {
  const { connection, cipher } = lab.tls13();
  const before = counted(counter.eventsLost);
  const rounds = 12_000; /* of some 400 bytes, into 2 MiB */
  for (let i = 0; i < rounds; i++) {
    const request = cipher.seal({ edits, host });
    assert.deepEqual(connection.send(request.sent), request.patched);
    connection.acknowledge(connection.sent);
  }
  const lost = Number(counted(counter.eventsLost) - before);
  assert.ok(lost > 0, "the ring has room for less");
  assert.equal((await lab.events()).length + lost, rounds);
});

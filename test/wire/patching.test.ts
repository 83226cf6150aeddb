import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, beforeEach, test } from "node:test";
import type { Connection, ConnectionOptions, Left } from "./lab.ts";
import { host, Lab, secret } from "./lab.ts";
import * as rows from "./rows.ts";

const lab = new Lab();
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

const edit = { secret, offset: 40, length: 30 };
const edits = [edit];

async function substitutions(): Promise<number> {
  return (await lab.events()).filter(({ kind }) => kind === "substituted").length;
}

/** Sends `bytes` cut at the given offsets; what left, or undefined if any piece was dropped. */
function sendCut(connection: Connection, bytes: Buffer, cuts: readonly number[]): Left {
  const ends = [...cuts, bytes.length];
  const pieces = ends.map((end, i) => connection.send(bytes.subarray(i === 0 ? 0 : ends[i - 1], end)));
  return pieces.some((piece) => piece === undefined) ? undefined : Buffer.concat(pieces as Buffer[]);
}

test("a request's record leaves patched, and says so once", async () => {
  const { connection, cipher } = lab.tls13();
  const request = cipher.seal({ edits, host });
  assert.deepEqual(connection.send(request.sent), request.patched);
  assert.deepEqual(connection.segment(connection.sent - request.sent.length, request.sent), request.patched);
  const events = await lab.events();
  assert.equal(events.length, 1);
  assert.deepEqual([events[0]?.kind, events[0]?.secret, events[0]?.host], ["substituted", secret, host]);
});

test("requests follow each other on one connection, with bodies between them", async () => {
  for (const start of [() => lab.tls13(), () => lab.tls12(), () => lab.tls12({ algorithm: rows.algorithm.chacha20 })]) {
    const { connection, cipher } = start();
    for (let i = 0; i < 20; i++) {
      const request = cipher.seal({ edits, host });
      const body = cipher.seal({ length: 1 + i * 37 });
      assert.deepEqual(connection.send(request.sent), request.patched);
      assert.deepEqual(connection.send(body.sent), body.sent);
      connection.acknowledge(connection.sent);
    }
    assert.equal(await substitutions(), 20);
  }
});

const shapes: readonly (readonly [name: string, options: ConnectionOptions])[] = [
  ["IPv6", { destination: "2001:db8::1" }],
  ["IPv4 options", { wrapping: { ipOptions: Buffer.from([1, 1, 1, 0, 7, 4, 4, 0]) } }],
  ["TCP options", { wrapping: { tcpOptions: Buffer.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]) } }],
  ["a VLAN tag", { wrapping: { vlan: [0x8100] } }],
  ["two VLAN tags", { wrapping: { vlan: [0x88a8, 0x8100] } }],
  ["padding after the IP packet", { wrapping: { padding: 9 } }],
  ["sequence numbers that wrap in the request", { sequence: 2 ** 32 - 400 }],
  ["sequence numbers that wrap in the handshake", { sequence: 2 ** 32 - 20 }],
  ["sequence numbers that wrap at their sign", { sequence: 2 ** 31 - 400 }],
  [
    "IPv6 extension headers",
    {
      destination: "2001:db8::1",
      wrapping: {
        extensions: [
          { type: 0, body: Buffer.from([0, 1, 4, 0, 0, 0, 0]) },
          { type: 60, body: Buffer.from([1, 1, 12, ...Buffer.alloc(12)]) },
          { type: 43, body: Buffer.from([0, 4, 0, 0, 0, 0, 0]) },
        ],
      },
    },
  ],
  [
    "an atomic IPv6 fragment",
    { destination: "2001:db8::1", wrapping: { extensions: [{ type: 44, body: Buffer.from([0, 0, 0, 0, 0, 0, 9]) }] } },
  ],
];
for (const [name, options] of shapes) {
  test(`packets with ${name} are patched, at any cut`, () => {
    for (let cut = 1; cut < 140; cut += 3) {
      const { connection, cipher } = lab.tls13({ ...options, sourcePort: 1000 + cut });
      const request = cipher.seal({ edits, host });
      assert.deepEqual(sendCut(connection, request.sent, [cut]), request.patched);
    }
  });
}

for (const [name, start] of [
  ["TLS 1.3", () => lab.tls13()],
  ["TLS 1.2 with AES-GCM", () => lab.tls12()],
  ["TLS 1.2 with ChaCha20-Poly1305", () => lab.tls12({ algorithm: rows.algorithm.chacha20 })],
] as const) {
  test(`${name}: a record may be cut between any two bytes`, () => {
    for (let cut = 1; cut < 5 + 8 + 120 + 16; cut++) {
      const { connection, cipher } = start();
      const request = cipher.seal({ edits, host });
      if (cut >= request.sent.length) break;
      assert.deepEqual(sendCut(connection, request.sent, [cut]), request.patched, `cut at ${cut}`);
      const next = cipher.seal({ edits, host, length: 99 });
      assert.deepEqual(sendCut(connection, next.sent, [Math.min(cut, 50)]), next.patched, `next, cut at ${cut}`);
    }
  });

  test(`${name}: a stream may come byte by byte`, async () => {
    const { connection, cipher } = start();
    for (let i = 0; i < 3; i++) {
      const request = cipher.seal({ edits, host, length: 120 + i });
      const all = Array.from({ length: request.sent.length - 1 }, (_, at) => at + 1);
      assert.deepEqual(sendCut(connection, request.sent, all), request.patched);
    }
    assert.equal(await substitutions(), 3);
  });
}

test("a retransmission with other boundaries gets the same patch", async () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const records = [
    cipher.seal({ edits, host }),
    cipher.seal({ length: 70 }),
    cipher.seal({ edits, host, length: 333 }),
  ];
  const sent = Buffer.concat(records.map((record) => record.sent));
  const patched = Buffer.concat(records.map((record) => record.patched));
  assert.deepEqual(connection.send(sent), patched);
  for (let i = 0; i < 300; i++) {
    const from = randomInt(sent.length);
    const to = from + 1 + randomInt(sent.length - from);
    assert.deepEqual(connection.segment(before + from, sent.subarray(from, to)), patched.subarray(from, to));
  }
  assert.equal(await substitutions(), 2);
});

test("a segment that repeats old bytes and goes on with new ones is patched in both", async () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const one = cipher.seal({ edits, host });
  const two = cipher.seal({ edits, host });
  connection.send(one.sent);
  const both = Buffer.concat([one.sent, two.sent]);
  assert.deepEqual(
    connection.segment(before + 30, both.subarray(30)),
    Buffer.concat([one.patched, two.patched]).subarray(30),
  );
});

test("records of every size, with regions of every size", async () => {
  const { connection, cipher } = lab.tls13();
  for (const length of [17, 18, 31, 32, 33, 255, 256, 257, 512, 1000, 1400]) {
    for (const size of [1, 2, 15, 16, 17]) {
      const request = cipher.seal({ length, host, edits: [{ secret, offset: length - size, length: size }] });
      assert.deepEqual(connection.send(request.sent), request.patched, `${size} bytes at the end of ${length}`);
      connection.acknowledge(connection.sent);
    }
  }
});

test("four edits in one record are applied together", async () => {
  const { connection, cipher } = lab.tls13();
  const four = [20, 300, 301, 700].map((offset, i) => ({ secret, offset, length: i === 1 ? 1 : 20 }));
  const request = cipher.seal({ length: 900, host, edits: four });
  assert.deepEqual(sendCut(connection, request.sent, [310, 311, 706]), request.patched);
  assert.equal(await substitutions(), 4);
});

test("one record over many packets, many records in one packet", async () => {
  const { connection, cipher } = lab.tls13();
  const long = cipher.seal({ length: 16384, host, edits: [{ secret, offset: 12000, length: 64 }] });
  const cuts = Array.from({ length: Math.floor(long.sent.length / 1400) }, (_, i) => (i + 1) * 1400);
  assert.deepEqual(sendCut(connection, long.sent, cuts), long.patched);
  connection.acknowledge(connection.sent);
  const many = Array.from({ length: 40 }, (_, i) =>
    cipher.seal(i % 4 ? { length: 1 + i } : { length: 60, host, edits: [{ secret, offset: 10, length: 44 }] }),
  );
  assert.deepEqual(
    connection.send(Buffer.concat(many.map(({ sent }) => sent))),
    Buffer.concat(many.map(({ patched }) => patched)),
  );
});

test("the peer's acknowledgement frees all that was kept for the record", async () => {
  const { connection, cipher } = lab.tls13();
  const sizes = (): number[] =>
    ["patches", "region_chunks", "fingerprints"].map((name) => lab.kernel.table(name).entries().length);
  const request = cipher.seal({ edits, host, length: 700, regionBytes: 600 });
  connection.send(request.sent);
  assert.deepEqual(sizes(), [1, 3, 0]);
  connection.acknowledge(connection.sent - 1);
  assert.deepEqual(sizes(), [1, 3, 0], "not all of it has arrived");
  connection.acknowledge(connection.sent + 5000);
  assert.deepEqual(sizes(), [1, 3, 0], "acknowledges what was never sent");
  connection.acknowledge(connection.sent);
  assert.deepEqual(sizes(), [0, 0, 0]);
});

test("a late copy of a patched record does not leave unpatched after its acknowledgement", async () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  connection.send(request.sent);
  connection.acknowledge(connection.sent);
  assert.deepEqual(connection.segment(before, request.sent), Buffer.alloc(request.sent.length));
  const last = request.sent.length - 1;
  assert.deepEqual(
    connection.segment(before + last, request.sent.subarray(last)),
    Buffer.from([0]),
    "keep-alive probe",
  );
  assert.deepEqual(connection.segment(before + last, new Uint8Array()), Buffer.alloc(0));
  const next = cipher.seal({ edits, host });
  assert.deepEqual(connection.send(next.sent), next.patched);
});

test("a missing segment holds what follows it", async () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  assert.equal(connection.segment(before + 60, request.sent.subarray(60)), undefined);
  assert.deepEqual(connection.segment(before, request.sent.subarray(0, 60)), request.patched.subarray(0, 60));
  assert.deepEqual(connection.segment(before + 60, request.sent.subarray(60)), request.patched.subarray(60));
});

test("when sixteen patches wait for the peer the seventeenth is held until one is acknowledged", async () => {
  const { connection, cipher } = lab.tls13();
  const requests = Array.from({ length: 17 }, () => cipher.seal({ edits, host }));
  const starts = requests.map(({ sent, patched }, i) => {
    const start = connection.sent;
    const left = connection.send(sent);
    if (i < 16) assert.deepEqual(left, patched);
    else assert.equal(left, undefined);
    return start;
  });
  connection.acknowledge(starts[1] ?? 0);
  assert.deepEqual(connection.segment(starts[16] ?? 0, requests[16]?.sent ?? Buffer.alloc(0)), requests[16]?.patched);
});

test("a record whose first bytes are not what was parsed goes on unpatched", async () => {
  const { connection, cipher } = lab.tls13();
  const request = cipher.seal({ edits, host });
  const forged = Buffer.from(request.sent);
  forged[5 + 30] = (forged[5 + 30] ?? 0) ^ 1;
  assert.deepEqual(connection.send(forged), forged);
  const events = await lab.events();
  assert.deepEqual(
    events.map(({ kind, reason }) => [kind, reason]),
    [["refused", "unproven-record"]],
  );
});

test("a record that changes after a patched byte has left does not leave at all", async () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits: [{ secret, offset: 40, length: 60 }], host });
  assert.deepEqual(connection.send(request.sent.subarray(0, 60)), request.patched.subarray(0, 60));
  const forged = Buffer.from(request.sent.subarray(60));
  forged[10] = (forged[10] ?? 0) ^ 1;
  assert.equal(connection.send(forged), undefined);
  const old = Buffer.from(request.sent.subarray(0, 60));
  old[50] = (old[50] ?? 0) ^ 1;
  assert.equal(connection.segment(before, old), undefined);
  assert.deepEqual(connection.segment(before + 60, request.sent.subarray(60)), request.patched.subarray(60));
});

test("a reset ends it: nothing leaves until the ports are used anew", async () => {
  const { connection, cipher } = lab.tls13({ sourcePort: 999 });
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  connection.send(request.sent);
  connection.segment(connection.sent, new Uint8Array(), ["rst", "ack"]);
  assert.equal(connection.segment(before, request.sent), undefined);
  assert.deepEqual(lab.kernel.table("outstanding").entries(), []);
  const again = lab.tls13({ sourcePort: 999 });
  const other = again.cipher.seal({ edits, host });
  assert.deepEqual(again.connection.send(other.sent), other.patched);
});

test("ports that are used anew begin a new flow, even while patches of the old one wait", () => {
  const one = lab.tls13({ sourcePort: 999 });
  one.connection.send(one.cipher.seal({ edits, host }).sent, ["ack", "fin"]);
  one.connection.acknowledge(10, ["fin", "ack"]);
  const two = lab.tls13({ sourcePort: 999 });
  const request = two.cipher.seal({ edits, host });
  assert.deepEqual(two.connection.send(request.sent), request.patched);
  assert.equal(lab.kernel.table("patches").entries().length, 1);
});

test("a reset with text is no way around the patch of a copy", () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  connection.send(request.sent);
  assert.equal(connection.segment(before, request.sent, ["rst", "ack"]), undefined);
});

test("an acknowledgement of a byte that has not been sent yet does not end the record's patch", () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  const last = request.sent.length - 1;
  assert.deepEqual(connection.segment(before, request.sent.subarray(0, last)), request.patched.subarray(0, last));
  connection.acknowledge(before + last + 1); /* one more than has left, as after a FIN */
  assert.deepEqual(connection.segment(before + last, request.sent.subarray(last)), request.patched.subarray(last));
});

test("what follows a record may be no TLS: its copies are still patched, and wiped once acknowledged", () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits, host });
  const all = Buffer.concat([request.sent, Buffer.from("no TLS at all")]);
  const expected = Buffer.concat([request.patched, all.subarray(request.sent.length)]);
  assert.deepEqual(connection.send(all), expected);
  for (let i = 0; i < 3; i++) assert.deepEqual(connection.segment(before, all), expected);
  connection.acknowledge(connection.sent);
  const wiped = Buffer.alloc(request.sent.length);
  for (let i = 0; i < 3; i++) assert.deepEqual(connection.segment(before, request.sent), wiped);
});

test("a refused record leaves nothing in the tables", () => {
  const { connection, cipher } = lab.tls13();
  connection.send(cipher.seal().sent);
  const refused = cipher.seal({ reason: rows.reason.slotNotAllowed, regionBytes: 0 });
  assert.deepEqual(connection.send(refused.sent), refused.sent);
  for (const name of ["patches", "fingerprints"]) assert.deepEqual(lab.kernel.table(name).entries(), []);
});

import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import type { Cipher, SealOptions, Sealed } from "./cipher.ts";
import * as tls from "./client-hello.ts";
import type { Connection } from "./lab.ts";
import { host, Lab, secret, workload } from "./lab.ts";
import { frame } from "./packets.ts";
import * as rows from "./rows.ts";

const lab = new Lab();
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

const edit = { secret, offset: 40, length: 30 };
const proofs = Object.entries(rows.proof);

interface Talk {
  readonly connection: Connection;
  readonly cipher: Cipher;
}

/** Sends a request with a placeholder under each strength of proof, and says what became of it. */
async function verdicts({ connection, cipher }: Talk, options: SealOptions = {}): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for (const [name, proof] of proofs) {
    all[name] = await verdict(connection, cipher.seal({ edits: [{ ...edit, proof }], host, ...options }));
  }
  return all;
}

async function verdict(connection: Connection, request: Sealed): Promise<string> {
  await lab.events();
  const left = connection.send(request.sent);
  const events = await lab.events();
  assert.equal(events.length, 1);
  if (left?.equals(request.patched)) {
    assert.equal(events[0]?.kind, "substituted");
    return "patched";
  }
  assert.deepEqual(left, request.sent);
  assert.equal(events[0]?.kind, "refused");
  return events[0]?.reason ?? "";
}

const proven = { flow: "patched", record: "patched", none: "patched" };
const unprovenFlow = { flow: "unproven-flow", record: "patched", none: "patched" };

function hello(connection: Connection, ...more: readonly tls.Extension[]): void {
  connection.send(tls.record(22, tls.clientHello([tls.serverName(host), ...more])));
}

/** Ways to begin, or to go on, that the proof of the flow must or must not survive. */
const stories: readonly (readonly [string, Record<string, string>, () => Talk])[] = [
  ["TLS 1.3", proven, () => lab.tls13()],
  ["TLS 1.2", proven, () => lab.tls12()],
  ["TLS 1.2 with ChaCha20-Poly1305", proven, () => lab.tls12({ algorithm: rows.algorithm.chacha20 })],
  [
    "TLS 1.2 resumed: Finished follows ClientHello",
    proven,
    () => {
      const connection = lab.connect();
      hello(connection);
      const cipher = lab.cipher({ version: rows.version.tls12 });
      connection.send(Buffer.concat([tls.changeCipherSpec, cipher.seal({ type: 22, length: 16 }).sent]));
      return { connection, cipher };
    },
  ],
  [
    "TLS 1.3 without ChangeCipherSpec, its Finished unheard",
    proven,
    () => {
      const connection = lab.connect();
      hello(connection);
      connection.send(lab.cipher().seal({ type: 22, unheard: true }).sent);
      return { connection, cipher: lab.cipher() };
    },
  ],
  [
    "an alert in the clear during the handshake",
    proven,
    () => {
      const connection = lab.connect();
      hello(connection);
      connection.send(tls.record(21, Buffer.from([1, 90])));
      connection.send(lab.cipher().seal({ type: 22 }).sent);
      return { connection, cipher: lab.cipher() };
    },
  ],
  [
    "a client certificate: two encrypted records before the first",
    unprovenFlow,
    () => {
      const connection = lab.connect();
      hello(connection);
      const handshake = lab.cipher();
      connection.send(Buffer.concat([handshake.seal({ type: 22 }).sent, handshake.seal({ type: 22 }).sent]));
      return { connection, cipher: lab.cipher() };
    },
  ],
  [
    "no encrypted record before the first",
    unprovenFlow,
    () => {
      const connection = lab.connect();
      hello(connection);
      return { connection, cipher: lab.cipher() };
    },
  ],
  [
    "an unheard record after the Finished",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal({ unheard: true }).sent);
      return talk;
    },
  ],
  [
    "an unheard record after the Finished, TLS 1.2",
    unprovenFlow,
    () => {
      const talk = lab.tls12();
      talk.connection.send(talk.cipher.seal({ unheard: true }).sent);
      return talk;
    },
  ],
  [
    "an unheard Finished, TLS 1.2",
    unprovenFlow,
    () => {
      const connection = lab.connect();
      hello(connection);
      connection.send(tls.record(22, tls.handshake(16, Buffer.alloc(66, 1))));
      const cipher = lab.cipher({ version: rows.version.tls12 });
      connection.send(Buffer.concat([tls.changeCipherSpec, cipher.seal({ type: 22, unheard: true }).sent]));
      cipher.seal({ type: 22 });
      return { connection, cipher };
    },
  ],
  [
    "an unheard record later on",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ unheard: true }).sent);
      return talk;
    },
  ],
  [
    "a heard record that never leaves",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.cipher.seal({ length: 77 });
      return talk;
    },
  ],
  [
    "two heard records that leave in the other order",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      const [one, two] = [talk.cipher.seal(), talk.cipher.seal()];
      talk.connection.send(Buffer.concat([two.sent, one.sent]));
      return talk;
    },
  ],
  ...[0, 30, 60, 119].map((at): readonly [string, Record<string, string>, () => Talk] => [
    `a body that differs in byte ${at}, which is ${at < 16 || at >= 112 ? "" : "not "}hashed`,
    at < 16 || at >= 112 ? unprovenFlow : proven,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      const body = talk.cipher.seal({ length: 120 });
      body.sent[body.start + at] = (body.sent[body.start + at] ?? 0) ^ 1;
      talk.connection.send(body.sent);
      return talk;
    },
  ]),
  [
    "a body of another length",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      const { sent } = talk.cipher.seal({ length: 120 });
      talk.connection.send(tls.record(23, sent.subarray(5, sent.length - 1)));
      return talk;
    },
  ],
  [
    "a mark that says the cipher side could not follow",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal({ flags: rows.markFlag.unproven }).sent);
      return talk;
    },
  ],
  [
    "renegotiation",
    unprovenFlow,
    () => {
      const talk = lab.tls12();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ type: 22, length: 200 }).sent);
      return talk;
    },
  ],
  [
    "a heard alert, TLS 1.2",
    proven,
    () => {
      const talk = lab.tls12();
      talk.connection.send(talk.cipher.seal({ type: 21, length: 2 }).sent);
      return talk;
    },
  ],
  [
    "early data",
    unprovenFlow,
    () => {
      const connection = lab.connect();
      hello(connection, tls.earlyData);
      connection.send(lab.cipher().seal({ length: 60 }).sent);
      connection.send(lab.cipher().seal({ type: 22 }).sent);
      return { connection, cipher: lab.cipher() };
    },
  ],
  [
    "early data offered but not sent",
    unprovenFlow,
    () => lab.tls13({ hello: tls.clientHello([tls.serverName(host), tls.earlyData]) }),
  ],
  [
    "ChangeCipherSpec after the Finished",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(tls.changeCipherSpec);
      return talk;
    },
  ],
  [
    "a ClientHello after application data",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      hello(talk.connection);
      return talk;
    },
  ],
  [
    "TLS 1.2 claimed to be TLS 1.3, an unheard record first",
    unprovenFlow,
    () => {
      const connection = lab.connect();
      hello(connection);
      connection.send(tls.record(22, tls.handshake(16, Buffer.alloc(66, 1))));
      const real = lab.cipher({ version: rows.version.tls12, algorithm: rows.algorithm.chacha20 });
      connection.send(Buffer.concat([tls.changeCipherSpec, real.seal({ type: 22, unheard: true }).sent]));
      connection.send(real.seal({ unheard: true }).sent);
      return { connection, cipher: lab.cipher({ algorithm: rows.algorithm.chacha20 }) };
    },
  ],
  [
    "KeyUpdate between two requests",
    proven,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ type: 22, length: 6, flags: rows.markFlag.idleAfter }).sent);
      return { connection: talk.connection, cipher: lab.cipher() };
    },
  ],
  [
    "a handshake record that is no KeyUpdate: the same key goes on",
    proven,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ type: 22, length: 66, flags: rows.markFlag.idleAfter }).sent);
      return talk;
    },
  ],
  [
    "KeyUpdate in a request",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ type: 22, length: 6 }).sent);
      return { connection: talk.connection, cipher: lab.cipher() };
    },
  ],
  [
    "an unheard record after a KeyUpdate",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      talk.connection.send(talk.cipher.seal({ type: 22, length: 6, flags: rows.markFlag.idleAfter }).sent);
      const cipher = lab.cipher();
      talk.connection.send(cipher.seal({ unheard: true }).sent);
      return { connection: talk.connection, cipher };
    },
  ],
  [
    "a new key without a KeyUpdate",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      return { connection: talk.connection, cipher: lab.cipher() };
    },
  ],
  [
    "600 heard records, as many as the ring holds at most on their way",
    proven,
    () => {
      const talk = lab.tls13();
      for (let i = 0; i < 600; i++) talk.connection.send(talk.cipher.seal({ length: 20 + (i % 50) }).sent);
      return talk;
    },
  ],
  [
    "600 records sealed before the first leaves: marks are overwritten",
    unprovenFlow,
    () => {
      const talk = lab.tls13();
      talk.connection.send(talk.cipher.seal().sent);
      const many = Array.from({ length: 600 }, () => talk.cipher.seal({ length: 20 }).sent);
      for (let i = 0; i < 600; i += 50) talk.connection.send(Buffer.concat(many.slice(i, i + 50)));
      return talk;
    },
  ],
];
for (const [name, expected, story] of stories) {
  test(`proof 3: ${name}: ${expected["flow"]}`, async () => {
    assert.deepEqual(await verdicts(story()), expected);
  });
}

test("a proof that has failed does not come back", async () => {
  const talk = lab.tls13();
  talk.connection.send(talk.cipher.seal({ unheard: true }).sent);
  for (let i = 0; i < 10; i++) talk.connection.send(talk.cipher.seal().sent);
  assert.deepEqual(await verdicts(talk), unprovenFlow);
});

test("proof 2: nothing of a record with another byte anywhere in its region is patched", () => {
  for (let at = 0; at < 70; at++) {
    const { connection, cipher } = lab.tls13();
    connection.send(cipher.seal().sent);
    const request = cipher.seal({ edits: [edit], host });
    request.sent[5 + at] = (request.sent[5 + at] ?? 0) ^ 0x20;
    const left = connection.send(request.sent);
    if (left) assert.deepEqual(left, request.sent);
    else assert.deepEqual(connection.segment(connection.sent - request.sent.length, request.sent), request.sent);
    assert.equal(
      lab.kernel
        .table("outstanding")
        .entries()
        .filter(([, row]) => row[21]).length,
      0,
    );
  }
});

test("proof 2: a record of the same text but another length is not patched", async () => {
  for (const [, proof] of proofs) {
    const { connection, cipher } = lab.tls13();
    const { sent } = cipher.seal({ edits: [{ ...edit, proof }], host });
    const other = tls.record(23, sent.subarray(5, sent.length - 1));
    assert.deepEqual(connection.send(other), other);
  }
});

test("nothing is replaced but in application data", () => {
  for (const type of [20, 21, 22, 24]) {
    const { connection, cipher } = lab.tls12();
    const request = cipher.seal({ edits: [{ ...edit, proof: rows.proof.none }], host });
    request.sent[0] = type;
    assert.deepEqual(connection.send(request.sent), request.sent);
  }
});

test("proof 4: a record of another workload is inert, and its entry stays", async () => {
  const { connection } = lab.tls13();
  const other = lab.cipher({ workload: workload + 1 });
  for (const [, proof] of proofs) {
    assert.equal(await verdict(connection, other.seal({ edits: [{ ...edit, proof }], host })), "other-workload");
  }
  assert.equal(lab.kernel.table("patches").entries().length, proofs.length);
  const mine = lab.tls13();
  const stolen = mine.cipher.seal({ edits: [edit], host, patchWorkload: workload + 1 });
  assert.equal(await verdict(mine.connection, stolen), "other-workload");
});

test("a record that leaves a minute late stays as it is", async () => {
  const { connection, cipher } = lab.tls13();
  assert.equal(await verdict(connection, cipher.seal({ edits: [edit], host, ageNs: 61_000_000_000n })), "expired");
  assert.equal(await verdict(connection, cipher.seal({ edits: [edit], host, ageNs: 50_000_000_000n })), "patched");
});

test("a placeholder in bytes that have left before the record was known stays", async () => {
  const first = { secret, offset: 0, length: 20 };
  for (const [cut, expected] of [
    [5, "patched"],
    [6, "too-late"],
    /* Until it is known which, a name may stand behind an explicit nonce. */
    [28, "too-late"],
    [29, "patched"],
  ] as const) {
    const { connection, cipher } = lab.tls13();
    const request = cipher.seal({ edits: [first], host });
    await lab.events();
    const left = [connection.send(request.sent.subarray(0, cut)), connection.send(request.sent.subarray(cut))];
    const events = await lab.events();
    if (expected === "patched") assert.deepEqual(Buffer.concat(left as Buffer[]), request.patched, `cut at ${cut}`);
    else assert.deepEqual(Buffer.concat(left as Buffer[]), request.sent, `cut at ${cut}`);
    assert.equal(events[0]?.reason, expected === "patched" ? "none" : expected);
  }
});

test("the reason that the cipher side gives is reported with the destination", async () => {
  const { connection, cipher } = lab.tls13();
  for (const reason of [rows.reason.secondOccurrence, rows.reason.slotNotAllowed, rows.reason.splitOverRecords]) {
    connection.send(cipher.seal({ reason, edits: [edit] }).sent);
  }
  const events = await lab.events();
  assert.deepEqual(
    events.map(({ kind, reason, secret: which, host: name }) => [kind, reason, which, name]),
    ["second-occurrence", "slot-not-allowed", "split-over-records"].map((reason) => ["refused", reason, secret, host]),
  );
  assert.equal(lab.kernel.table("patches").entries().length, 0);
});

test("if one of a record's edits is refused none is made", async () => {
  const { connection, cipher } = lab.tls13();
  const edits = [edit, { secret: secret + 1, offset: 80, length: 20 }];
  const request = cipher.seal({ edits, host });
  assert.deepEqual(connection.send(request.sent), request.sent);
  const events = await lab.events();
  assert.deepEqual(
    events.map(({ secret: which, reason }) => [which, reason]),
    [[secret + 1, "host-not-allowed"]],
  );
});

test("a flow that is older than the agent takes no substitution, and says so", async () => {
  const source = lab.tls13();
  for (const cut of [0, 7, 40]) {
    const connection = new (source.connection.constructor as typeof Connection)(lab, {});
    connection.send(lab.cipher().seal({ length: 90, unheard: true }).sent.subarray(cut));
    const request = source.cipher.seal({ edits: [edit], host });
    assert.deepEqual(connection.send(request.sent), request.sent);
    const events = await lab.events();
    assert.deepEqual(
      events.map(({ kind, reason }) => [kind, reason]),
      [["refused", "flow-older-than-agent"]],
    );
  }
});

test("what is no TLS passes, and a placeholder in a tunnel that it becomes is inert", async () => {
  const connection = lab.connect();
  const connect = Buffer.from("CONNECT api.example.com:443 HTTP/1.1\r\n\r\n");
  assert.deepEqual(connection.send(connect), connect);
  hello(connection);
  connection.send(lab.cipher().seal({ type: 22 }).sent);
  const request = lab.cipher().seal({ edits: [edit], host });
  assert.deepEqual(connection.send(request.sent), request.sent);
  const [event] = await lab.events();
  assert.equal(event?.reason, "no-sni");
});

test("a gap in what is no TLS is no reason to hold it", () => {
  const connection = lab.connect();
  connection.send(Buffer.from("SSH-2.0-x\r\n"));
  const bytes = Buffer.from("anything");
  assert.deepEqual(connection.segment(1000, bytes), bytes);
});

test("a workload that is the server is not looked at", () => {
  const connection = new (lab.connect().constructor as typeof Connection)(lab, {});
  connection.segment(-1, new Uint8Array(), ["syn", "ack"]);
  hello(connection);
  assert.equal(lab.kernel.flow(connection).state, 0);
  assert.equal(lab.kernel.table("hellos").entries().length, 0);
});

test("only packets of a TCP socket are patched", async () => {
  const strict = new Lab({ requireSocket: true });
  try {
    await strict.reset();
    const { connection, cipher } = strict.tls13();
    const request = cipher.seal({ edits: [edit], host });
    assert.deepEqual(connection.send(request.sent), request.sent, "a test run's packets have no socket");
    const [event] = await strict.events();
    assert.equal(event?.reason, "unproven-flow");
  } finally {
    strict.kernel.close();
  }
});

test("fragments: those of a flow with patches are dropped, others pass and end its substitution", async () => {
  const { connection, cipher } = lab.tls13();
  const payload = cipher.seal({ length: 100 }).sent;
  const raw = (identification: number, offset: number, end?: number): boolean => {
    const bytes = frame(
      { ...connection, sequence: connection.first + connection.sent, payload },
      { fragment: end === undefined ? { identification, offset } : { identification, offset, end } },
    );
    return lab.kernel.run("wire_egress", bytes).pass;
  };
  assert.equal(raw(7, 40), false, "a later fragment whose first was not seen");
  assert.equal(raw(8, 0, 40), true);
  assert.equal(raw(8, 40), true);
  assert.equal(await verdict(connection, cipher.seal({ edits: [edit], host })), "unproven-flow");
  const busy = lab.tls13();
  busy.connection.send(busy.cipher.seal({ edits: [edit], host }).sent);
  const bytes = frame(
    { ...busy.connection, sequence: busy.connection.first + 500, payload },
    { fragment: { identification: 9, offset: 0, end: 80 } },
  );
  assert.equal(lab.kernel.run("wire_egress", bytes).pass, false);
  assert.equal(lab.kernel.run("wire_egress", bytes).pass, false);
});

test("fragments: none carries a copy of what has left patched and is acknowledged", () => {
  const { connection, cipher } = lab.tls13();
  const before = connection.sent;
  const request = cipher.seal({ edits: [edit], host });
  connection.send(request.sent);
  connection.acknowledge(connection.sent);
  const fragment = (from: number, payload: Buffer, piece: { offset: number; end?: number }): boolean => {
    const segment = { ...connection, sequence: (connection.first + from) % 2 ** 32, payload };
    return lab.kernel.run("wire_egress", frame(segment, { fragment: { identification: 10, ...piece } })).pass;
  };
  const next = cipher.seal().sent;
  assert.ok(fragment(connection.sent, next, { offset: 0, end: 40 }), "new bytes");
  assert.equal(fragment(before, request.sent, { offset: 0, end: 40 }), false, "its first");
  assert.equal(fragment(before, request.sent, { offset: 40 }), false, "a later one, of an identification that passed");
});

test("when its lease has run out nothing passes, either way", () => {
  const { connection, cipher } = lab.tls13();
  const interfaces = lab.kernel.table("interfaces");
  interfaces.set(Buffer.from([1, 0, 0, 0]), rows.interfaceRow(workload, 1n));
  const { sent } = cipher.seal();
  assert.equal(connection.send(sent), undefined);
  assert.equal(connection.acknowledge(1), false);
  interfaces.set(Buffer.from([1, 0, 0, 0]), rows.interfaceRow(workload, process.hrtime.bigint() + 10n ** 12n));
  assert.deepEqual(connection.segment(connection.sent - sent.length, sent), sent);
  assert.equal(connection.acknowledge(1), true);
});

test("what is not TCP, not whole or not IP passes or is dropped without a trace", () => {
  const good = frame({ ...lab.connect(), sequence: 5, payload: Buffer.from("x") });
  for (let length = 34; length < good.length; length++) lab.kernel.run("wire_egress", good.subarray(0, length));
  const udp = Buffer.from(good);
  udp[14 + 9] = 17;
  assert.equal(lab.kernel.run("wire_egress", udp).pass, true);
});

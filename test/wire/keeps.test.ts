/*
 * A server that keeps a secret in its header table (RFC 7541) can be told by one byte to send it on: from then on nothing
 * leaves that has not been heard. Needs root.
 */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import type { Cipher } from "./cipher.ts";
import * as tls from "./client-hello.ts";
import { type Connection, host, Lab, secret } from "./lab.ts";
import * as rows from "./rows.ts";

const lab = new Lab();
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

const edit = { secret, offset: 40, length: 30 };
const keeping = { edits: [edit], host, keeps: 1 } as const;

/** A connection whose server keeps the secret. */
function kept(version: "tls12" | "tls13"): { connection: Connection; cipher: Cipher } {
  const talk = lab[version]();
  const request = talk.cipher.seal(keeping);
  assert.deepEqual(talk.connection.send(request.sent), request.patched);
  talk.connection.acknowledge(talk.connection.sent);
  return talk;
}

for (const version of ["tls12", "tls13"] as const) {
  test(`${version}: what has been heard leaves, also after the acknowledgement`, () => {
    const { connection, cipher } = kept(version);
    for (let i = 0; i < 3; i++) {
      const { sent } = cipher.seal({ length: 300 });
      assert.deepEqual(connection.send(sent), sent);
    }
  });

  test(`${version}: an unheard record does not leave whole, nor anything after it`, async () => {
    const { connection, cipher } = kept(version);
    await lab.events();
    const { sent } = cipher.seal({ unheard: true, length: 300 });
    assert.equal(connection.send(sent), undefined);
    assert.equal(connection.segment(connection.sent - sent.length, sent), undefined, "not when TCP repeats it either");
    assert.equal(connection.send(cipher.seal().sent), undefined);
    const events = await lab.events();
    assert.deepEqual([...new Set(events.map(({ reason }) => reason))], ["unproven-flow"]);
  });

  test(`${version}: a record that differs where it is hashed does not leave whole, however it is cut`, () => {
    const { connection, cipher } = kept(version);
    const { sent, start } = cipher.seal({ length: 120 });
    sent[start + 3] = (sent[start + 3] ?? 0) ^ 1;
    connection.send(sent.subarray(0, 60));
    assert.equal(connection.send(sent.subarray(60)), undefined);
  });
}

test("bytes that are no records do not leave", () => {
  const { connection } = kept("tls13");
  assert.equal(connection.send(Buffer.alloc(100, 0x41)), undefined);
});

test("a message in the clear does not leave", () => {
  const { connection } = kept("tls13");
  assert.equal(connection.send(tls.record(22, tls.clientHello([tls.serverName(host)]))), undefined);
});

for (const [name, proof] of Object.entries(rows.proof)) {
  test(`proof ${name}: nothing is given to keep on a flow that is not proven`, async () => {
    const { connection, cipher } = lab.tls13();
    connection.send(cipher.seal({ unheard: true }).sent);
    const { sent } = cipher.seal({ ...keeping, edits: [{ ...edit, proof }] });
    assert.deepEqual(connection.send(sent), sent);
    assert.deepEqual(
      (await lab.events()).map(({ reason }) => reason),
      ["unproven-flow"],
    );
  });
}

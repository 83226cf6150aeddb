import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import type { Sealed } from "./cipher.ts";
import type { Connection } from "./lab.ts";
import { host, Lab, secret } from "./lab.ts";
import { Model } from "./model.ts";

const lab = new Lab({ attestAskNs: 10n ** 18n });
after(() => lab.kernel.close());

const records = fc.array(
  fc.record({
    length: fc.oneof(
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 26, max: 90 }),
      fc.integer({ min: 60, max: 1500 }),
    ),
    patched: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
    /** Fractions of what is there. */
    offset: fc.double({ min: 0, max: 1, noNaN: true }),
    size: fc.double({ min: 0, max: 1, noNaN: true }),
    second: fc.boolean(),
  }),
  { minLength: 1, maxLength: 40, size: "max" },
);

const steps = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        what: fc.constant("send" as const),
        /** Bytes before what is expected next (a retransmission), or after (a gap). */
        back: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(2000), fc.integer({ min: -50, max: -1 })),
        size: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 3500 })),
      }),
    },
    { weight: 2, arbitrary: fc.record({ what: fc.constant("acknowledge" as const), less: fc.nat(400) }) },
    { weight: 1, arbitrary: fc.record({ what: fc.constant("attest" as const), granted: fc.boolean() }) },
  ),
  { maxLength: 60, size: "max" },
);

const setup = fc.record({
  tls: fc.constantFrom("1.3", "1.2"),
  ipv6: fc.boolean(),
  /** The peer acknowledges nothing for long: patches pile up. */
  silent: fc.boolean(),
  sequence: fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.integer({ min: 2 ** 32 - 20_000, max: 2 ** 32 - 1 })),
});

function attest(connection: Connection, granted: boolean): void {
  lab.kernel.table("attestations").clear();
  if (granted) lab.attest(connection.destination);
}

test("any segmentation, repetition, gap, acknowledgement and hold: the kernel does what the model does", async () => {
  await fc.assert(
    fc.asyncProperty(setup, records, steps, async (options, shapes, actions) => {
      await lab.reset();
      const begin = { sequence: options.sequence, destination: options.ipv6 ? "2001:db8::1" : "192.0.2.1" };
      const { connection, cipher } = options.tls === "1.3" ? lab.tls13(begin) : lab.tls12(begin);
      const start = connection.sent;
      const sealed: Sealed[] = shapes.map(({ length, patched, offset, size, second }) => {
        /* An edit in the first bytes may come too late: that is another test's. */
        if (!patched || length < 26) return cipher.seal({ length });
        const at = 25 + Math.floor(offset * (length - 26));
        const edits = [{ secret, offset: at, length: 1 + Math.floor(size * (length - at - 1)) }];
        return cipher.seal({ length, host, edits: second ? [{ secret, offset: 24, length: 1 }, ...edits] : edits });
      });
      let end = start;
      const stream = {
        start,
        sent: Buffer.concat([Buffer.alloc(start), ...sealed.map(({ sent }) => sent)]),
        patched: Buffer.concat([Buffer.alloc(start), ...sealed.map(({ patched }) => patched)]),
        records: sealed.map(({ sent, patched }, i) => ({
          start: end,
          end: (end += sent.length),
          patched: !sent.equals(patched),
          /* In TLS 1.2 the key's first record is the Finished. */
          named: i === 0 && options.tls === "1.3" && sent.length >= 5 + 16,
        })),
      };
      /* Without 16 bytes of ciphertext the key's first record has no name, and the flow no proof. */
      fc.pre(options.tls === "1.2" || (shapes[0]?.length ?? 0) >= 16);
      const model = new Model(stream);
      const send = (from: number, to: number): void => {
        const expected = model.segment(from, to);
        assert.deepEqual(connection.segment(from, stream.sent.subarray(from, to)), expected, `segment ${from}-${to}`);
      };
      const acknowledge = (to: number): void => {
        model.acknowledge(to);
        connection.acknowledge(to);
      };
      for (const action of actions) {
        if (action.what === "attest") {
          model.attested = action.granted;
          attest(connection, action.granted);
        } else if (action.what === "acknowledge") {
          if (!options.silent) acknowledge(Math.max(start, model.delivered - action.less));
        } else {
          const from = Math.max(start, Math.min(model.next - action.back, stream.sent.length - 1));
          send(from, Math.min(stream.sent.length, from + action.size));
        }
      }
      attest(connection, true);
      model.attested = true;
      acknowledge(model.delivered);
      while (model.delivered < stream.sent.length) {
        send(model.delivered, Math.min(stream.sent.length, model.delivered + 1400));
        acknowledge(model.delivered);
      }
      const events = await lab.events();
      const refused = events.filter(({ kind }) => kind === "refused");
      assert.deepEqual(refused, []);
      const edits = sealed.length === 0 ? 0 : events.filter(({ kind }) => kind === "substituted").length;
      const expected = shapes.reduce((sum, { length, patched, second }) => {
        return sum + (patched && length >= 26 ? (second ? 2 : 1) : 0);
      }, 0);
      assert.equal(edits, expected);
      assert.equal(model.substitutions, stream.records.filter(({ patched }) => patched).length);
      assert.equal(lab.kernel.table("patches").entries().length, 0);
    }),
  );
});

/*
 * The promise: whichever call of a helper fails while a connection passes, once or from then on, no record leaves in two
 * versions, none half patched; a request leaves patched, or inert with a reason in the trail, or is held and counted.
 *
 * This kernel cannot be told to fail a helper, so the object is one whose helpers are wrapped (wire-faults.bpf.c).
 * Needs root.
 */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { counter } from "../../src/dataplane/types.gen.ts";
import type { Sealed } from "../wire/cipher.ts";
import { type Connection, host, Lab, secret, tls } from "../wire/lab.ts";

process.env["KLOAK_WIRE_OBJECT"] = new URL("../../build/test/wire-faults.bpf.o", import.meta.url).pathname;
const lab = new Lab();
beforeEach(() => lab.reset());
after(() => lab.kernel.close());

/** enum fault_helper of wire-faults.bpf.c, in its order. */
const helpers = [
  "bpf_skb_load_bytes: bytes that cannot be read",
  "bpf_skb_store_bytes: a packet that cannot be made writable",
  "bpf_l4_csum_replace: a checksum that cannot be written",
  "bpf_map_update_elem: no memory for a row",
  "bpf_ringbuf_reserve: no room for a report",
];

const never = 2n ** 62n;

/** Calls `from` to `to` of the helper fail, counted from now on; undefined: nothing is counted. */
function setFault(helper: number | undefined, from: bigint = never, to: bigint = never): void {
  const row = Buffer.alloc(32);
  const counted = helper === undefined ? 0n : 1n << BigInt(helper);
  [counted, 0n, from, to].forEach((word, i) => row.writeBigUInt64LE(word, i * 8));
  lab.kernel.table(".data.fault").set(Buffer.alloc(4), row);
}

function calls(): bigint {
  return lab.kernel.table(".data.fault").get(Buffer.alloc(4))?.readBigUInt64LE(8) ?? 0n;
}

function counted(which: number): number {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(which);
  const values = lab.kernel.table("counters").get(key) ?? Buffer.alloc(0);
  let sum = 0;
  for (let at = 0; at < values.length; at += 8) sum += Number(values.readBigUInt64LE(at));
  return sum;
}

/** TCP sends what was dropped again; that it does so for ever is of no use to a test. */
const tries = 4;

type Fate = "patched" | "inert" | "held";

/** A connection that is watched from behind: every byte that leaves. */
class Watched {
  readonly connection: Connection;
  readonly #sent: Buffer[] = [];
  readonly #left = new Map<number, number>();
  #acknowledged = 0;
  dropped = 0;

  constructor() {
    this.connection = lab.connect();
  }

  /** Writes the bytes as segments of these sizes (the rest is one more), each until it has left. */
  write(bytes: Buffer, ...sizes: readonly number[]): void {
    let at = this.connection.sent;
    this.#sent.push(bytes);
    this.connection.sent += bytes.length;
    for (const size of [...sizes, this.connection.sent - at - sizes.reduce((sum, one) => sum + one, 0)]) {
      this.repeat(at, size);
      at += size;
    }
  }

  /** Sends bytes that have been written, whether they have left before or not. */
  repeat(at: number, size: number): void {
    const bytes = Buffer.concat(this.#sent).subarray(at, at + size);
    for (let turn = 0; turn < tries; turn++) {
      const left = this.connection.segment(at, bytes);
      if (left === undefined) {
        this.dropped++;
        continue;
      }
      for (const [i, byte] of left.entries()) {
        const before = this.#left.get(at + i);
        const wiped = byte === 0 && at + i < this.#acknowledged;
        assert.ok(before === undefined || before === byte || wiped, `byte ${at + i} has left in two versions`);
        if (before === undefined) this.#left.set(at + i, byte);
      }
      return;
    }
  }

  acknowledge(): void {
    let end = 0;
    while (this.#left.has(end)) end++;
    this.connection.acknowledge(end);
    this.#acknowledged = end;
  }

  /** What has become of a record that was written at `at`; it may be cut short. */
  fate(at: number, { sent, patched }: Sealed): Fate {
    const versions = new Set<Fate>();
    let whole = true;
    for (let i = 0; i < sent.length; i++) {
      const byte = this.#left.get(at + i);
      if (byte === undefined) whole = false;
      else if (sent[i] !== patched[i]) versions.add(byte === patched[i] ? "patched" : "inert");
      else assert.equal(byte, sent[i], "a byte outside the patch has changed");
      if (byte !== undefined && byte !== patched[i]) assert.equal(byte, sent[i], "a byte of neither version");
    }
    assert.ok(versions.size <= 1, "a record has left half patched");
    const [version = "inert"] = versions;
    return whole ? version : "held";
  }
}

interface Outcome {
  readonly fates: readonly Fate[];
  /** Reports for which there was no room. */
  readonly lost: number;
  readonly calls: bigint;
}

/** One connection from its SYN to its end, with a fault on its way. */
async function play(helper: number, from: bigint = never, to: bigint = never): Promise<Outcome> {
  await lab.reset();
  const before = {
    lost: counted(counter.eventsLost),
    dropped: counted(counter.segmentsDropped),
    unknown: counted(counter.flowsFull),
  };
  setFault(helper, from, to);
  const watched = new Watched();
  const finished = lab.cipher().seal({ type: 22, length: 53 });
  const cipher = lab.cipher();
  /* In the order in which they are written. */
  const first = cipher.seal({ length: 700, host, edits: [{ secret, offset: 40, length: 57 }] });
  const body = cipher.seal({ length: 1500 });
  const second = cipher.seal({
    length: 900,
    host,
    edits: [
      { secret, offset: 200, length: 30 },
      { secret, offset: 500, length: 30 },
    ],
  });
  const requests = [first, second];
  watched.write(tls.record(22, tls.clientHello([tls.serverName(host), tls.supportedVersions])), 30);
  watched.write(Buffer.concat([tls.changeCipherSpec, finished.sent]));
  const places: number[] = [];
  for (const [i, request] of requests.entries()) {
    places.push(watched.connection.sent);
    const at = watched.connection.sent;
    watched.write(request.sent, 7, 60, 200);
    watched.repeat(at + 30, 300);
    if (i === 0) watched.write(body.sent, 600);
  }
  watched.acknowledge();
  watched.repeat(places[0] ?? 0, 300);
  const fates = requests.map((request, i) => watched.fate(places[i] ?? 0, request));
  const count = calls();
  setFault(undefined);

  const events = await lab.events();
  const lost = counted(counter.eventsLost) - before.lost;
  const told = (kind: string): number => events.filter((event) => event.kind === kind).length;
  const edits = [1, 2];
  const substituted = fates.reduce((sum, fate, i) => sum + (fate === "patched" ? (edits[i] ?? 0) : 0), 0);
  const inert = fates.filter((fate) => fate === "inert").length;
  const text = `${fates.join(", ")}; ${lost} lost; ${events.map(({ kind, reason }) => `${kind} ${reason}`).join(", ")}`;
  if (lost === 0) assert.equal(told("substituted"), substituted, `as many are reported as were made: ${text}`);
  /* A flow without a row is nobody's to report about: it is counted. */
  const unknown = counted(counter.flowsFull) - before.unknown;
  assert.ok(told("refused") + lost + unknown >= inert, `what is inert is in the trail, with a reason: ${text}`);
  assert.ok(
    events.every(({ kind, reason }) => kind !== "refused" || reason !== "none"),
    "a refusal has a reason",
  );
  if (fates.includes("held"))
    assert.ok(counted(counter.segmentsDropped) > before.dropped, `what is held is counted: ${text}`);
  return { fates, calls: count, lost };
}

for (const [helper, name] of helpers.entries()) {
  test(`${name}: at any call`, async (context) => {
    const { fates, calls: count } = await play(helper);
    assert.deepEqual(fates, ["patched", "patched"]);
    assert.ok(count > 0n, "the helper is used");
    const seen: Record<string, number> = {};
    let felt = 0;
    for (let from = 1n; from <= count; from++) {
      for (const to of [from, never]) {
        const outcome = await play(helper, from, to).catch((error: unknown) => {
          throw new Error(`call ${from} of ${count}, ${to === from ? "once" : "and all after it"}`, { cause: error });
        });
        const what = `${to === from ? "once" : "for good"}: ${outcome.fates.join(", ")}`;
        if (outcome.lost > 0 || outcome.fates.some((fate) => fate !== "patched")) felt++;
        seen[what] = (seen[what] ?? 0) + 1;
      }
    }
    assert.ok(felt > 0, "some failure has made a difference");
    for (const [what, times] of Object.entries(seen)) context.diagnostic(`${what}: ${times}`);
  });
}

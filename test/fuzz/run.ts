/** Runs a case: every packet through the kernel's program and through the model, what leaves past the oracle. */
import assert from "node:assert/strict";
import { Lab, host } from "../wire/lab.ts";
import type { Segment, TcpFlag, Wrapping } from "../wire/packets.ts";
import { frame, unframe } from "../wire/packets.ts";
import { workload } from "../wire/lab.ts";
import * as rows from "../wire/rows.ts";
import { flowKeyCodec } from "../../src/dataplane/types.gen.ts";
import { mappedAddress } from "../wire/packets.ts";
import type { Attested } from "./model.ts";
import { Model } from "./model.ts";
import { Oracle } from "./oracle.ts";
import type { ActionSpec, CaseSpec, ConnectionSpec } from "./spec.ts";
import { makeStream, type Stream } from "./stream.ts";

const nop4 = Buffer.from([1, 1, 1, 1]);
const timestamps = Buffer.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
const extension = (type: number, blocks = 1): { type: number; body: Buffer } => ({
  type,
  body: Buffer.concat([Buffer.from([blocks - 1]), Buffer.alloc(blocks * 8 - 2)]),
});

/** More of them are plain than not. */
const wrappings: Readonly<Record<"ipv4" | "ipv6", readonly Wrapping[]>> = {
  ipv4: [
    { tcpOptions: timestamps },
    { ipOptions: nop4 },
    { ipOptions: Buffer.concat(Array.from({ length: 10 }, () => nop4)), tcpOptions: timestamps },
    { vlan: [0x8100] },
    { vlan: [0x88a8, 0x8100], tcpOptions: timestamps },
    { padding: 7 },
  ],
  ipv6: [
    { tcpOptions: timestamps },
    { extensions: [extension(0)] },
    { extensions: [extension(60, 2), extension(43), extension(60)] },
    { extensions: [{ type: 44, body: Buffer.from([0, 0, 0, 0, 0, 0, 9]) }], vlan: [0x8100] },
    { vlan: [0x8100, 0x8100] },
    { padding: 3, tcpOptions: timestamps },
  ],
};

const addresses = {
  ipv4: { source: "198.51.100.7", destination: "192.0.2.1" },
  ipv6: { source: "2001:db8::7", destination: "2001:db8::1" },
} as const;
const port = 443;
/** What a test run takes is less than a page (bpf_prog_test_run_skb). */
const largest = 3400;
const plain = 1400;

export interface Tried {
  segments: number;
  dropped: number;
  fragments: number;
  acknowledgements: number;
  connections: number;
  records: number;
  substituted: number;
  refused: number;
}

export function nothingTried(): Tried {
  return {
    segments: 0,
    dropped: 0,
    fragments: 0,
    acknowledgements: 0,
    connections: 0,
    records: 0,
    substituted: 0,
    refused: 0,
  };
}

export class Runner {
  readonly lab = new Lab({ attestAskNs: 10n ** 18n });
  readonly tried: Tried = nothingTried();
  #ports = 0;

  async start(): Promise<void> {
    await this.lab.reset();
  }

  close(): void {
    this.lab.kernel.close();
  }

  /** @throws AssertionError where kernel and model differ, or the oracle has seen what must not be */
  async run(spec: CaseSpec): Promise<void> {
    this.attest("yes");
    /* What an earlier case, failed in its middle, has left behind. */
    await this.lab.events();
    const lines = spec.connections.map((connection) => new Line(this, connection, 1024 + (this.#ports++ % 60000)));
    try {
      for (const action of spec.actions) {
        if (action.what !== "attest") {
          lines[action.on % lines.length]?.act(action);
          continue;
        }
        this.attest(action.answer);
        for (const line of lines) line.attested(action.answer);
      }
      this.attest("yes");
      for (const line of lines) {
        line.attested("yes");
        line.drain();
      }
      await this.#compareEvents(lines);
      for (const line of lines) line.checkForgotten();
    } finally {
      for (const line of lines) line.close();
    }
  }

  attest(answer: Attested): void {
    const table = this.lab.kernel.table("attestations");
    for (const { destination } of Object.values(addresses)) {
      const key = rows.attestationKey(
        mappedAddress(destination),
        this.lab.kernel.hash(host),
        port,
        rows.attestMode.certificate,
      );
      if (answer === "unknown") table.delete(key);
      else table.set(key, rows.attestation(2n ** 63n, answer === "yes"));
    }
  }

  /** Events name no flow: they are compared if all flows of the case can be foretold. */
  async #compareEvents(lines: readonly Line[]): Promise<void> {
    const events = (await this.lab.events()).filter(({ kind }) => kind !== "attest");
    const refused = events.filter(({ kind }) => kind === "refused").map(({ reason }) => reason);
    this.tried.substituted += events.length - refused.length;
    this.tried.refused += refused.length;
    if (!lines.every((line) => line.foretold)) return;
    const [substitutions, reasons] = [
      lines.flatMap((line) => line.substituted).reduce((sum, count) => sum + count, 0),
      lines.flatMap((line) => line.refused),
    ];
    assert.equal(events.length - refused.length, substitutions, "substitutions that are reported");
    assert.deepEqual(refused.sort(), reasons.sort(), "reasons of refusals that are reported");
  }
}

/** One pair of ports: a connection, and those that follow it there. */
class Line {
  readonly #runner: Runner;
  readonly #spec: ConnectionSpec;
  readonly #ends: { source: string; destination: string; sourcePort: number; destinationPort: number };
  readonly #wrappings: readonly Wrapping[];
  #stream!: Stream;
  #model!: Model;
  #oracle!: Oracle;
  #first = 0;
  #sent = 0;
  #last: readonly [number, number] = [0, 0];
  #attested: Attested = "yes";
  /** Of connections that are over. */
  readonly #streams: Stream[] = [];
  readonly #models: Model[] = [];
  /** The model still says what must happen, to the byte. */
  foretold = true;
  #followed = true;

  constructor(runner: Runner, spec: ConnectionSpec, sourcePort: number) {
    this.#runner = runner;
    this.#spec = spec;
    const family = spec.ipv6 ? "ipv6" : "ipv4";
    this.#ends = { ...addresses[family], sourcePort, destinationPort: port };
    this.#wrappings = wrappings[family];
    this.#open(spec.sequence, spec.known, spec.early);
  }

  get substituted(): number[] {
    return this.#models.map(({ substituted }) => substituted);
  }

  get refused(): string[] {
    return this.#models.flatMap(({ refused }) => refused);
  }

  attested(answer: Attested): void {
    this.#attested = answer;
    this.#model.attested = answer;
  }

  act(action: Exclude<ActionSpec, { what: "attest" }>): void {
    switch (action.what) {
      case "send": {
        const [from, to] = this.#range(action);
        const flags: TcpFlag[] = action.fin ? ["ack", "fin"] : ["ack", "psh"];
        this.#send(from, to, { flags, lost: action.lost, wrap: action.wrapping, segmentBytes: action.segmentBytes });
        break;
      }
      case "acknowledge":
        this.#acknowledge(this.#acknowledged(action.how, action.by));
        break;
      case "close":
        this.#shut(action.how);
        break;
      case "reopen":
        this.#open((this.#spec.sequence + 77_777) % 2 ** 32, true, 0);
        break;
      case "bare":
        this.#send(this.#sent, this.#sent);
        break;
      case "syn-again":
        /* After a reset it would begin another connection: that is what `reopen` does. */
        if (this.#sent === 0 && this.#model.state === "tracked") this.#syn(0);
        break;
      case "fragments":
        this.#fragments(action);
        break;
      case "rewrite": {
        const from = Math.max(0, this.#sent - action.back);
        const to = Math.min(this.#stream.sent.length, this.#sent, from + action.size);
        if (to <= from) break;
        const at = from + Math.floor(action.at * (to - from - 1));
        this.#giveUp();
        this.#send(from, to, { flip: { at, by: action.by } });
        break;
      }
    }
  }

  /** Everything that is still to be sent gets through, as TCP would see to it. */
  drain(): void {
    if (this.#model.state === "dead") return;
    const total = this.#stream.sent.length;
    this.#acknowledge(this.#oracle.delivered);
    while (this.#oracle.delivered < total) {
      const from = this.#oracle.delivered;
      this.#send(from, Math.min(total, from + plain));
      this.#acknowledge(this.#oracle.delivered);
      if (this.#oracle.delivered > from) continue;
      assert.ok(!this.#followed, `the connection is stuck at byte ${from}`);
      return;
    }
    this.#send(total, total, { flags: ["ack", "fin"] });
    this.#acknowledge(total + 1);
  }

  /** What the peer has acknowledged is kept no longer. */
  checkForgotten(): void {
    if (
      !this.foretold ||
      this.#streams.length > 1 ||
      this.#model.state !== "tracked" ||
      this.#oracle.delivered < this.#stream.sent.length
    )
      return;
    const { kernel } = this.#runner.lab;
    for (const row of this.#published()) {
      assert.equal(kernel.table(row.table).get(row.key), undefined, `a row in ${row.table} is left behind`);
    }
  }

  /** Removes what the case has made. */
  close(): void {
    const { kernel } = this.#runner.lab;
    this.#packet({ sequence: 0, flags: ["rst"], payload: Buffer.alloc(0) }, {});
    for (const row of this.#published()) kernel.table(row.table).delete(row.key);
    for (const { ciphers } of this.#streams) for (const { name } of ciphers) kernel.table("keys").delete(name);
    kernel.table("flows").delete(
      flowKeyCodec.encode({
        workload,
        sourcePort: this.#ends.sourcePort,
        destinationPort: port,
        source: mappedAddress(this.#ends.source),
        destination: mappedAddress(this.#ends.destination),
      }),
    );
  }

  #open(sequence: number, known: boolean, early: number): void {
    this.#stream = makeStream(this.#runner.lab, this.#spec);
    this.#model = new Model(this.#stream, known);
    this.#model.attested = this.#attested;
    this.#oracle = new Oracle({ ...this.#stream, records: this.#stream.protected });
    this.#streams.push(this.#stream);
    this.#models.push(this.#model);
    this.#first = (sequence + 1) % 2 ** 32;
    this.#sent = 0;
    this.#last = [0, 0];
    this.#followed = true;
    this.#runner.tried.connections++;
    this.#runner.tried.records += this.#stream.records.length;
    if (!known) this.foretold = false;
    else this.#syn(Math.min(early, this.#stream.sent.length));
  }

  /** The workload has lied: what happens then is not foretold, and still bound to the rules. */
  #giveUp(): void {
    this.#followed = false;
    this.foretold = false;
  }

  #range({ from: where, by, size }: Extract<ActionSpec, { what: "send" }>): readonly [number, number] {
    const total = this.#stream.sent.length;
    const { delivered } = this.#oracle;
    let from = this.#model.next;
    let bytes = Math.min(size, largest);
    if (where === "same") return this.#last;
    if (where === "back") from -= by;
    else if (where === "gap") from += 1 + (by % 300);
    else if (where === "hole") from = delivered + (by % Math.max(1, this.#sent - delivered));
    else if (where === "first") from = delivered;
    else if (where === "tail") from = this.#sent - bytes;
    else if (where === "probe") [from, bytes] = [delivered - 1, 1];
    from = Math.max(0, Math.min(from, total));
    return [from, Math.min(total, from + bytes)];
  }

  #acknowledged(how: Extract<ActionSpec, { what: "acknowledge" }>["how"], by: number): number {
    const { delivered } = this.#oracle;
    const offsets = {
      all: delivered,
      less: Math.max(0, delivered - by),
      "one-more": this.#sent + 1,
      unsent: this.#sent + 2 + by,
      seen: this.#model.next,
    };
    return offsets[how];
  }

  #shut(how: Extract<ActionSpec, { what: "close" }>["how"]): void {
    if (how === "fin" || how === "both") {
      this.#send(this.#sent, this.#sent, { flags: ["fin", "ack"] });
    }
    if (how === "peer-fin" || how === "both") this.#acknowledge(this.#oracle.delivered, ["fin", "ack"]);
    if (how === "peer-rst") this.#acknowledge(this.#oracle.delivered, ["rst", "ack"]);
    if (how === "rst") this.#send(this.#sent, this.#sent, { flags: ["rst", "ack"] });
    if (how === "rst-with-data") {
      const from = Math.max(0, this.#sent - plain);
      this.#send(from, this.#sent, { flags: ["rst", "ack"] });
    }
  }

  #syn(early: number): void {
    this.#send(0, early, { flags: ["syn"] });
    this.#acknowledge(early, ["syn", "ack"]); // without it nothing is substituted
  }

  #send(
    from: number,
    to: number,
    options: {
      flags?: readonly TcpFlag[];
      lost?: boolean;
      wrap?: number;
      segmentBytes?: number;
      flip?: { at: number; by: number };
    } = {},
  ): void {
    const { flags = ["ack", "psh"], lost = false, wrap = 20, segmentBytes = 0, flip } = options;
    if (to > this.#stream.honestUntil) this.#giveUp();
    const isReset = flags.includes("rst");
    const expected = isReset ? this.#model.reset(from, to) : this.#model.segment(from, to);
    /* In a loose flow any segment may show a record, which is reported. */
    if (this.#model.state === "loose") this.foretold = false;
    const payload = Buffer.from(this.#stream.sent.subarray(from, to));
    if (flip) payload[flip.at - from] = (payload[flip.at - from] ?? 0) ^ flip.by;
    const sequence = this.#first + from + (flags.includes("syn") ? 2 ** 32 - 1 : 0);
    const wrapping = this.#wrappings[wrap] ?? this.#wrappings[this.#spec.wrapping] ?? {};
    const left = this.#packet({ sequence: sequence % 2 ** 32, flags, payload }, wrapping, segmentBytes);
    this.#runner.tried.segments++;
    if (!left) this.#runner.tried.dropped++;
    const what = `segment ${from}-${to} (${flags.join(", ")})`;
    if (this.#followed) {
      assert.equal(left ? "passes" : "is dropped", expected ? "passes" : "is dropped", what);
      const differs = left?.findIndex((byte, i) => byte !== expected?.[i]) ?? -1;
      assert.equal(differs, -1, `${what} leaves as the model does not say, first at byte ${from + differs}`);
    }
    this.#sent = Math.max(this.#sent, to);
    this.#last = [from, to];
    if (left) this.#oracle.left(from, left, !lost, flip);
  }

  /** Through the program: the payload that leaves, in a packet that is otherwise as it was and has the right checksum. */
  #packet(
    part: Pick<Segment, "sequence" | "flags" | "payload">,
    wrapping: Wrapping,
    segmentBytes = 0,
  ): Buffer | undefined {
    const segment = { ...this.#ends, ...part };
    const before = frame(segment, wrapping);
    const { pass, packet } = this.#runner.lab.kernel.run("wire_egress", before, segmentBytes);
    if (!pass) return undefined;
    const { payload, valid } = unframe(packet, segment, wrapping);
    assert.ok(valid, "the packet that leaves has a wrong TCP checksum");
    const checksum =
      before.length - (wrapping.padding ?? 0) - payload.length - 20 - (wrapping.tcpOptions?.length ?? 0) + 16;
    const same = (from: number, to: number) => before.compare(packet, from, to, from, to) === 0;
    assert.ok(
      packet.length === before.length &&
        same(0, checksum) &&
        same(checksum + 2, checksum + 4 + (wrapping.tcpOptions?.length ?? 0)) &&
        same(before.length - (wrapping.padding ?? 0), before.length),
      "more than payload and checksum has changed",
    );
    return payload;
  }

  /** One datagram in two fragments. */
  #fragments(action: Extract<ActionSpec, { what: "fragments" }>): void {
    const from = Math.max(0, Math.min(this.#model.next, this.#stream.sent.length - 1) - action.back);
    const to = Math.min(this.#stream.sent.length, from + action.size);
    const bytes = to - from + 20;
    /* The TCP header whole, and something in each. */
    const cut = 24 + 8 * Math.floor((action.cut * (bytes - 25)) / 8);
    if (bytes <= 24) return;
    if (to > this.#stream.honestUntil) this.#giveUp();
    const expected = this.#model.fragments(from);
    this.foretold = false;
    const payload = this.#stream.sent.subarray(from, to);
    const segment = { ...this.#ends, sequence: (this.#first + from) % 2 ** 32, payload };
    /*
     * The kernel forgets an identification with the last fragment. What comes in no order leaves it known: then it is
     * not used again.
     */
    const identification = action.lastFirst ? 1000 + this.#runner.tried.fragments : 100 + action.identification;
    const parts = [
      { identification, offset: 0, end: cut },
      { identification, offset: cut },
    ];
    if (action.lastFirst) parts.reverse();
    let firstPassed = false;
    for (const fragment of parts) {
      const bare = { fragment };
      const before = frame(segment, bare);
      const { pass, packet } = this.#runner.lab.kernel.run("wire_egress", before);
      this.#runner.tried.fragments++;
      const isFirst = fragment.offset === 0;
      if (isFirst) firstPassed = pass;
      if (this.#followed && isFirst) assert.equal(pass, expected, "a first fragment");
      if (this.#followed && !isFirst) assert.equal(pass, firstPassed, "a later fragment");
      if (!pass) continue;
      assert.ok(packet.equals(before), "a fragment is changed");
      const [start, end] = isFirst ? [from, from + cut - 20] : [from + cut - 20, to];
      this.#oracle.left(start, Buffer.from(this.#stream.sent.subarray(start, end)), firstPassed);
    }
    this.#sent = Math.max(this.#sent, to);
  }

  #acknowledge(to: number, flags: readonly TcpFlag[] = ["ack"]): void {
    const { source, destination, sourcePort, destinationPort } = this.#ends;
    const back = { source: destination, destination: source, sourcePort: destinationPort, destinationPort: sourcePort };
    const acknowledgment = (this.#first + to) % 2 ** 32;
    const { pass } = this.#runner.lab.kernel.run("wire_return", frame({ ...back, sequence: 1, acknowledgment, flags }));
    assert.ok(pass, "an acknowledgement is dropped");
    this.#runner.tried.acknowledgements++;
    this.#model.acknowledge(to);
    if (to <= this.#sent + 1) this.#oracle.acknowledged(Math.min(to, this.#stream.sent.length));
  }

  #published(): { table: string; key: Buffer }[] {
    return this.#streams.flatMap(({ ciphers }) => ciphers.flatMap((cipher) => cipher.published));
  }
}

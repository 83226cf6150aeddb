/** The wire object loaded for tests: its maps, and its programs run on packets that we make. */
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import type { Flow } from "../../src/dataplane/types.gen.ts";
import { flowCodec, flowKeyCodec } from "../../src/dataplane/types.gen.ts";
import { siphash } from "../../src/dataplane/siphash.ts";

import type { Ends } from "./packets.ts";
import { mappedAddress } from "./packets.ts";

type Handle = object;

/** What these tests need of the addon. */
interface Addon {
  objectOpen(path: string): Handle;
  objectSetVariable(object: Handle, name: string, value: Uint8Array): boolean;
  objectSetEntries(object: Handle, map: string, entries: number): void;
  objectLoad(object: Handle): void;
  objectMap(object: Handle, name: string): Handle;
  objectClose(object: Handle): void;
  mapInfo(map: Handle): { readonly keyBytes: number; readonly valueBytes: number };
  mapLookup(map: Handle, key: Uint8Array): Buffer | undefined;
  mapUpdate(map: Handle, key: Uint8Array, value: Uint8Array): void;
  mapDelete(map: Handle, key: Uint8Array): boolean;
  mapEntries(map: Handle): { readonly keys: Buffer; readonly values: Buffer };
  testRun(
    object: Handle,
    program: string,
    options: { readonly data: Uint8Array; readonly context: Uint8Array; readonly repeat?: number },
  ): { readonly value: number; readonly data?: Buffer; readonly nanoseconds: number };
  tcAttach(
    object: Handle,
    program: string,
    ifindex: number,
    direction: string,
    handle: number,
    priority: number,
    netns?: string,
  ): void;
  ringOpen(map: Handle, handler: (samples: Buffer[]) => void): Handle;
  ringDrain(ring: Handle): void;
  ringClose(ring: Handle): void;
}

const require = createRequire(import.meta.url);
/** Of <linux/pkt_cls.h>. */
const TC_ACT_SHOT = 2;

/** struct __sk_buff of <linux/bpf.h> with ifindex 1. */
const onLoopback = Buffer.alloc(192);
onLoopback.writeUInt32LE(1, 40);

/** The same for a packet that is still to be cut. */
function offloaded(bytes: number, segmentBytes: number): Buffer {
  const context = Buffer.from(onLoopback);
  context.writeUInt32LE(Math.ceil(bytes / segmentBytes), 164); /* gso_segs */
  context.writeUInt32LE(segmentBytes, 176); /* gso_size */
  return context;
}

const root = new URL("../../", import.meta.url).pathname;

export interface Tunables {
  readonly requireSocket?: boolean;
  readonly attestHoldNs?: bigint;
  readonly attestAskNs?: bigint;
  readonly patchAgeNs?: bigint;
}

export class Table {
  readonly #addon: Addon;
  readonly #map: Handle;
  readonly keyBytes: number;
  readonly valueBytes: number;

  constructor(addon: Addon, map: Handle) {
    this.#addon = addon;
    this.#map = map;
    ({ keyBytes: this.keyBytes, valueBytes: this.valueBytes } = addon.mapInfo(map));
  }

  get(key: Uint8Array): Buffer | undefined {
    return this.#addon.mapLookup(this.#map, key);
  }

  set(key: Uint8Array, value: Uint8Array): void {
    this.#addon.mapUpdate(this.#map, key, value);
  }

  delete(key: Uint8Array): boolean {
    return this.#addon.mapDelete(this.#map, key);
  }

  entries(): readonly (readonly [Buffer, Buffer])[] {
    const { keys, values } = this.#addon.mapEntries(this.#map);
    return Array.from({ length: keys.length / this.keyBytes }, (_, i) => [
      keys.subarray(i * this.keyBytes, (i + 1) * this.keyBytes),
      values.subarray(i * this.valueBytes, (i + 1) * this.valueBytes),
    ]);
  }

  clear(): void {
    for (const [key] of this.entries()) this.delete(key);
  }
}

export class Kernel {
  readonly #macKey = randomBytes(16);
  readonly #addon: Addon;
  readonly #object: Handle;
  readonly #ring: Handle;
  readonly #events: Buffer[] = [];
  readonly #tables = new Map<string, Table>();

  constructor(tunables: Tunables = {}) {
    const path = process.env["KLOAK_ADDON"] ?? `${root}build/kloak.node`;
    this.#addon = require(path) as Addon;
    this.#object = this.#addon.objectOpen(process.env["KLOAK_WIRE_OBJECT"] ?? `${root}build/bpf/wire.bpf.o`);
    this.#variable("mac_key", this.#macKey);
    /* Packets of BPF_PROG_TEST_RUN come from no TCP socket. */
    this.#variable("require_socket", Buffer.from([tunables.requireSocket ? 1 : 0, 0, 0, 0]));
    if (tunables.attestHoldNs !== undefined) this.#variable("attest_hold_ns", uint64(tunables.attestHoldNs));
    if (tunables.attestAskNs !== undefined) this.#variable("attest_ask_ns", uint64(tunables.attestAskNs));
    if (tunables.patchAgeNs !== undefined) this.#variable("patch_age_ns", uint64(tunables.patchAgeNs));
    this.#addon.objectLoad(this.#object);
    this.#ring = this.#addon.ringOpen(this.#addon.objectMap(this.#object, "events"), (samples) => {
      this.#events.push(...samples);
    });
  }

  hash(text: string | Uint8Array): bigint {
    return siphash(this.#macKey, Buffer.from(text as string));
  }

  table(name: string): Table {
    let table = this.#tables.get(name);
    if (!table) {
      table = new Table(this.#addon, this.#addon.objectMap(this.#object, name));
      this.#tables.set(name, table);
    }
    return table;
  }

  /**
   * Runs a program on one packet that came in or goes out on interface 1 (`lo`: the only one that is always there).
   * segmentBytes: that the device is to cut its payload into (GSO).
   */
  run(
    program: "wire_egress" | "wire_return",
    packet: Buffer,
    segmentBytes = 0,
  ): { readonly pass: boolean; readonly packet: Buffer } {
    const context = segmentBytes ? offloaded(packet.length, segmentBytes) : onLoopback;
    const { value, data } = this.#addon.testRun(this.#object, program, { data: packet, context });
    return { pass: value !== TC_ACT_SHOT, packet: data ?? packet };
  }

  /** On the far end of a workload's veth, in the network namespace of this path; goes with it. */
  attach(ifindex: number, netns: string): void {
    this.#addon.tcAttach(this.#object, "wire_egress", ifindex, "ingress", 1, 1, netns);
    this.#addon.tcAttach(this.#object, "wire_return", ifindex, "egress", 1, 1, netns);
  }

  /** Nanoseconds that one of `repeat` runs takes. */
  time(program: "wire_egress" | "wire_return", packet: Buffer, repeat: number): number {
    return this.#addon.testRun(this.#object, program, { data: packet, context: onLoopback, repeat }).nanoseconds;
  }

  /** What the kernel knows of a connection. */
  flow(ends: Ends & { readonly workload?: number }): Flow {
    const row = this.table("flows").get(
      flowKeyCodec.encode({
        workload: ends.workload ?? 7,
        sourcePort: ends.sourcePort,
        destinationPort: ends.destinationPort,
        source: mappedAddress(ends.source),
        destination: mappedAddress(ends.destination),
      }),
    );
    if (!row) throw new Error("the kernel does not know this connection");
    return flowCodec.decode(row);
  }

  /** What has been reported since the last call. */
  events(): Buffer[] {
    this.#addon.ringDrain(this.#ring);
    return this.#events.splice(0);
  }

  close(): void {
    this.#addon.ringClose(this.#ring);
    this.#addon.objectClose(this.#object);
  }

  #variable(name: string, value: Uint8Array): void {
    if (!this.#addon.objectSetVariable(this.#object, name, value))
      throw new Error(`the object has no variable ${name}`);
  }
}

export function uint64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return buffer;
}

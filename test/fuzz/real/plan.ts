/** What a real client does, and over which interface. Plain data that follows from a seed. */
import { suites } from "../../../src/lab/suites.ts";
import { host } from "../../support/world.ts";

/** How the workload's interface is set. */
export interface Setting {
  readonly name: string;
  /** Bytes; what kloak has made if that is less. */
  readonly mtu: number;
  /** Of ethtool -K. */
  readonly features: string;
  /** Bytes of the largest packet that TCP hands over (GSO); above 65,536 it is BIG TCP. */
  readonly gso: number;
}

export const settings: readonly Setting[] = [
  { name: "all offloads", mtu: 1500, features: "tx on sg on tso on gso on", gso: 65_536 },
  { name: "complete checksums", mtu: 1500, features: "tx off", gso: 65_536 },
  { name: "no segmentation offload", mtu: 1280, features: "tx on sg on tso off gso off", gso: 65_536 },
  { name: "no offloads, IPv4 alone", mtu: 600, features: "tx off sg off tso off gso off", gso: 65_536 },
  { name: "BIG TCP", mtu: 1500, features: "tx on sg on tso on gso on", gso: 185_000 },
];

export type SecretName = "ALLOWED" | "LONG" | "DENIED";

export interface RequestPlan {
  readonly path: string;
  readonly secret: SecretName | null;
  readonly where: "header" | "body" | "nowhere";
  /** Bytes before the placeholder, if that stands there. */
  readonly body: number;
  /** The body begins in the header block's record. */
  readonly joined: boolean;
  readonly writes: readonly number[];
}

export interface ConnectionPlan {
  /** Its port is `firstPort` + this. */
  readonly index: number;
  readonly listener: string;
  readonly ipv6: boolean;
  readonly name: string;
  readonly noDelay: boolean;
  /** Bytes; 0: the kernel's. */
  readonly sendBuffer: number;
  /** Bytes; 0: what the MTU allows. */
  readonly segment: number;
  /** The requests of a batch are written before the first answer is read. */
  readonly batches: readonly (readonly RequestPlan[])[];
}

/** Below those that sockets get by themselves: the agent's connections are let alone. */
export const firstPort = 10_000;
export const connectionsMax = 20_000;

/** Numbers below `limit`, from a seed (mulberry32). */
export function dice(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % limit;
  };
}

/**
 * Records that a client may have under way: what a key remembers of its records is a ring of 256, and who outruns it
 * is inert (`unproven-flow`).
 */
const recordsMax = 200;
const recordBytes = 16_384;

/** @param records that it may take */
function requestPlan(path: string, records: number, roll: (limit: number) => number): RequestPlan {
  const what = roll(10);
  const secret = what < 5 ? "ALLOWED" : what < 7 ? "LONG" : what < 8 ? "DENIED" : what < 9 ? "ALLOWED" : null;
  const where = what < 8 ? "header" : what < 9 ? "body" : "nowhere";
  const writes = records - 2;
  const size = Math.min([0, 0, 200, 3000, 30_000, 120_000][roll(6)] ?? 0, writes * recordBytes);
  const body = size && 1 + roll(size);
  const least = Math.ceil(body / writes);
  return {
    path,
    secret,
    where,
    body,
    joined: roll(2) === 0,
    writes: Array.from({ length: 1 + roll(4) }, () =>
      Math.max(least, 1 + roll([300, 3000, recordBytes][roll(3)] ?? 1)),
    ),
  };
}

export function connectionPlan(seed: number, index: number, setting: Setting): ConnectionPlan {
  const roll = dice(seed * 1_000_003 + index * 7919);
  const ipv6 = setting.mtu >= 1280 && roll(2) === 1;
  return {
    index,
    listener: suites[roll(suites.length)]?.name ?? "",
    ipv6,
    name: ipv6 ? `six.${host}` : host,
    noDelay: roll(2) === 1,
    sendBuffer: [0, 0, 5_000, 20_000, 100_000][roll(5)] ?? 0,
    segment: roll(4) === 0 ? 88 + roll(1300) : 0,
    batches: Array.from({ length: 1 + roll(4) }, (_, batch) => {
      const length = 1 + roll(roll(3) === 0 ? 24 : 3);
      const records = Math.floor(recordsMax / length);
      return Array.from({ length }, (__, request) => requestPlan(`/${index}/${batch}/${request}`, records, roll));
    }),
  };
}

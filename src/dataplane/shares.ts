import type { BpfMap, Field } from "./map.ts";
import type { Maps } from "./dataplane.ts";
import {
  contextKeyCodec,
  flowKeyCodec,
  helloCodec,
  keyNameCodec,
  offsets,
  outstandingCodec,
  patchCodec,
  regionChunkCodec,
  sightingCodec,
  table,
} from "./types.gen.ts";
import { u64 } from "./codec.ts";

type Table = Exclude<keyof typeof table, "count">;

/** Where each entry of a table says whose it is. A state of HTTP/2 is whose its key is. */
const ownerFields: Readonly<Record<Exclude<Table, "h2States">, readonly ["key" | "value", Field<number>]>> = {
  flows: ["key", flowKeyCodec.fields.workload],
  outstanding: ["value", outstandingCodec.fields.workload],
  hellos: ["value", helloCodec.fields.workload],
  keys: ["key", keyNameCodec.fields.workload],
  contexts: ["key", contextKeyCodec.fields.workload],
  patches: ["value", patchCodec.fields.workload],
  regionChunks: ["value", regionChunkCodec.fields.workload],
  fingerprints: [
    "value",
    [sightingCodec.fields.key[0] + keyNameCodec.fields.workload[0], keyNameCodec.fields.workload[1]],
  ],
};

function ownersIn(maps: Maps, name: Table): readonly number[] {
  if (name === "h2States") {
    const workloads = keyOwners(maps);
    return maps.h2_states.keys().map((serial) => workloads.get(serial) ?? 0);
  }
  const [part, field] = ownerFields[name];
  const map: BpfMap<unknown, unknown> = maps[mapOf(name)];
  return part === "key" ? map.eachKey(field) : map.eachValue(field).map(([, workload]) => workload);
}

/** Deletes what a workload has in every table; its states of HTTP/2 go with the next sweep. */
export function forgetOwner(maps: Maps, has: (map: keyof Maps) => boolean, workload: number): void {
  for (const [name, [part, field]] of Object.entries(ownerFields)) {
    const map = mapOf(name as Table);
    if (has(map)) maps[map].deleteWhere(part, field, (owner) => owner === workload);
  }
}

/** By the serial of each key. */
export function keyOwners({ keys }: Maps): ReadonlyMap<bigint, number> {
  const workload = keyNameCodec.fields.workload;
  return new Map(
    keys
      .eachValue([offsets.keyState.serial, u64])
      .map(([name, serial]) => [serial, workload[1].decode(name, workload[0])]),
  );
}

/**
 * Counts anew how much of each table each workload has: bpf/maps/shares.h. Entries that come or go meanwhile may be
 * missed; the next time puts that right.
 */
export function countShares(maps: Maps, has: (map: keyof Maps) => boolean): void {
  if (!has("shares")) return;
  const rows = new Map<number, number[]>([[0, []]]);
  for (const [name, index] of Object.entries(table)) {
    if (name === "count" || !has(mapOf(name as Table))) continue;
    for (const workload of ownersIn(maps, name as Table)) {
      for (const owner of workload === 0 ? [0] : [0, workload]) {
        const used = rows.get(owner) ?? [];
        used[index] = (used[index] ?? 0) + 1;
        rows.set(owner, used);
      }
    }
  }
  for (const workload of maps.shares.keys()) if (!rows.has(workload)) maps.shares.delete(workload);
  for (const [workload, used] of rows)
    maps.shares.set(workload, { used: Array.from({ length: table.count }, (_, index) => used[index] ?? 0) });
}

function mapOf(name: Table): keyof Maps {
  if (name === "h2States") return "h2_states";
  return name === "regionChunks" ? "region_chunks" : name;
}

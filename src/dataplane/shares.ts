import type { Field } from "./map.ts";
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

/** Whose each entry of a table is. */
const owners: Readonly<Record<Table, (maps: Maps) => readonly number[]>> = {
  flows: ({ flows }) => flows.eachKey(flowKeyCodec.fields.workload),
  outstanding: ({ outstanding }) => ofValues(outstanding, outstandingCodec.fields.workload),
  hellos: ({ hellos }) => ofValues(hellos, helloCodec.fields.workload),
  keys: ({ keys }) => keys.eachKey(keyNameCodec.fields.workload),
  h2States: h2Owners,
  contexts: ({ contexts }) => contexts.eachKey(contextKeyCodec.fields.workload),
  patches: ({ patches }) => ofValues(patches, patchCodec.fields.workload),
  regionChunks: ({ region_chunks: chunks }) => ofValues(chunks, regionChunkCodec.fields.workload),
  fingerprints: ({ fingerprints }) =>
    ofValues(fingerprints, [
      sightingCodec.fields.key[0] + keyNameCodec.fields.workload[0],
      keyNameCodec.fields.workload[1],
    ]),
};

function ofValues(map: { eachValue(field: Field<number>): [Buffer, number][] }, field: Field<number>): number[] {
  return map.eachValue(field).map(([, workload]) => workload);
}

/** An HTTP/2 state belongs to whom its key belongs to. */
function h2Owners(maps: Maps): number[] {
  const workloads = keyOwners(maps);
  return maps.h2_states.keys().map((serial) => workloads.get(serial) ?? 0);
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
    for (const workload of owners[name as Table](maps)) {
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

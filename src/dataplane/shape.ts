/*
 * What must be the same for two versions of the data plane to work on the same maps: the shape of each map, down to the
 * last field, and the meaning of the numbers in them.
 */
import { createHash } from "node:crypto";
import { Btf, type BtfType } from "./btf.ts";
import * as generated from "./types.gen.ts";

/**
 * Raise it when the same bytes come to mean something else (how a mark is computed, when a field is valid): a shape does
 * not show that.
 */
export const meaning = 1;

export interface Shapes {
  readonly meaning: number;
  /** By map: a hash of its type and of all that its keys and values are made of. How many entries it has may differ. */
  readonly maps: Readonly<Record<string, string>>;
  /** By enum and name. A name that only one side has is no difference. */
  readonly enums: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** @param objects contents of BPF object files, by path */
export function shapesOf(objects: ReadonlyMap<string, Buffer>): Shapes {
  const maps: Record<string, string> = {};
  for (const [path, bytes] of objects) Object.assign(maps, mapShapes(new Btf(bytes, path)));
  return { meaning, maps, enums: enums() };
}

/** What keeps `ours` from using maps of shape `theirs`, each a few words; empty if nothing does. */
export function differences(ours: Shapes, theirs: Shapes): string[] {
  const found: string[] = [];
  if (ours.meaning !== theirs.meaning) found.push(`meaning ${theirs.meaning} instead of ${ours.meaning}`);
  for (const [name, shape] of Object.entries(ours.maps)) {
    const other = theirs.maps[name];
    if (other !== undefined && other !== shape) found.push(`map ${name}`);
  }
  for (const [name, values] of Object.entries(ours.enums)) {
    const others = theirs.enums[name] ?? {};
    const moved = Object.keys(values).filter((key) => others[key] !== undefined && others[key] !== values[key]);
    if (moved.length > 0) found.push(`enum ${name} (${moved.join(", ")})`);
  }
  return found;
}

function mapShapes(btf: Btf): Record<string, string> {
  const section = btf.find("section", ".maps");
  const shapes: Record<string, string> = {};
  for (const member of section?.members ?? []) {
    const variable = btf.at(member.type);
    const struct = btf.resolve(variable.type);
    const parts = ["type", "key", "value"].map((name) => {
      const field = struct.members.find((each) => each.name === name);
      if (field === undefined) return "";
      const pointer = btf.resolve(field.type);
      return deepShape(btf, pointer.kind === "pointer" ? pointer.type : field.type);
    });
    shapes[variable.name] = createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 16);
  }
  return shapes;
}

function deepShape(btf: Btf, id: number): string {
  const type: BtfType = btf.resolve(id);
  if (type.kind === "array") return `${deepShape(btf, type.type)}[${type.count}]`;
  if (type.kind === "pointer") return "*";
  if (type.kind !== "struct" && type.kind !== "union") return `${type.kind}/${type.bytes}`;
  const fields = type.members.map(({ name, offset, type: of }) => `${name}@${offset}:${deepShape(btf, of)}`);
  return `{${type.bytes} ${fields.join(" ")}}`;
}

/** `counter` is left out: an index that is not there yet counts nothing, and one that has moved is only a number. */
function enums(): Shapes["enums"] {
  const found: Record<string, Record<string, number>> = {};
  for (const [name, value] of Object.entries(generated as Record<string, unknown>)) {
    if (typeof value !== "object" || value === null || name === "constants" || name === "counter") continue;
    const entries = Object.entries(value);
    if (entries.length > 0 && entries.every(([key, item]) => typeof item === "number" && !/^\d+$/.test(key)))
      found[name] = Object.fromEntries(entries) as Record<string, number>;
  }
  return found;
}

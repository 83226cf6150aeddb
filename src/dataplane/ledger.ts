/*
 * What agents write down for their successors, in a map that is pinned with the others: no file and map can disagree, and
 * whoever removes one removes both. Secret values are not in it; the kernel's tables have what there is of them.
 */
import { loadNative, type MapHandle } from "./native.ts";

/** Kinds of entries; numbers within a kind are the writer's. */
export const ledgerKind = { head: 0, workload: 1, secret: 2 } as const;
export type LedgerKind = keyof typeof ledgerKind;

const keyBytes = 12;
const partBytes = 1024;
const lengthBytes = 4;

export class Ledger {
  readonly #handle: MapHandle;

  constructor(handle: MapHandle) {
    this.#handle = handle;
  }

  /** @param value JSON. An entry of one part, up to 1,020 bytes, is replaced at once; a longer one is gone for a moment. */
  set(kind: LedgerKind, number: number, value: unknown): void {
    const native = loadNative();
    const text = Buffer.from(JSON.stringify(value));
    const length = Buffer.alloc(lengthBytes);
    length.writeUInt32LE(text.length);
    const all = Buffer.concat([length, text]);
    const parts = Math.ceil(all.length / partBytes);
    if (parts > 1) native.mapDelete(this.#handle, keyOf(kind, number, 0));
    // The first last: without it there is no entry.
    for (let part = parts - 1; part >= 0; part -= 1) {
      const bytes = Buffer.alloc(partBytes);
      all.copy(bytes, 0, part * partBytes, (part + 1) * partBytes);
      native.mapUpdate(this.#handle, keyOf(kind, number, part), bytes);
    }
  }

  get(kind: LedgerKind, number: number): unknown {
    const native = loadNative();
    const first = native.mapLookup(this.#handle, keyOf(kind, number, 0));
    if (first === undefined) return undefined;
    const length = first.readUInt32LE(0) + lengthBytes;
    const parts = [first];
    for (let part = 1; part * partBytes < length; part += 1) {
      const bytes = native.mapLookup(this.#handle, keyOf(kind, number, part));
      if (bytes === undefined) return undefined;
      parts.push(bytes);
    }
    try {
      return JSON.parse(Buffer.concat(parts).toString("utf8", lengthBytes, length));
    } catch {
      return undefined;
    }
  }

  delete(kind: LedgerKind, number: number): void {
    const native = loadNative();
    for (let part = 0; native.mapDelete(this.#handle, keyOf(kind, number, part)); part += 1);
  }

  /** Numbers of the entries of a kind that are complete, in order. */
  numbers(kind: LedgerKind): number[] {
    const keys = loadNative().mapKeys(this.#handle);
    const found: number[] = [];
    for (let at = 0; at < keys.length; at += keyBytes) {
      if (keys.readUInt32LE(at) === ledgerKind[kind] && keys.readUInt32LE(at + 8) === 0)
        found.push(keys.readUInt32LE(at + 4));
    }
    return found.toSorted((a, b) => a - b);
  }
}

function keyOf(kind: LedgerKind, number: number, part: number): Buffer {
  const key = Buffer.alloc(keyBytes);
  key.writeUInt32LE(ledgerKind[kind], 0);
  key.writeUInt32LE(number, 4);
  key.writeUInt32LE(part, 8);
  return key;
}

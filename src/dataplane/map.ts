import type { Codec } from "./codec.ts";
import { loadNative, type MapHandle } from "./native.ts";

/** Where in a key or value, and what. */
export type Field<T> = readonly [offset: number, codec: Codec<T>];

/** A map of the kernel. Every operation is a system call, and is seen by BPF programs at once. */
export class BpfMap<K, V> {
  readonly name: string;
  /** Most entries that it can hold. */
  readonly entries: number;
  readonly handle: MapHandle;
  readonly #key: Codec<K>;
  readonly #value: Codec<V>;

  constructor(handle: MapHandle, key: Codec<K>, value: Codec<V>) {
    const info = loadNative().mapInfo(handle);
    if (info.keyBytes !== key.bytes || info.valueBytes !== value.bytes)
      throw new RangeError(
        `map ${info.name}: keys of ${info.keyBytes} and values of ${info.valueBytes} bytes in the kernel, ` +
          `${key.bytes} and ${value.bytes} here`,
      );
    this.handle = handle;
    this.name = info.name;
    this.entries = info.entries;
    this.#key = key;
    this.#value = value;
  }

  get(key: K): V | undefined {
    const value = this.getRaw(this.#key.encode(key));
    return value && this.#value.decode(value);
  }

  /** Key and value as the kernel keeps them; of a per-CPU map one value for each possible CPU, 8-byte aligned. */
  getRaw(key: Uint8Array): Buffer | undefined {
    return loadNative().mapLookup(this.handle, key);
  }

  has(key: K): boolean {
    return this.getRaw(this.#key.encode(key)) !== undefined;
  }

  /** @throws NativeError, `E2BIG` or `ENOSPC` when it is full */
  set(key: K, value: V): void {
    loadNative().mapUpdate(this.handle, this.#key.encode(key), this.#value.encode(value));
  }

  /** Like `set` one after the other, by one call into the addon. Not atomic; @throws at the first that does not fit. */
  setMany(entries: Iterable<readonly [K, V]>): void {
    const keys: Buffer[] = [];
    const values: Buffer[] = [];
    for (const [key, value] of entries) {
      keys.push(this.#key.encode(key));
      values.push(this.#value.encode(value));
    }
    if (keys.length > 0) loadNative().mapUpdateMany(this.handle, Buffer.concat(keys), Buffer.concat(values));
  }

  /** False if it was not there. */
  delete(key: K): boolean {
    return loadNative().mapDelete(this.handle, this.#key.encode(key));
  }

  /** A snapshot; while others write, an entry may come twice or not at all. */
  keys(): K[] {
    return split(loadNative().mapKeys(this.handle), this.#key);
  }

  entriesNow(): [K, V][] {
    const { keys, values } = loadNative().mapEntries(this.handle);
    const decoded = split(values, this.#value);
    return split(keys, this.#key).flatMap((key, index) => {
      const value = decoded[index];
      return value === undefined ? [] : [[key, value] as [K, V]];
    });
  }

  clear(): void {
    const native = loadNative();
    const keys = native.mapKeys(this.handle);
    for (let at = 0; at < keys.length; at += this.#key.bytes)
      native.mapDelete(this.handle, keys.subarray(at, at + this.#key.bytes));
  }

  /** Deletes every entry whose value has a u64 below `before` at `offset`, and gives their keys. */
  sweep(offset: number, before: bigint): K[] {
    return split(loadNative().mapSweep(this.handle, offset, before, true), this.#key);
  }

  /** What `sweep` would delete. */
  older(offset: number, before: bigint): K[] {
    return split(loadNative().mapSweep(this.handle, offset, before, false), this.#key);
  }

  /** Of every key, once, the field that lies there: `map.eachKey(flowKeyCodec.fields.workload)`. */
  eachKey<T>(field: Field<T>): T[] {
    return this.#column(true, field).map(([, value]) => value);
  }

  /** Of every entry's value the field that lies there, with its key as the kernel keeps it. */
  eachValue<T>(field: Field<T>): [key: Buffer, value: T][] {
    return this.#column(false, field);
  }

  #column<T>(inKey: boolean, [offset, codec]: Field<T>): [Buffer, T][] {
    const { keys, column } = loadNative().mapColumn(this.handle, inKey, offset, codec.bytes);
    return Array.from({ length: column.length / codec.bytes }, (_, index) => [
      keys.subarray(index * this.#key.bytes, (index + 1) * this.#key.bytes),
      codec.decode(column, index * codec.bytes),
    ]);
  }

  /** Deletes the entries of which the field in the key, or in the value, is such; says how many. */
  deleteWhere<T>(part: "key" | "value", field: Field<T>, isSuch: (value: T) => boolean): number {
    const native = loadNative();
    const found = this.#column(part === "key", field).filter(([, value]) => isSuch(value));
    return found.filter(([key]) => native.mapDelete(this.handle, key)).length;
  }

  pin(path: string): void {
    loadNative().mapPin(this.handle, path);
  }

  close(): void {
    loadNative().mapClose(this.handle);
  }
}

function split<T>(buffer: Buffer, codec: Codec<T>): T[] {
  const items: T[] = [];
  for (let at = 0; at < buffer.length; at += codec.bytes) items.push(codec.decode(buffer, at));
  return items;
}

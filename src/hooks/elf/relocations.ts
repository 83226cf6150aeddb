import { locate, segmentType, word } from "./image.ts";
import type { ElfImage } from "./image.ts";
import { chunks } from "./source.ts";

/** Elf64_Rela: where, what and of which symbol, addend. */
const entrySize = 24;
const addendAt = 16;
/** Real position-independent executables have up to 16 MB of them. */
const searchMax = 64 << 20;
/** Of a library whose entries are all looked at; libgnutls has 90 KB. */
const allMax = 4 << 20;
const relative = { "x86-64": 8n, arm64: 1027n } as const;
const tag = { rela: 7, relaSize: 8 } as const;

interface Table {
  readonly offset: number;
  readonly size: number;
}

/** The table of relocations with addends that the loader applies; undefined: there is none, or it is not searched. */
function relocations(image: ElfImage): Table | undefined {
  const segment = image.segments.find(({ type }) => type === segmentType.dynamic);
  if (segment === undefined) return undefined;
  const bytes = image.source.read(segment.offset, Math.min(segment.fileSize, 64 << 10));
  const found = new Map<number, number>();
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    const type = word(bytes, at);
    if (type === 0) break;
    if (!found.has(type)) found.set(type, word(bytes, at + 8));
  }
  const place = locate(image, found.get(tag.rela) ?? -1);
  if (place === undefined) return undefined;
  const size = Math.min(found.get(tag.relaSize) ?? 0, place.left);
  return size > searchMax ? undefined : { offset: place.offset, size };
}

/** Entries in which the word at `at` is `value`: at most `limit`. */
function* entries(image: ElfImage, at: number, value: number, limit: number): Generator<Buffer> {
  const table = relocations(image);
  if (table === undefined) return;
  const needle = Buffer.alloc(8);
  needle.writeBigUInt64LE(BigInt(value));
  let count = 0;
  for (const { offset, bytes } of chunks(image.source, table.offset, table.size, needle.length - 1)) {
    for (let hit = bytes.indexOf(needle); hit >= 0; hit = bytes.indexOf(needle, hit + 1)) {
      const place = offset + hit - at;
      if (place < 0 || place % entrySize !== 0 || place + entrySize > table.size) continue;
      if ((count += 1) > limit) return;
      const entry = image.source.read(table.offset + place, entrySize);
      if (entry.readBigUInt64LE(8) === relative[image.machine]) yield entry;
    }
  }
}

/** Addresses at which the loader of a position-independent file writes the address `value`. */
export function pointersTo(image: ElfImage, value: number, limit: number): number[] {
  return [...entries(image, addendAt, value, limit)].map((entry) => word(entry, 0));
}

/** The address that the loader writes at `address`; undefined where it leaves what is in the file. */
export function relocated(image: ElfImage, address: number): number | undefined {
  for (const entry of entries(image, 0, address, 1)) return word(entry, addendAt);
  return undefined;
}

/** All addresses that the loader writes into the program, by where it writes them. */
export function relativeWords(image: ElfImage): ReadonlyMap<number, number> {
  const words = new Map<number, number>();
  const table = relocations(image);
  if (table === undefined || table.size > allMax) return words;
  const bytes = image.source.read(table.offset, table.size - (table.size % entrySize));
  for (let at = 0; at < bytes.length; at += entrySize) {
    if (bytes.readBigUInt64LE(at + 8) !== relative[image.machine]) continue;
    words.set(word(bytes, at), word(bytes, at + addendAt));
  }
  return words;
}

/** The same for many addresses, in one reading of the table. */
export function relocatedWords(image: ElfImage, addresses: ReadonlySet<number>): Map<number, number> {
  const found = new Map<number, number>();
  const table = relocations(image);
  if (table === undefined || addresses.size === 0) return found;
  const perRead = 1 << 15;
  const count = Math.floor(table.size / entrySize);
  for (let first = 0; first < count; first += perRead) {
    const some = Math.min(perRead, count - first);
    const bytes = image.source.read(table.offset + first * entrySize, some * entrySize);
    for (let at = 0; at < bytes.length; at += entrySize) {
      // Above 2^53 nothing is looked for.
      const address = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
      if (!addresses.has(address) || bytes.readBigUInt64LE(at + 8) !== relative[image.machine]) continue;
      found.set(address, word(bytes, at + addendAt));
    }
  }
  return found;
}

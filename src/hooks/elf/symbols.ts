import { readDynamic } from "./dynamic.ts";
import type { Dynamic } from "./dynamic.ts";
import { locate, readAddress, sectionType, word } from "./image.ts";
import type { ElfImage } from "./image.ts";
import { chunks } from "./source.ts";

export interface ElfSymbol {
  readonly name: string;
  readonly address: number;
  readonly size: number;
  /** st_info & 15: 2 is a function. */
  readonly type: number;
  readonly table: "dynsym" | "symtab";
}

export interface SymbolTable {
  /** Definitions under these names; several where a name has several versions. */
  readonly defined: ReadonlyMap<string, readonly ElfSymbol[]>;
  /** Which of these names the file takes from others. */
  readonly imported: ReadonlySet<string>;
}

const symbolBytes = 24;
const functionType = 2;
/** Bounds on hostile files; the largest real tables seen have a tenth of it. */
const symbolsMax = 4 << 20;
const stringsMax = 64 << 20;
const chainMax = 1024;

/**
 * Looks names up in the dynamic symbols, through the hash table that the loader uses, and those not found there in
 * `.symtab` (static code that was not stripped), unless told not to.
 */
export function lookup(
  image: ElfImage,
  names: readonly string[],
  { dynamicOnly = false }: { readonly dynamicOnly?: boolean } = {},
): SymbolTable {
  const defined = new Map<string, ElfSymbol[]>();
  const imported = new Set<string>();
  const add = (name: string, entry: Buffer, table: ElfSymbol["table"]): void => {
    if (entry.readUInt16LE(6) === 0) {
      imported.add(name);
      return;
    }
    const type = (entry[4] ?? 0) & 15;
    const symbol = { name, address: word(entry, 8), size: word(entry, 16), type, table };
    const others = defined.get(name) ?? [];
    // Another version of the same code is the same place.
    if (symbol.type === functionType && !others.some(({ address }) => address === symbol.address)) {
      defined.set(name, [...others, symbol]);
    }
  };
  const dynamic = readDynamic(image);
  if (dynamic?.strings !== undefined && dynamic.symbols !== undefined) {
    const strings = dynamic.strings;
    let unhashed: number | undefined;
    if (dynamic.gnuHash === undefined) {
      unhashed = countByHash(image, dynamic) ?? countBySection(image);
    } else {
      for (const name of names) {
        for (const index of gnuHashLookup(image, dynamic.gnuHash, name)) {
          const entry = readAddress(image, dynamic.symbols + index * symbolBytes, symbolBytes);
          if (nameIs(image, strings, entry.readUInt32LE(0), name)) add(name, entry, "dynsym");
        }
      }
      unhashed = readAddress(image, dynamic.gnuHash, 16).readUInt32LE(4);
    }
    const place = locate(image, dynamic.symbols);
    const missing = names.filter((name) => !defined.has(name));
    if (place !== undefined && unhashed !== undefined && missing.length > 0) {
      const count = Math.min(unhashed, Math.floor(place.left / symbolBytes));
      scan(image, { ...place, count }, strings, missing, (name, entry) => add(name, entry, "dynsym"));
    }
  }
  if (dynamicOnly) return { defined, imported };
  const missing = names.filter((name) => !defined.has(name));
  const symtab = image.sections.find(({ type }) => type === sectionType.symbols);
  const strtab = symtab === undefined ? undefined : image.sections[symtab.link];
  if (symtab !== undefined && strtab?.type === sectionType.strings && missing.length > 0) {
    const table = { offset: symtab.offset, count: Math.floor(symtab.size / symbolBytes) };
    scan(image, table, strtab, missing, (name, entry) => add(name, entry, "symtab"));
  }
  return { defined, imported };
}

/** GNU hash, as in glibc `dl_new_hash`. */
function gnuHash(name: string): number {
  let hash = 5381;
  for (const byte of Buffer.from(name, "latin1")) hash = (Math.imul(hash, 33) + byte) >>> 0;
  return hash;
}

/** Indices whose hash agrees but for its lowest bit. */
function* gnuHashLookup(image: ElfImage, address: number, name: string): Generator<number> {
  const header = readAddress(image, address, 16);
  const buckets = header.readUInt32LE(0);
  const firstHashed = header.readUInt32LE(4);
  const bloomWords = header.readUInt32LE(8);
  const shift = header.readUInt32LE(12);
  if (buckets === 0) return;
  const hash = gnuHash(name);
  if (bloomWords > 0) {
    const bloom = readAddress(image, address + 16 + ((hash >>> 6) % bloomWords) * 8, 8).readBigUInt64LE(0);
    const mask = (1n << BigInt(hash & 63)) | (1n << BigInt((hash >>> (shift & 31)) & 63));
    if ((bloom & mask) !== mask) return;
  }
  const bucketsAt = address + 16 + bloomWords * 8;
  const chainAt = bucketsAt + buckets * 4;
  let index = readAddress(image, bucketsAt + (hash % buckets) * 4, 4).readUInt32LE(0);
  if (index < firstHashed) return;
  for (let steps = 0; steps < chainMax; steps++, index++) {
    const link = readAddress(image, chainAt + (index - firstHashed) * 4, 4).readUInt32LE(0);
    if ((link | 1) === (hash | 1)) yield index;
    if ((link & 1) === 1) return;
  }
}

/** DT_HASH: nchain is the number of symbols. */
function countByHash(image: ElfImage, dynamic: Dynamic): number | undefined {
  return dynamic.hash === undefined ? undefined : readAddress(image, dynamic.hash, 8).readUInt32LE(4);
}

function countBySection(image: ElfImage): number | undefined {
  const section = image.sections.find(({ type }) => type === sectionType.dynamicSymbols);
  return section === undefined ? undefined : Math.floor(section.size / symbolBytes);
}

interface Strings {
  readonly offset: number;
  readonly size: number;
}

function nameIs(image: ElfImage, strings: Strings, at: number, name: string): boolean {
  if (at + name.length + 1 > strings.size) return false;
  const bytes = image.source.read(strings.offset + at, name.length + 1);
  return bytes[name.length] === 0 && bytes.toString("latin1", 0, name.length) === name;
}

/** Walks a whole table, but compares numbers only: first the places of the names among the strings are found. */
function scan(
  image: ElfImage,
  table: { readonly offset: number; readonly count: number },
  strings: Strings,
  names: readonly string[],
  found: (name: string, entry: Buffer) => void,
): void {
  if (table.count > symbolsMax || strings.size > stringsMax) return;
  const places = placesOf(image, strings, names);
  if (places.size === 0) return;
  const perRead = 40_000;
  for (let index = 0; index < table.count; index += perRead) {
    const count = Math.min(perRead, table.count - index);
    const bytes = image.source.read(table.offset + index * symbolBytes, count * symbolBytes);
    for (let at = 0; at < bytes.length; at += symbolBytes) {
      const name = places.get(bytes.readUInt32LE(at));
      if (name !== undefined) found(name, bytes.subarray(at, at + symbolBytes));
    }
  }
}

/** Linkers let one string be the end of another, so a place need not follow a NUL; it must end with one. */
function placesOf(image: ElfImage, strings: Strings, names: readonly string[]): Map<number, string> {
  const places = new Map<number, string>();
  const placesMax = 4096;
  const overlap = Math.max(...names.map((name) => name.length)) + 1;
  const needles = names.map((name) => ({ name, bytes: Buffer.from(`${name}\0`, "latin1") }));
  for (const chunk of chunks(image.source, strings.offset, strings.size, overlap)) {
    for (const { name, bytes } of needles) {
      let at = chunk.bytes.indexOf(bytes);
      while (at >= 0 && places.size < placesMax) {
        places.set(chunk.offset + at, name);
        at = chunk.bytes.indexOf(bytes, at + 1);
      }
    }
  }
  return places;
}

/*
 * The tables of functions by which BoringSSL and AWS-LC know an AEAD (struct evp_aead_st). They need no symbols: a table
 * begins with the lengths of key, nonce, overhead and tag, and then come pointers to functions at the same places in all
 * versions. That of ChaCha20-Poly1305 stands in the file; those of AES-GCM are written by code when they are first used.
 */
import { locate, readAddress, segmentFlag, segmentType, word } from "../elf/image.ts";
import type { ElfImage, Segment } from "../elf/image.ts";
import { relocated, relocatedWords } from "../elf/relocations.ts";
import { chunks } from "../elf/source.ts";
import { storesOf } from "../x86/stores.ts";
import type { ReadWord } from "../x86/stores.ts";

/** What a table says of one AEAD, as far as it is used here. */
export interface Method {
  readonly keyLength: 16 | 32;
  readonly library: "BoringSSL" | "AWS-LC";
  /** Addresses of functions. */
  readonly init: number;
  readonly seal: number;
}

/** Where the pointers are: AWS-LC has a number of the AEAD, and aligns what follows it. */
const layouts = [
  { library: "BoringSSL", init: 8, cleanup: 24, seal: 40, open: 48 },
  { library: "AWS-LC", init: 16, cleanup: 32, seal: 48, open: 56 },
] as const;

/** After the key's length: 12 bytes of nonce, 16 of overhead, all of which the tag may have. */
const lengths = Buffer.from([12, 16, 16]);
const searchMax = 512 << 20;
const candidatesMax = 256;
/** Words that the code around a table loads; each is looked up among the loader's relocations. */
const constantsMax = 64;

/** Tables that code writes: AES-GCM's. */
export function methodsWritten(image: ElfImage): Method[] {
  const found: Method[] = [];
  const known = new Map<number, number | undefined>();
  const read = (address: number): number | undefined => {
    if (!known.has(address) && known.size < constantsMax) known.set(address, readWord(image, address));
    return known.get(address);
  };
  for (const segment of loaded(image, true)) {
    for (const { place, keyLength } of candidates(image, segment)) {
      const method = writtenAt(image, segment, place, keyLength, read);
      if (method !== undefined) found.push(method);
    }
  }
  return found;
}

/** Tables that stand in the file. */
export function methodsStored(image: ElfImage): Method[] {
  const tables = loaded(image, false).flatMap((segment) =>
    candidates(image, segment)
      .map(({ place, keyLength }) => ({ address: segment.address + (place - segment.offset), keyLength }))
      .filter(({ address }) => address % 8 === 0),
  );
  const fields = [...new Set(layouts.flatMap(({ init, cleanup, seal, open }) => [init, cleanup, seal, open]))];
  const words = new Set(tables.flatMap(({ address }) => fields.map((offset) => address + offset)));
  const pointers = relocatedWords(image, words);
  return tables
    .map(({ address, keyLength }) =>
      methodOf(image, keyLength, (offset) => pointers.get(address + offset) ?? storedWord(image, address + offset)),
    )
    .filter((method) => method !== undefined);
}

/** Not more of them than the file has bytes: segments that lie over each other are no compiler's. */
function loaded(image: ElfImage, executable: boolean): Segment[] {
  let left = Math.min(image.source.size, searchMax);
  return image.segments.filter(({ type, flags, fileSize }) => {
    if (type !== segmentType.load || ((flags & segmentFlag.execute) !== 0) !== executable || fileSize > left)
      return false;
    left -= fileSize;
    return true;
  });
}

/** Places in the file of four bytes that a table may begin with. */
function candidates(image: ElfImage, segment: Segment): { place: number; keyLength: 16 | 32 }[] {
  const found: { place: number; keyLength: 16 | 32 }[] = [];
  for (const { offset, bytes } of chunks(image.source, segment.offset, segment.fileSize, lengths.length)) {
    for (let at = bytes.indexOf(lengths, 1); at >= 0; at = bytes.indexOf(lengths, at + 1)) {
      const keyLength = bytes[at - 1];
      if (keyLength !== 16 && keyLength !== 32) continue;
      found.push({ place: segment.offset + offset + at - 1, keyLength });
      if (found.length >= candidatesMax) return found;
    }
  }
  return found;
}

/** The code around a constant: how far before it its function may begin, and how far after it may end. */
const before = 224;
const after = 512;

/** As a constant of 32 bits that is stored, or of 64 that is loaded to be stored. */
const instructions = [
  { start: Buffer.from([0xc7, 0x05]), constantAt: 6 },
  { start: Buffer.from([0x48, 0xb8]), constantAt: 2 },
];

function writtenAt(
  image: ElfImage,
  segment: Segment,
  place: number,
  keyLength: 16 | 32,
  read: ReadWord,
): Method | undefined {
  const begin = Math.max(segment.offset, place - before);
  const end = Math.min(segment.offset + segment.fileSize, place + after);
  const code = image.source.read(begin, end - begin);
  const into = place - begin;
  const constant = code.readUInt32LE(into);
  const instruction = instructions.find(({ start, constantAt }) =>
    code.subarray(Math.max(0, into - constantAt), into - constantAt + start.length).equals(start),
  );
  if (instruction === undefined) return undefined;
  const wanted = into - instruction.constantAt;
  // From the earliest place from which there is a straight way to the constant: before it is another function.
  for (let start = 0; start <= wanted; start++) {
    const address = segment.address + (begin - segment.offset) + start;
    const stores = storesOf(code.subarray(start), address, read);
    if (!stores.starts.has(wanted - start)) continue;
    for (const [table, value] of stores.words) {
      if (value % 2 ** 32 !== constant) continue;
      const method = methodOf(image, keyLength, (offset) => stores.words.get(table + offset));
      if (method !== undefined) return method;
    }
    return undefined;
  }
  return undefined;
}

function methodOf(
  image: ElfImage,
  keyLength: 16 | 32,
  field: (offset: number) => number | undefined,
): Method | undefined {
  const isCode = (address: number | undefined): address is number =>
    address !== undefined && locate(image, address, segmentFlag.execute) !== undefined;
  for (const { library, ...offsets } of layouts) {
    const init = field(offsets.init);
    if (!isCode(init)) continue;
    const seal = field(offsets.seal);
    const complete = isCode(seal) && isCode(field(offsets.cleanup)) && isCode(field(offsets.open));
    return complete ? { keyLength, library, init, seal } : undefined;
  }
  return undefined;
}

function storedWord(image: ElfImage, address: number): number | undefined {
  const place = locate(image, address);
  return place === undefined || place.left < 8 ? undefined : word(readAddress(image, address, 8), 0);
}

/** As the loader leaves it. */
function readWord(image: ElfImage, address: number): number | undefined {
  return relocated(image, address) ?? storedWord(image, address);
}

import { ElfError } from "./source.ts";
import type { Source } from "./source.ts";

export type Machine = "x86-64" | "arm64";

export interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
}

export interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
}

/** The headers of a 64-bit little-endian ELF file. Every offset and size lies within the file. */
export interface ElfImage {
  readonly source: Source;
  readonly machine: Machine;
  readonly segments: readonly Segment[];
  /** Empty where the file has none, or wrong ones: the kernel and the loader do not need them. */
  readonly sections: readonly Section[];
}

export const segmentType = { load: 1, dynamic: 2, interpreter: 3, note: 4 } as const;
export const segmentFlag = { execute: 1, write: 2 } as const;
export const sectionType = { program: 1, symbols: 2, strings: 3, note: 7, dynamicSymbols: 11 } as const;

const segmentsMax = 512;
const sectionsMax = 8192;

/** A 64-bit field as a number; what does not fit cannot be an offset into a file. */
export function word(bytes: Buffer, at: number): number {
  const value = bytes.readBigUInt64LE(at);
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

export function isElf(source: Source): boolean {
  return source.size >= 64 && source.read(0, 4).readUInt32BE(0) === 0x7f454c46;
}

/** @throws ElfError */
export function readImage(source: Source): ElfImage {
  const malformed = (what: string) => new ElfError("elf-malformed", `File ${source.name}: ${what}`);
  if (!isElf(source)) throw new ElfError("elf-unsupported", `File ${source.name} is not an ELF file`);
  const header = source.read(0, 64);
  if (header[4] !== 2 || header[5] !== 1) {
    throw new ElfError("elf-unsupported", `File ${source.name} is not a 64-bit little-endian ELF file`);
  }
  const machineNumber = header.readUInt16LE(18);
  const machine = machineNumber === 62 ? "x86-64" : machineNumber === 183 ? "arm64" : undefined;
  if (machine === undefined) {
    throw new ElfError("elf-unsupported", `File ${source.name} is for machine ${machineNumber}, not x86-64 or arm64`);
  }
  const segmentCount = header.readUInt16LE(56);
  if (segmentCount > segmentsMax) throw malformed(`${segmentCount} program headers`);
  if (segmentCount > 0 && header.readUInt16LE(54) !== 56) throw malformed("program headers of an unknown size");
  const table = source.read(segmentCount === 0 ? 0 : word(header, 32), segmentCount * 56);
  const segments: Segment[] = [];
  for (let at = 0; at < table.length; at += 56) {
    const segment = {
      type: table.readUInt32LE(at),
      flags: table.readUInt32LE(at + 4),
      offset: word(table, at + 8),
      address: word(table, at + 16),
      fileSize: word(table, at + 32),
    };
    // One that reaches past the file may be of a kind that nobody loads: it is of no use, the rest may be.
    if (segment.offset + segment.fileSize <= source.size) segments.push(segment);
  }
  return { source, machine, segments, sections: readSections(source, header) };
}

function readSections(source: Source, header: Buffer): Section[] {
  const offset = word(header, 40);
  const count = header.readUInt16LE(60);
  if (count === 0 || count > sectionsMax || header.readUInt16LE(58) !== 64 || offset + count * 64 > source.size)
    return [];
  const table = source.read(offset, count * 64);
  const names = header.readUInt16LE(62);
  let nameBytes: Buffer = Buffer.alloc(0);
  if (names < count) {
    const at = word(table, names * 64 + 24);
    const size = word(table, names * 64 + 32);
    if (size <= 1 << 20 && at + size <= source.size) nameBytes = source.read(at, size);
  }
  const sections: Section[] = [];
  for (let at = 0; at < table.length; at += 64) {
    const section = {
      name: textAt(nameBytes, table.readUInt32LE(at)),
      type: table.readUInt32LE(at + 4),
      flags: table.readUInt32LE(at + 8),
      offset: word(table, at + 24),
      size: word(table, at + 32),
      link: table.readUInt32LE(at + 40),
    };
    // Kept with size 0, so that `link` of the others stays right: .bss, for one, has no bytes in the file.
    const inside = section.type !== 8 && section.offset + section.size <= source.size;
    sections.push(inside ? section : { ...section, offset: 0, size: 0 });
  }
  return sections;
}

/** The NUL-terminated text at `offset`, or "" if there is none. */
export function textAt(bytes: Buffer, offset: number): string {
  const end = offset < bytes.length ? bytes.indexOf(0, offset) : -1;
  return end < 0 ? "" : bytes.toString("latin1", offset, end);
}

/** Where an address of the program lies in the file, and how many bytes of the same segment follow. */
export function locate(
  image: ElfImage,
  address: number,
  flags = 0,
): { readonly offset: number; readonly left: number } | undefined {
  for (const segment of image.segments) {
    if (segment.type !== segmentType.load || (segment.flags & flags) !== flags) continue;
    const into = address - segment.address;
    if (into >= 0 && into < segment.fileSize) return { offset: segment.offset + into, left: segment.fileSize - into };
  }
  return undefined;
}

/** @throws ElfError if the bytes are not in the file */
export function readAddress(image: ElfImage, address: number, length: number): Buffer {
  const place = locate(image, address);
  if (place === undefined || place.left < length) {
    throw new ElfError("elf-malformed", `File ${image.source.name} has no ${length} bytes at address ${address}`);
  }
  return image.source.read(place.offset, length);
}

export interface Note {
  readonly owner: string;
  readonly type: number;
  readonly value: Buffer;
}

/** The notes of all PT_NOTE segments, of at most 64 KiB each. */
export function readNotes(image: ElfImage): Note[] {
  const notes: Note[] = [];
  for (const segment of image.segments) {
    if (segment.type !== segmentType.note || segment.fileSize > 64 << 10) continue;
    const bytes = image.source.read(segment.offset, segment.fileSize);
    for (let at = 0; at + 12 <= bytes.length && notes.length < 256; ) {
      const ownerLength = bytes.readUInt32LE(at);
      const valueLength = bytes.readUInt32LE(at + 4);
      const value = at + 12 + ((ownerLength + 3) & ~3);
      if (ownerLength > bytes.length || valueLength > bytes.length || value + valueLength > bytes.length) break;
      notes.push({
        owner: textAt(bytes.subarray(0, at + 12 + ownerLength), at + 12),
        type: bytes.readUInt32LE(at + 8),
        value: bytes.subarray(value, value + valueLength),
      });
      at = value + ((valueLength + 3) & ~3);
    }
  }
  return notes;
}

/** NT_GNU_BUILD_ID in hexadecimal. */
export function buildId(image: ElfImage): string | undefined {
  return readNotes(image)
    .find((note) => note.owner === "GNU" && note.type === 3 && note.value.length > 0)
    ?.value.toString("hex");
}

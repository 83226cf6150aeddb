/*
 * pclntab: the table by which a Go program knows its own functions, for its stack traces and its garbage collector. It
 * is in every executable, and no tool that removes symbols removes it. Of go1.18 and later: src/runtime/symtab.go.
 */
import { segmentFlag, segmentType, word } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { chunks, ElfError } from "../elf/source.ts";

interface Range {
  readonly offset: number;
  readonly size: number;
}

export interface Pclntab {
  /** In the program. */
  readonly address: number;
  readonly functionCount: number;
  /** Offsets from the table's start, as its header gives them. */
  readonly namesAt: number;
  readonly functionsAt: number;
  /** Of the names and of the functions, in the file. */
  readonly names: Range;
  readonly functions: Range;
}

export interface GoFunction {
  readonly name: string;
  /** From where the program's code starts. */
  readonly entry: number;
  readonly size: number;
  /** Of arguments and results on the stack (ABI0). */
  readonly argumentBytes: number;
}

const headerSize = 72;
/** go1.18 and 1.19, then go1.20 and later. */
const magics = [0xfffffff0, 0xfffffff1];
const sectionNames = [".gopclntab", ".data.rel.ro.gopclntab"];
const goSections = [".go.buildinfo", ".note.go.buildid"];
/** A table has 100,000 functions in 10 MB of names and 20 MB of the rest in the largest executables seen. */
const searchMax = 256 << 20;
const functionsMax = 1 << 22;
const nameMax = 512;
const functionSizeMax = 1 << 20;
const namesFoundMax = 8;
const candidatesMax = 1024;

/** Undefined: not a Go program. @throws ElfError if it is one, and its table is not what it should be */
export function readPclntab(image: ElfImage): Pclntab | undefined {
  const named = image.sections.filter(({ name, size }) => sectionNames.includes(name) && size >= headerSize);
  for (const { offset, size } of named) {
    const table = readAt(image, offset, size);
    if (table !== undefined) return table;
  }
  if (named.length > 0) {
    throw new ElfError("elf-malformed", `File ${image.source.name}: its table of Go functions is not understood`);
  }
  // Sections are for tools: a program runs without them, and the C compiler's linker may put several into one.
  const may = image.sections.length === 0 || image.sections.some(({ name }) => goSections.includes(name));
  return may ? searchTable(image) : undefined;
}

function searchTable(image: ElfImage): Pclntab | undefined {
  let left = searchMax;
  for (const { type, flags, offset, fileSize } of image.segments) {
    if (type !== segmentType.load || (flags & segmentFlag.execute) !== 0 || fileSize > left) continue;
    left -= fileSize;
    for (const magic of magics) {
      for (const place of placesOf(image, { offset, size: fileSize }, startOf(image, magic))) {
        const table = readAt(image, place, offset + fileSize - place);
        if (table !== undefined) return table;
      }
    }
  }
  return undefined;
}

/** Magic number, two zeros, the least length of an instruction, the length of an address. */
function startOf(image: ElfImage, magic: number): Buffer {
  const start = Buffer.from([0, 0, 0, 0, 0, 0, image.machine === "arm64" ? 4 : 1, 8]);
  start.writeUInt32LE(magic);
  return start;
}

function readAt(image: ElfImage, offset: number, size: number): Pclntab | undefined {
  if (size < headerSize) return undefined;
  const header = image.source.read(offset, headerSize);
  if (!magics.some((magic) => startOf(image, magic).equals(header.subarray(0, 8)))) return undefined;
  const functionCount = word(header, 8);
  const [namesAt, namesEnd, functionsAt] = [word(header, 32), word(header, 40), word(header, 64)];
  const address = addressOf(image, offset);
  const ordered = namesAt >= headerSize && namesAt <= namesEnd && namesEnd <= functionsAt;
  if (address === undefined || !ordered || functionCount === 0 || functionCount > functionsMax) return undefined;
  if (functionsAt + functionCount * 8 + 4 > size || size > searchMax) return undefined;
  return {
    address,
    functionCount,
    namesAt,
    functionsAt,
    names: { offset: offset + namesAt, size: namesEnd - namesAt },
    functions: { offset: offset + functionsAt, size: size - functionsAt },
  };
}

function addressOf(image: ElfImage, offset: number): number | undefined {
  const segment = image.segments.find(
    (one) => one.type === segmentType.load && offset >= one.offset && offset < one.offset + one.fileSize,
  );
  return segment === undefined ? undefined : segment.address + (offset - segment.offset);
}

/** Where `needle` stands in a range of the file. */
function* placesOf(image: ElfImage, { offset, size }: Range, needle: Buffer): Generator<number> {
  for (const piece of chunks(image.source, offset, size, needle.length - 1)) {
    for (let at = piece.bytes.indexOf(needle); at >= 0; at = piece.bytes.indexOf(needle, at + 1)) {
      yield offset + piece.offset + at;
    }
  }
}

/** The functions whose name ends like this. Names are searched as text, so that few of the functions need be looked at. */
export function functionsNamed(image: ElfImage, table: Pclntab, ending: string): GoFunction[] {
  const found: GoFunction[] = [];
  const names = new Set<number>();
  const needle = Buffer.from(`${ending}\0`, "latin1");
  for (const place of placesOf(image, table.names, needle)) {
    const name = nameEnding(image, table, place, ending);
    if (name === undefined || names.has(name.at)) continue;
    names.add(name.at);
    if (names.size > namesFoundMax) break;
    found.push(...functionsAt(image, table, name));
  }
  return found;
}

interface Name {
  readonly text: string;
  /** From the start of the names: by this the functions know it. */
  readonly at: number;
}

function nameEnding(image: ElfImage, { names }: Pclntab, place: number, ending: string): Name | undefined {
  const before = Math.min(nameMax, place - names.offset);
  const bytes = image.source.read(place - before, before + ending.length);
  const start = bytes.lastIndexOf(0, before - 1) + 1;
  if (before > 0 && start === 0 && before === nameMax) return undefined;
  return { text: bytes.toString("latin1", start), at: place - before + start - names.offset };
}

/** struct _func: entry, name, bytes of arguments; the words of each are 32 bits. */
function functionsAt(image: ElfImage, table: Pclntab, name: Name): GoFunction[] {
  const { functions, functionCount } = table;
  const needle = Buffer.alloc(4);
  needle.writeUInt32LE(name.at);
  const found: GoFunction[] = [];
  const first = functionCount * 8 + 4;
  const range = { offset: functions.offset + first, size: functions.size - first };
  let candidates = 0;
  for (const place of placesOf(image, range, needle)) {
    const at = place - functions.offset - 4;
    if (at < first || at + 12 > functions.size) continue;
    if ((candidates += 1) > candidatesMax) break;
    const bytes = image.source.read(functions.offset + at, 12);
    const entry = bytes.readUInt32LE(0);
    const size = sizeOf(image, table, entry, at);
    if (size !== undefined) found.push({ name: name.text, entry, size, argumentBytes: bytes.readInt32LE(8) });
  }
  return found;
}

/** Of the function that the index has at this entry and place; undefined: the index has none. */
function sizeOf(image: ElfImage, table: Pclntab, entry: number, place: number): number | undefined {
  let [low, high] = [0, table.functionCount];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (entryAt(image, table, middle) < entry) low = middle + 1;
    else high = middle;
  }
  if (low >= table.functionCount || entryAt(image, table, low) !== entry) return undefined;
  const row = image.source.read(table.functions.offset + low * 8, 12);
  const size = row.readUInt32LE(8) - entry;
  return row.readUInt32LE(4) === place && size > 0 && size <= functionSizeMax ? size : undefined;
}

/** Of function `index`; of the last and one: where the code ends. */
export function entryAt(image: ElfImage, { functions }: Pclntab, index: number): number {
  return image.source.read(functions.offset + index * 8, 4).readUInt32LE(0);
}

/*
 * Where a Go program's code starts: functions are numbered from there. The header of pclntab said so until go1.25;
 * moduledata, by which the runtime finds the table itself, says it in all versions (src/runtime/symtab.go).
 */
import { locate, readAddress, segmentFlag, segmentType, word } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { pointersTo, relocated } from "../elf/relocations.ts";
import { chunks, ElfError } from "../elf/source.ts";
import { entryAt } from "./pclntab.ts";
import type { Pclntab } from "./pclntab.ts";

/** Words of moduledata, as they have been since go1.16. A slice is three. */
const field = { table: 0, names: 1, functions: 16, functionCount: 17, first: 20, last: 21, code: 22 } as const;
const wordCount = 24;
const candidatesMax = 64;
const searchMax = 256 << 20;

/** @throws ElfError (`elf-malformed`) if no moduledata of the table is found, or it does not agree with the table */
export function codeStart(image: ElfImage, table: Pclntab): number {
  const first = entryAt(image, table, 0);
  const last = entryAt(image, table, table.functionCount);
  for (const address of candidates(image, table.address)) {
    const read = (index: number): number => readWord(image, address + index * 8);
    if (locate(image, address + wordCount * 8) === undefined) continue;
    const start = read(field.code);
    const agrees =
      read(field.names) === table.address + table.namesAt &&
      read(field.functions) === table.address + table.functionsAt &&
      read(field.functionCount) === table.functionCount + 1 &&
      read(field.first) === start + first &&
      read(field.last) === start + last;
    if (agrees && locate(image, start, segmentFlag.execute) !== undefined) return start;
  }
  throw new ElfError("elf-malformed", `File ${image.source.name}: no Go moduledata agrees with its pclntab`);
}

function readWord(image: ElfImage, address: number): number {
  return relocated(image, address) ?? word(readAddress(image, address, 8), 0);
}

/** Addresses of words that point to the table: written by the loader, or there already. */
function candidates(image: ElfImage, target: number): number[] {
  const found = pointersTo(image, target, candidatesMax);
  const needle = Buffer.alloc(8);
  needle.writeBigUInt64LE(BigInt(target));
  let left = searchMax;
  for (const { type, flags, offset, address, fileSize } of image.segments) {
    if (type !== segmentType.load || (flags & segmentFlag.write) === 0 || fileSize > left) continue;
    left -= fileSize;
    for (const piece of chunks(image.source, offset, fileSize, needle.length - 1)) {
      for (let at = piece.bytes.indexOf(needle); at >= 0; at = piece.bytes.indexOf(needle, at + 1)) {
        const place = address + piece.offset + at;
        if (place % 8 === 0) found.push(place);
        if (found.length >= candidatesMax) return found;
      }
    }
  }
  return found;
}
